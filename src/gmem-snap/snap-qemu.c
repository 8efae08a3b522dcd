/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "gmem-snap/live.h"
#include "gmem-snap/objects.h"
#include "gmem-snap/stop.h"
#include "memory/served.h"
#include "serve/uffd-take.h"
#include "vmm/guard.h"
#include "vmm/qemu/qemu.h"

/*
 * A running QEMU.  All that can fail without the VM's help is done before it
 * is paused, and what its memory is not needed for after it runs again.
 */

static int
put_facts(struct snapshot *s, struct qemu *vm, struct err *e)
{
	struct qemu_facts f;
	char ncpus[16] = "";
	int r = -1;

	if (qemu_facts(vm, &f, e) == -1)
		return -1;
	if (f.ncpus != 0)
		snprintf(ncpus, sizeof(ncpus), "%u", f.ncpus);
	if (snapshot_fact(s, "kind", "qemu", e) == 0 &&
	    snapshot_fact(s, "version", f.version, e) == 0 &&
	    snapshot_fact(s, "machine", f.machine, e) == 0 &&
	    snapshot_fact(s, "accel", f.accel, e) == 0 &&
	    snapshot_fact(s, "cpu", f.cpu, e) == 0 &&
	    snapshot_fact(s, "ncpus", ncpus, e) == 0 &&
	    snapshot_command(s, f.argv, f.argc, e) == 0)
		r = 0;
	qemu_facts_fini(&f);
	return r;
}

/* Holes in memory that is still being filled are not zeros. */
static int
check_served(struct qemu *vm, const struct qemu_ram *ram, struct err *e)
{
	const struct memory_object *o = ram->object;
	bool served;

	if (memory_is_served(qemu_pid(vm), o->dev, o->ino, &served, e) == -1)
		return -1;
	if (!served)
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "the VM is itself still being restored (userfaultfd on RAM %s): wait until "
	    "gmem-restore says that it is complete",
	    ram->id);
}

static int
copy_segments(struct snapshot *s, struct object *o, const struct qemu_ram *ram, struct err *e)
{
	o->segments = arena_array(snapshot_arena(s), ram->nsegments, sizeof(*o->segments));
	if (o->segments == NULL)
		return err_sys(e, "RAM %s", ram->id);
	o->nsegments = ram->nsegments;
	for (size_t i = 0; i < ram->nsegments; i++)
		o->segments[i] = (struct segment){ .gpa = ram->segments[i].gpa,
			.offset = ram->segments[i].offset,
			.size = ram->segments[i].size };
	return 0;
}

static int
open_ram(struct snapshot *s, struct qemu *vm, const struct qemu_ram *ram, struct region *r,
    struct err *e)
{
	int fd;

	if (check_served(vm, ram, e) == -1 || copy_segments(s, &r->object, ram, e) == -1)
		return -1;
	r->object.name = ram->id;
	r->object.kind = memory_kind_name(ram->object->kind);
	r->object.size = ram->size;
	r->object.page_size = (uint32_t)ram->page_size;
	r->offset = ram->offset;
	if (memory_open(qemu_pid(vm), ram->object, &fd, e) == -1 ||
	    memory_source_open(&r->source, fd, ram->object->kind, ram->offset + ram->size, e) ==
		-1)
		return err_wrap(e, "RAM %s", ram->id);
	log_info("RAM %s: %" PRIu64 " bytes, %s", ram->id, ram->size, r->object.kind);
	return 0;
}

static int
open_all_ram(struct snapshot *s, struct qemu *vm, struct err *e)
{
	const struct qemu_ram *ram;
	size_t n;

	ram = qemu_ram(vm, &n);
	if (regions_alloc(&s->regions, n, e) == -1)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (open_ram(s, vm, &ram[i], &s->regions.v[i], e) == -1)
			return -1;
	return 0;
}

static int
sink(void *arg, const void *buf, size_t len, struct err *e)
{
	return stream_put(arg, buf, len, e);
}

static int
pause_and_save_state(struct snapshot *s, struct qemu *vm, struct err *e)
{
	if (stop_check(e) == -1 || qemu_pause(vm, e) == -1 ||
	    stream_begin(s->stream, "device", "qemu-migration", e) == -1 ||
	    qemu_save_state(vm, sink, s->stream, e) == -1)
		return -1;
	return stream_end(s->stream, e);
}

/* Everything that the VM has to be paused for. */
static int
save(struct snapshot *s, struct qemu *vm, struct live *live, struct err *e)
{
	if (pause_and_save_state(s, vm, e) == -1 || qemu_note_saved(vm, e) == -1)
		return -1;
	/* Not before: completing the state may still write to RAM. */
	if ((live != NULL ? live_arm(live, e) : snapshot_memory(s, e)) == -1)
		return -1;
	return qemu_check_paused(vm, e);
}

