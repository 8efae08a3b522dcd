/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "memory/kind.h"
#include "vmm/firecracker/api.h"
#include "vmm/firecracker/facts.h"
#include "vmm/firecracker/impl.h"
#include "vmm/firecracker/place.h"
#include "vmm/guard.h"
#include "vmm/wait.h"

/*
 * Saving: Firecracker writes its memory and its state into two files, which have no names any
 * more when the VM runs again, and are put into the image then.
 */

#define STATE_MAX (64u << 20)
#define STATE_PIECE (256u << 10)
#define STATE_ROOM (16u << 20)
#define SLOWEST_MIB_S 20 /* that a disk may take; for the time limit */
#define QUIT_MS 5000

struct save {
	const struct vmm_save *how;
	const struct vmm_sink *sink;
	struct fc_api api;
	struct fc_facts facts;
	pid_t pid; /* 0: not known */
	int pidfd; /* or -1 */
	int folder; /* our current one, where the socket's path may begin */
	struct fc_place place;
	int memory, state; /* the files, opened */
	bool paused; /* by us, or about to be */
};

/* ---- before it is paused ---- */

static int
look(struct save *s, struct err *e)
{
	s->folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->folder == -1)
		return err_sys(e, "open the current folder");
	s->pid = s->how->pid;
	if (s->pid == 0 && fc_api_peer(&s->api, &s->pid, e) == -1)
		return -1;
	if (s->pid > 0 && (s->pidfd = pidfd_open(s->pid, 0)) == -1)
		return err_sys(e, "the VMM's process %d", (int)s->pid);
	return fc_facts_get(&s->facts, &s->api, s->pid, e);
}

static int
check_room(const struct save *s, struct err *e)
{
	uint64_t room, need = (s->facts.memory_mib << 20) + STATE_ROOM;

	if (fc_place_room(&s->place, &room, e) == -1)
		return -1;
	if (room >= need)
		return 0;
	return err_set(e, ERR_FAILED,
	    "%s has room for %" PRIu64 " MiB, the VM's memory takes %" PRIu64
	    " MiB for a while: %s",
	    s->place.seen, room >> 20, need >> 20,
	    s->place.jailed ? "make room in the VMM's root directory (its jail)"
			    : "set TMPDIR to a folder with more");
}

static int
put_facts(const struct save *s, struct err *e)
{
	const struct fc_facts *f = &s->facts;
	const struct vmm_sink *k = s->sink;
	char number[24];

	snprintf(number, sizeof(number), "%" PRIu64, f->ncpus);
	if (k->fact(k->arg, "kind", FC_NAME, e) == -1 ||
	    k->fact(k->arg, "version", f->version, e) == -1 ||
	    (f->ncpus != 0 && k->fact(k->arg, "ncpus", number, e) == -1) ||
	    (f->huge_pages[0] != '\0' && k->fact(k->arg, "huge_pages", f->huge_pages, e) == -1))
		return -1;
	return f->argc > 0 ? k->command(k->arg, f->argv, f->argc, e) : 0;
}

/* ---- what it is paused for ---- */

/* The guardian's: when we were killed, Firecracker is writing perhaps, and answers after it. */
static int
guard_resume(void *arg)
{
	struct save *s = arg;
	struct err e = ERR_INIT;
	int rc = 0;

	/* It has been sent away from here.  A whole path could be too long for a socket. */
	if (fchdir(s->folder) == -1)
		log_warn("guardian: back into the current folder: %s", strerror(errno));
	if (s->facts.runs)
		rc = fc_api_resume(&s->api, s->pidfd, &e);
	if (rc == -1)
		log_error("%s", e.msg);
	fc_place_remove(&s->place);
	return rc;
}

/* It writes all its memory before it answers. */
static int
create(struct save *s, struct err *e)
{
	struct fc_api slow = s->api;
	char memory[PATH_MAX], state[PATH_MAX];
	json_t *body;

	if (fc_place_path(&s->place, FC_MEMORY, memory, e) == -1 ||
	    fc_place_path(&s->place, FC_STATE, state, e) == -1)
		return -1;
	if (slow.timeout_ms >= 0)
		slow.timeout_ms +=
		    (int)MIN(s->facts.memory_mib * 1000 / SLOWEST_MIB_S, (uint64_t)INT_MAX / 2);
	body = json_pack("{s:s, s:s, s:s}", "snapshot_type", "Full", "snapshot_path", state,
	    "mem_file_path", memory);
	return fc_api_send(&slow, "PUT", "/snapshot/create", body, "save the VM", e);
}

