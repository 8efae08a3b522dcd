/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "gmem-snap/live.h"
#include "gmem-snap/objects.h"
#include "gmem-snap/peer.h"
#include "gmem-snap/stop.h"
#include "vmm/control.h"

#define STATE_NAME "vmm" /* when the VMM has no name for its state */

/*
 * A VMM that speaks the hand-off: it gives us its memory, stands still when we ask it to, and
 * runs on when we say so or when the connection ends.  So no guardian is needed.
 */

/* "minivmm 1": name and version. */
static int
put_facts(struct snapshot *s, const struct control *vm, struct err *e)
{
	const char *text = control_vmm(vm), *blank = strchr(text, ' ');
	char name[256];

	snprintf(name, sizeof(name), "%.*s",
	    blank != NULL ? (int)(blank - text) : (int)strlen(text), text);
	if (snapshot_fact(s, "kind", "handoff", e) == -1 ||
	    snapshot_fact(s, "name", name, e) == -1 ||
	    snapshot_fact(s, "version", blank != NULL ? blank + 1 : "", e) == -1)
		return -1;
	return control_pid(vm) != 0 ? peer_command(s, control_pid(vm), e) : 0;
}

/* Holes in memory that is still being filled are not zeros. */
static int
check_users(const struct control *vm, const struct control_region *from, struct err *e)
{
	const struct peer_memory m = {
		.pid = control_pid(vm), .name = from->name, .dev = from->dev, .ino = from->ino
	};

	return peer_check_users(&m, e);
}

static int
place(struct snapshot *s, struct object *o, const struct control_region *from, struct err *e)
{
	if (!from->placed)
		return 0;
	o->segments = arena_array(snapshot_arena(s), 1, sizeof(*o->segments));
	if (o->segments == NULL)
		return err_sys(e, "place of the memory");
	o->nsegments = 1;
	o->segments[0] = (struct segment){ .gpa = from->guest_address, .size = from->size };
	return 0;
}

static int
open_region(struct snapshot *s, const struct control *vm, const struct control_region *from,
    struct region *r, struct err *e)
{
	int fd;

	if (check_users(vm, from, e) == -1 || place(s, &r->object, from, e) == -1)
		return -1;
	r->object.name = from->name;
	r->object.kind = memory_kind_name(from->kind);
	r->object.size = from->size;
	r->object.page_size = MAX((uint32_t)from->page_size, PAGE_GRANULE);
	r->offset = from->offset;
	fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 3);
	if (fd == -1)
		return err_sys(e, "descriptor");
	log_info("region %s: %" PRIu64 " bytes, %s", from->name, from->size, r->object.kind);
	return memory_source_open(&r->source, fd, from->kind, from->offset + from->size, e);
}

static int
open_regions(struct snapshot *s, const struct control *vm, struct err *e)
{
	const struct control_region *list;
	size_t n;

	list = control_regions(vm, &n);
	if (regions_alloc(&s->regions, n, e) == -1)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (open_region(s, vm, &list[i], &s->regions.v[i], e) == -1)
			return err_wrap(e, "region %s", list[i].name);
	return 0;
}

/* The state of a VMM: a file that it has made, and the name. */
struct state {
	int fd;
	uint64_t size;
	char name[256];
};

static int
put_state(struct snapshot *s, const struct state *state, struct err *e)
{
	const char *name = *state->name != '\0' ? state->name : STATE_NAME;

	if (stream_begin(s->stream, name, "handoff", e) == 0 &&
	    snapshot_state(s, state->fd, state->size, e) == 0 && stream_end(s->stream, e) == 0)
		return 0;
	return e->kind == ERR_INTERRUPTED ? -1 : err_wrap(e, "state %s", name);
}

static int
pause_and_get_state(struct control *vm, struct state *state, struct err *e)
{
	if (stop_check(e) == -1 || control_pause(vm, e) == -1)
		return -1;
	return control_state(vm, &state->fd, &state->size, state->name, e);
}