static enum qemu_after
after_of(enum vmm_leave leave)
{
	switch (leave) {
	case VMM_LEAVE_PAUSED:
		return QEMU_LEAVE_PAUSED;
	case VMM_LEAVE_RUNNING:
		return QEMU_LEAVE_RUNNING;
	case VMM_LEAVE_QUIT:
		return QEMU_QUIT;
	case VMM_LEAVE_AS_BEFORE:
		break;
	}
	return QEMU_AS_BEFORE;
}

/* What became of a VM that was to be left so. */
static enum vmm_outcome
outcome(const struct qemu *vm, enum qemu_after after)
{
	switch (after) {
	case QEMU_QUIT:
		return VMM_ENDED;
	case QEMU_LEAVE_PAUSED:
		return VMM_PAUSED;
	case QEMU_LEAVE_RUNNING:
		return VMM_RUNS;
	case QEMU_AS_BEFORE:
		break;
	}
	return qemu_was_running(vm) ? VMM_RUNS : VMM_PAUSED;
}

/* The way out: r is how it went until here. */
static int
resume(struct snapshot *s, struct qemu *vm, int r, struct err *e)
{
	enum qemu_after after = r == 0 ? after_of(s->o->leave) : QEMU_AS_BEFORE;
	int rc;

	stop_noticed();
	rc = qemu_resume(vm, after, &s->resume);
	s->resume_ns = snapshot_now();
	if (rc == 0)
		s->vm = outcome(vm, after);
	else
		s->vm = process_is_gone(qemu_pid(vm)) ? VMM_ENDED : VMM_UNKNOWN;
	if (rc == 0 || r == -1)
		return r;
	*e = s->resume;
	return -1;
}

/*
 * A VM that goes on is resumed as soon as its memory has been read; one that is
 * ended or left paused waits until the image has its name.
 */
static int
save_and_resume(struct snapshot *s, struct qemu *vm, struct live *live, struct err *e)
{
	enum vmm_leave leave = s->o->leave;
	int rc;

	s->pause_ns = snapshot_now();
	rc = save(s, vm, live, e);
	if (rc == 0 && (leave == VMM_LEAVE_QUIT || leave == VMM_LEAVE_PAUSED))
		rc = snapshot_commit(s, e);
	return resume(s, vm, rc, e);
}

/* ---- while it runs ---- */

/* Where the RAM is mapped, and a userfaultfd of QEMU's. */
static int
find_live(struct live_vm *from, struct qemu *vm, struct err *e)
{
	const struct qemu_ram *ram;
	size_t n;

	ram = qemu_ram(vm, &n);
	for (size_t i = 0; i < n; i++)
		if (live_add_object(from, ram[i].object, ram[i].offset, ram[i].size, e) == -1)
			return -1;
	return uffd_take(from->pid, &from->uffd, e);
}

struct pausing {
	struct snapshot *s;
	struct qemu *vm;
};

static int
pause_and_resume(void *arg, struct live *live, struct err *e)
{
	const struct pausing *p = arg;

	return save_and_resume(p->s, p->vm, live, e);
}

/* ---- all of it ---- */

static int
save_paused(struct snapshot *s, struct qemu *vm, struct err *e)
{
	return snapshot_start(s, e) == -1 ? -1 : save_and_resume(s, vm, NULL, e);
}

/* from: how it is saved while it runs; or NULL. */
static int
guarded(struct snapshot *s, struct qemu *vm, struct live_vm *from, struct err *e)
{
	struct pausing pausing = { s, vm };
	struct guard *guard;
	int fd = qemu_fd(vm), rc;

	if (guard_start(&guard, qemu_guard_resume, vm, &fd, 1, e) == -1)
		return -1;
	rc = from != NULL ? live_save(s, from, pause_and_resume, &pausing, e)
			  : save_paused(s, vm, e);
	guard_stop(guard);
	if (rc == 0 && !s->committed)
		rc = snapshot_commit(s, e);
	return rc;
}

/* The userfaultfd first: a guardian has none of our descriptors, and threads come after it. */
static int
guarded_live(struct snapshot *s, struct qemu *vm, struct err *e)
{
	struct live_vm from = LIVE_VM(qemu_pid(vm));
	int rc;

	rc = find_live(&from, vm, e);
	if (rc == 0)
		rc = guarded(s, vm, &from, e);
	else
		err_wrap(e, "--pause-less");
	live_vm_fini(&from);
	return rc;
}

int
snap_qemu(struct snapshot *s, struct err *e)
{
	struct qemu *vm;
	int rc = -1;

	if (qemu_attach(&vm, s->o->qmp, s->o->pid, stop_fd(), e) == -1)
		return -1;
	if (put_facts(s, vm, e) == 0 && open_all_ram(s, vm, e) == 0)
		rc = s->o->pause_less ? guarded_live(s, vm, e) : guarded(s, vm, NULL, e);
	qemu_detach(vm);
	return rc;
}