/* Opened, the files need no names, and are gone when we are. */
static int
take_files(struct save *s, struct err *e)
{
	struct stat memory, state;

	if (fc_place_open(&s->place, FC_MEMORY, &s->memory, e) == -1 ||
	    fc_place_open(&s->place, FC_STATE, &s->state, e) == -1)
		return -1;
	fc_place_remove(&s->place);
	if (fstat(s->memory, &memory) == -1 || fstat(s->state, &state) == -1)
		return err_sys(e, "stat of what the VMM has written");
	if ((uint64_t)memory.st_size < s->facts.memory_mib << 20 ||
	    memory.st_size % PAGE_GRANULE != 0)
		return err_set(e, ERR_FAILED,
		    "the VMM has written %lld bytes of memory, it has %" PRIu64 " MiB",
		    (long long)memory.st_size, s->facts.memory_mib);
	if (state.st_size == 0 || state.st_size > STATE_MAX)
		return err_set(e, ERR_FAILED, "the VMM has written a state of %lld bytes",
		    (long long)state.st_size);
	return 0;
}

static int
pause_and_create(struct save *s, struct err *e)
{
	s->paused = true;
	s->sink->paused(s->sink->arg);
	if (s->facts.runs && fc_api_set_state(&s->api, "Paused", e) == -1)
		return -1;
	if (create(s, e) == -1)
		return -1;
	return take_files(s, e);
}

/* ---- the image ---- */

static int
copy_state(struct save *s, struct err *e)
{
	const struct vmm_sink *k = s->sink;
	uint8_t *buf = malloc(STATE_PIECE);
	ssize_t n;
	int rc = 0;

	if (buf == NULL)
		return err_sys(e, "state");
	while (rc == 0 && (n = fd_read(s->state, buf, STATE_PIECE, e)) != 0)
		rc = n > 0 ? k->state_put(k->arg, buf, (size_t)n, e) : -1;
	free(buf);
	return rc;
}

/*
 * One piece from 0 on where memory ends below the hole for devices, which begins at 3 GiB at
 * the earliest; nothing is said of larger ones, whose hole is of the version.
 */
static void
find_segment(const struct save *s, struct object *o, struct segment *segment)
{
#ifdef __x86_64__
	if (o->size == s->facts.memory_mib << 20 && o->size <= UINT64_C(3) << 30) {
		*segment = (struct segment){ .gpa = 0, .offset = 0, .size = o->size };
		o->segments = segment;
		o->nsegments = 1;
	}
#else
	(void)s;
	(void)o;
	(void)segment;
#endif
}

static int
put_memory(struct save *s, struct err *e)
{
	struct object o = { .name = FC_REGION_NAME, .page_size = PAGE_GRANULE };
	bool huge = strcmp(s->facts.huge_pages, "2M") == 0;
	struct memory_source *source;
	struct segment segment;
	int fd = s->memory;

	s->memory = -1;
	if (memory_source_open(&source, fd, MEMORY_FILE, 0, e) == -1)
		return -1;
	o.size = memory_source_size(source);
	o.kind = memory_kind_name(huge ? MEMORY_HUGETLB : MEMORY_FILE);
	if (huge)
		o.page_size = 2 << 20;
	find_segment(s, &o, &segment);
	return s->sink->region(s->sink->arg, &o, source, 0, e);
}

static int
put_format(struct save *s, struct err *e)
{
	uint8_t head[FC_FORMAT_BYTES] = { 0 };
	char format[32];

	if (pread(s->state, head, sizeof(head), 0) == -1)
		return err_sys(e, "read the state");
	fc_state_format(head, format);
	return format[0] != '\0' ? s->sink->fact(s->sink->arg, "vmstate", format, e) : 0;
}

static int
convert(struct save *s, struct err *e)
{
	const struct vmm_sink *k = s->sink;

	if (put_format(s, e) == -1)
		return -1;
	if (k->state_begin(k->arg, FC_STATE_NAME, FC_STATE_KIND, e) == -1 ||
	    copy_state(s, e) == -1 || k->state_end(k->arg, e) == -1 || put_memory(s, e) == -1 ||
	    k->memory(k->arg, e) == -1)
		return -1;
	return k->commit(k->arg, e);
}