/* A dying process closes its sockets a moment before it is dead. */
static bool
has_ended(pid_t pid)
{
	const struct timespec nap = { .tv_nsec = 10000000 };

	for (int i = 0; pid != 0 && i < 25; i++) {
		if (process_is_gone(pid))
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

/*
 * The way out: r is how it went until here.  A VMM that does not answer may have resumed
 * the VM before we had read everything.
 */
static int
resume(struct snapshot *s, struct control *vm, int r, struct err *e)
{
	bool refused;
	int rc;

	if (!control_may_be_paused(vm))
		return r;
	stop_noticed();
	rc = control_resume(vm, &refused, &s->resume);
	s->resume_ns = snapshot_now();
	if (rc == 0)
		s->vm = control_was_paused(vm) ? VMM_PAUSED : VMM_RUNS;
	else if (has_ended(control_pid(vm)))
		s->vm = VMM_ENDED;
	else
		s->vm = refused ? VMM_UNKNOWN : VMM_LET_GO;
	if (rc == 0 || r == -1)
		return r;
	*e = s->resume;
	return -1;
}

/* The VM stands still until all is saved. */
static int
save_paused(struct snapshot *s, struct control *vm, struct err *e)
{
	struct state state = { .fd = -1 };
	int rc;

	s->pause_ns = snapshot_now();
	rc = pause_and_get_state(vm, &state, e);
	if (rc == 0)
		rc = put_state(s, &state, e);
	if (rc == 0)
		rc = snapshot_memory(s, e);
	fd_close(&state.fd);
	return resume(s, vm, rc, e);
}

struct pausing {
	struct snapshot *s;
	struct control *vm;
};

/* The VM stands still for its state, and until its memory is write-protected. */
static int
pause_and_resume(void *arg, struct live *live, struct err *e)
{
	const struct pausing *p = arg;
	struct state state = { .fd = -1 };
	int rc;

	p->s->pause_ns = snapshot_now();
	rc = pause_and_get_state(p->vm, &state, e);
	if (rc == 0)
		rc = live_arm(live, e);
	rc = resume(p->s, p->vm, rc, e);
	if (rc == 0)
		rc = put_state(p->s, &state, e);
	fd_close(&state.fd);
	return rc;
}

static int
can_protect(const struct control *vm, struct err *e)
{
	if (!control_can_protect(vm))
		return err_set(e, ERR_UNSUPPORTED,
		    "the VMM (%s) cannot have its memory protected: leave out --pause-less",
		    control_vmm(vm));
	if (control_pid(vm) == 0)
		return err_set(e, ERR_UNSUPPORTED,
		    "the VMM's process cannot be seen from here, nor who else writes to its "
		    "memory: leave out --pause-less");
	return 0;
}

/* The VMM tells where its memory is mapped, and gives a userfaultfd for it. */
static int
find_live(struct live_vm *from, struct control *vm, struct err *e)
{
	const struct control_region *list;
	size_t n;

	if (can_protect(vm, e) == -1 ||
	    control_protect(vm, &from->uffd, &from->mappings, &from->nmappings, e) == -1)
		return -1;
	list = control_regions(vm, &n);
	for (size_t i = 0; i < n; i++)
		if (live_add_region(from, list[i].dev, list[i].ino, e) == -1)
			return -1;
	return 0;
}

static int
save_live(struct snapshot *s, struct control *vm, struct err *e)
{
	struct pausing pausing = { s, vm };
	struct live_vm from = LIVE_VM(control_pid(vm));
	int rc;

	rc = find_live(&from, vm, e);
	if (rc == 0)
		rc = live_save(s, &from, pause_and_resume, &pausing, e);
	live_vm_fini(&from);
	return rc;
}

static int
save(struct snapshot *s, struct control *vm, struct err *e)
{
	int rc;

	if (s->o->pause_less)
		return save_live(s, vm, e);
	rc = snapshot_start(s, e);
	if (rc == 0)
		rc = save_paused(s, vm, e);
	snapshot_stop(s);
	return rc;
}

int
snap_handoff(struct snapshot *s, struct err *e)
{
	struct control_dial how = CONTROL_DIAL_INIT;
	struct control *vm;
	int rc = -1;

	how.stop_fd = stop_fd();
	if (control_open(&vm, s->o->handoff, &how, e) == -1)
		return -1;
	if (control_pid(vm) == 0)
		log_warn(
		    "the VMM's process cannot be seen from here: whether its memory is still "
		    "being restored is not known");
	if (put_facts(s, vm, e) == 0 && open_regions(s, vm, e) == 0)
		rc = save(s, vm, e);
	if (rc == 0)
		rc = snapshot_commit(s, e);
	control_close(vm);
	return rc;
}