/* ---- the way out ---- */

static bool
has_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return pidfd != -1 && poll(&p, 1, 0) == 1;
}

/* The API knows no way to end it; a signal is what its users send. */
static int
quit(struct save *s, struct err *e)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };

	if (p.fd == -1)
		return err_set(e, ERR_FAILED, "end the VMM: its process is not known");
	if (pidfd_send_signal(p.fd, SIGTERM, NULL, 0) == -1)
		return err_sys(e, "end the VMM: signal to process %d", (int)s->pid);
	if (poll(&p, 1, QUIT_MS) != 1) {
		pidfd_send_signal(p.fd, SIGKILL, NULL, 0);
		poll(&p, 1, QUIT_MS);
	}
	return 0;
}

/* What it is to be now.  Who has no patience kills us, and the guardian goes on. */
static int
leave(struct save *s, enum vmm_leave how, enum vmm_outcome *outcome, struct err *e)
{
	bool run = how == VMM_LEAVE_RUNNING || (how == VMM_LEAVE_AS_BEFORE && s->facts.runs);

	if (how == VMM_LEAVE_QUIT) {
		*outcome = VMM_ENDED;
		return quit(s, e);
	}
	*outcome = run ? VMM_RUNS : VMM_PAUSED;
	return run ? fc_api_resume(&s->api, s->pidfd, e) : 0;
}

/* rc tells how it went until here; after a failure the VM is to be as it was. */
static int
release(struct save *s, int rc, struct err *e)
{
	enum vmm_leave how = rc == 0 ? s->how->leave : VMM_LEAVE_AS_BEFORE;
	struct err why = ERR_INIT;
	enum vmm_outcome outcome;
	int left;

	s->sink->releasing(s->sink->arg);
	left = leave(s, how, &outcome, &why);
	if (left == -1)
		outcome = has_ended(s->pidfd) ? VMM_ENDED : VMM_UNKNOWN;
	s->sink->released(s->sink->arg, outcome, left == -1 ? &why : NULL);
	s->paused = false;
	if (left == 0 || rc == -1)
		return rc;
	*e = why;
	return -1;
}

/* A VM that goes on does so before the image is written; another waits until it has its name.
 */
static int
pause_and_save(struct save *s, bool *converted, struct err *e)
{
	enum vmm_leave how = s->how->leave;
	int rc = pause_and_create(s, e);

	if (rc == 0 && (how == VMM_LEAVE_PAUSED || how == VMM_LEAVE_QUIT)) {
		rc = convert(s, e);
		*converted = true;
	}
	return release(s, rc, e);
}

static int
guarded(struct save *s, struct err *e)
{
	const int keep[] = { s->place.dir, s->place.parent, s->folder, s->pidfd };
	bool converted = false;
	struct guard *guard;
	int rc;

	if (guard_start(&guard, guard_resume, s, keep, 4, e) == -1)
		return -1;
	rc = s->sink->start(s->sink->arg, e);
	if (rc == 0)
		rc = pause_and_save(s, &converted, e);
	guard_stop(guard);
	if (rc == 0 && !converted)
		rc = convert(s, e);
	return rc;
}

int
fc_save(const struct vmm_save *how, const struct vmm_sink *sink, struct err *e)
{
	struct save s = {
		.how = how,
		.sink = sink,
		.api = { how->socket, how->timeout_ms, how->stop_fd },
		.pidfd = -1,
		.folder = -1,
		.place = FC_PLACE_INIT,
		.memory = -1,
		.state = -1,
	};
	int rc = -1;

	if (look(&s, e) == 0 && put_facts(&s, e) == 0 &&
	    fc_place_make(&s.place, s.pid, e) == 0 && fc_place_give(&s.place, e) == 0 &&
	    check_room(&s, e) == 0)
		rc = guarded(&s, e);
	fc_place_remove(&s.place);
	fd_close(&s.memory);
	fd_close(&s.state);
	fd_close(&s.folder);
	fd_close(&s.pidfd);
	fc_facts_fini(&s.facts);
	return rc;
}
