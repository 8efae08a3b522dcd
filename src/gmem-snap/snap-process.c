/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "gmem-snap/live.h"
#include "gmem-snap/objects.h"
#include "gmem-snap/peer.h"
#include "gmem-snap/stop.h"
#include "memory/cgroup.h"
#include "serve/uffd-take.h"
#include "vmm/guard.h"

/* Any process, of which we know nothing but its memory objects. */
struct target {
	pid_t pid;
	struct objects objects;
	bool *chosen; /* owned; one for each object */
	struct pause pause;
	enum pause_method method; /* of it, also when it is over */
};

/* Whether the freezer stops this process together with the target. */
static bool
is_frozen_too(void *arg, pid_t pid)
{
	const struct target *t = arg;
	struct err ignored = ERR_INIT;
	struct cgroup ours, theirs;
	size_t len;

	if (t->method != PAUSE_FREEZER || cgroup_find(t->pid, &ours, &ignored) == -1 ||
	    cgroup_find(pid, &theirs, &ignored) == -1)
		return false;
	len = strlen(ours.path);
	return strncmp(theirs.path, ours.path, len) == 0 &&
	       (theirs.path[len] == '\0' || theirs.path[len] == '/');
}

enum look {
	LOOK, /* at all who have it mapped: the process still runs */
	LOOK_AT_TARGET, /* alone: quickly, for it is paused */
	LOOK_AND_WARN, /* at all, when it was read */
};

static int
check_users(const struct target *t, size_t i, enum look look, struct err *e)
{
	const struct memory_object *o = &t->objects.v[i];
	const struct peer_memory m = { .pid = t->pid,
		.name = t->objects.names[i],
		.dev = o->dev,
		.ino = o->ino,
		.stands_still = is_frozen_too,
		.quiet = look != LOOK_AND_WARN,
		.arg = (void *)(uintptr_t)t };

	return look == LOOK_AT_TARGET ? peer_check_self(&m, e) : peer_check_users(&m, e);
}

/* What a process writes to its private mapping is not in the object. */
static void
warn_private(const struct target *t, size_t i)
{
	const struct memory_object *o = &t->objects.v[i];

	for (size_t k = 0; k < o->nmappings; k++) {
		if (o->mappings[k].shared || !o->mappings[k].writable)
			continue;
		log_warn("%s is mapped privately: what the process wrote there is not saved",
		    t->objects.names[i]);
		return;
	}
}

static int
open_object(const struct target *t, size_t i, struct region *r, struct err *e)
{
	const struct memory_object *o = &t->objects.v[i];
	int fd;

	r->object.name = t->objects.names[i];
	r->object.kind = memory_kind_name(o->kind);
	r->object.page_size = MAX((uint32_t)o->page_size, PAGE_GRANULE);
	if (memory_open(t->pid, o, &fd, e) == -1)
		return -1;
	if (memory_source_open(&r->source, fd, o->kind, 0, e) == -1)
		return err_wrap(e, "%s", r->object.name);
	r->object.size = memory_source_size(r->source);
	if (r->object.size == 0)
		return err_set(e, ERR_FAILED, "%s: is empty", r->object.name);
	return 0;
}

static int
open_objects(struct snapshot *s, struct target *t, struct err *e)
{
	struct region *next;
	size_t n = 0;

	for (size_t i = 0; i < t->objects.n; i++)
		n += t->chosen[i];
	if (regions_alloc(&s->regions, n, e) == -1)
		return -1;
	next = s->regions.v;
	for (size_t i = 0; i < t->objects.n; i++) {
		if (!t->chosen[i])
			continue;
		warn_private(t, i);
		if (check_users(t, i, LOOK, e) == -1 || open_object(t, i, next++, e) == -1)
			return -1;
	}
	return 0;
}

/* Nothing is paused yet. */
static int
prepare(struct snapshot *s, struct target *t, struct err *e)
{
	const struct arg_list *wanted = &s->o->regions;

	t->chosen = calloc(t->objects.n + 1, sizeof(*t->chosen));
	if (t->chosen == NULL)
		return err_sys(e, "list of memory");
	if (objects_choose(&t->objects, wanted->v, wanted->n, t->chosen, e) == -1)
		return err_wrap(e, "process %d", (int)t->pid);
	if (pause_prepare(&t->pause, t->pid, s->o->pause, e) == -1)
		return -1;
	t->method = t->pause.method;
	if (open_objects(s, t, e) == -1 || snapshot_fact(s, "kind", "process", e) == -1)
		return -1;
	log_info("pausing by: %s", pause_method_name(t->method));
	return peer_command(s, t->pid, e);
}

/* The place in now of object i, which was looked at while the process ran; or now->n. */
static size_t
find_again(const struct target *t, size_t i, const struct objects *now)
{
	const struct memory_object *o = &t->objects.v[i];
	size_t k = 0;

	while (k < now->n && (now->v[k].dev != o->dev || now->v[k].ino != o->ino))
		k++;
	return k;
}

static int
changed(const char *name, struct err *e)
{
	return err_set(e, ERR_FAILED, "%s: the process changed it meanwhile, try again", name);
}

/* That what would be chosen now is what was chosen, and as large. */
static int
compare(const struct snapshot *s, const struct target *t, const struct objects *now,
    bool *chosen, struct err *e)
{
	const struct region *r = s->regions.v;

	for (size_t i = 0; i < t->objects.n; i++) {
		size_t k = find_again(t, i, now);

		if (!t->chosen[i])
			continue;
		if (k == now->n || !chosen[k] ||
		    (now->v[k].page_size != 0 && now->v[k].size != r->object.size))
			return changed(r->object.name, e);
		chosen[k] = false;
		r++;
	}
	for (size_t k = 0; k < now->n; k++)
		if (chosen[k])
			return changed(now->names[k], e);
	return 0;
}

/* The objects were looked at while the process ran: are they still what they were? */
static int
check_objects(const struct snapshot *s, const struct target *t, struct err *e)
{
	const struct arg_list *wanted = &s->o->regions;
	struct objects now;
	bool *chosen;
	int rc = -1;

	if (objects_find(&now, t->pid, e) == -1)
		return -1;
	chosen = calloc(now.n + 1, sizeof(*chosen));
	if (chosen == NULL)
		err_sys(e, "list of memory");
	else if (objects_choose(&now, wanted->v, wanted->n, chosen, e) == 0)
		rc = compare(s, t, &now, chosen, e);
	free(chosen);
	objects_fini(&now);
	return rc;
}

/* Nor may it have begun to wait for pages; the others are looked at when it runs again. */
static int
check_paused(const struct snapshot *s, const struct target *t, struct err *e)
{
	if (check_objects(s, t, e) == -1)
		return -1;
	for (size_t i = 0; i < t->objects.n; i++)
		if (t->chosen[i] && check_users(t, i, LOOK_AT_TARGET, e) == -1)
			return -1;
	return 0;
}

/* Those that have come while the memory was read are told, too. */
static int
check_after(const struct target *t, struct err *e)
{
	for (size_t i = 0; i < t->objects.n; i++) {
		if (!t->chosen[i] || check_users(t, i, LOOK_AND_WARN, e) == 0)
			continue;
		if (!process_is_gone(t->pid))
			return -1;
		*e = (struct err)ERR_INIT;
	}
	return 0;
}

/* live: its memory is read later; or NULL. */
static int
save(struct snapshot *s, struct target *t, struct live *live, struct err *e)
{
	if (stop_check(e) == -1 || pause_enter(&t->pause, PAUSE_TIMEOUT_MS, e) == -1 ||
	    (live != NULL ? check_objects(s, t, e) : check_paused(s, t, e)) == -1)
		return -1;
	if ((live != NULL ? live_arm(live, e) : snapshot_memory(s, e)) == -1)
		return -1;
	return pause_check(&t->pause, e);
}

static int
resume(struct snapshot *s, struct target *t, int r, struct err *e)
{
	bool was_paused = t->pause.was_paused;
	int rc;

	stop_noticed();
	rc = pause_resume(&t->pause, &s->resume);
	s->resume_ns = snapshot_now();
	if (process_is_gone(t->pid))
		s->vm = VMM_ENDED;
	else if (rc == -1)
		s->vm = VMM_UNKNOWN;
	else
		s->vm = was_paused ? VMM_PAUSED : VMM_RUNS;
	if (rc == 0 || r == -1)
		return r;
	*e = s->resume;
	return -1;
}

/* In the guardian. */
static int
release(void *arg)
{
	const struct target *t = arg;
	int why = pause_release(&t->pause);

	if (why == 0)
		log_warn("died before its end; process %d runs again", (int)t->pid);
	else
		log_error("died before its end; process %d may be paused: %s", (int)t->pid,
		    strerror(why));
	return why == 0 ? 0 : -1;
}

static int
save_and_resume(struct snapshot *s, struct target *t, struct live *live, struct err *e)
{
	s->pause_ns = snapshot_now();
	return resume(s, t, save(s, t, live, e), e);
}

struct pausing {
	struct snapshot *s;
	struct target *t;
};

static int
pause_and_resume(void *arg, struct live *live, struct err *e)
{
	const struct pausing *p = arg;

	return save_and_resume(p->s, p->t, live, e);
}

static int
save_paused(struct snapshot *s, struct target *t, struct err *e)
{
	return snapshot_start(s, e) == -1 ? -1 : save_and_resume(s, t, NULL, e);
}

/* from: how it is saved while it runs; or NULL. */
static int
guarded(struct snapshot *s, struct target *t, struct live_vm *from, struct err *e)
{
	const int keep[] = { t->pause.fd, t->pause.events };
	struct pausing pausing = { s, t };
	struct guard *guard;
	int rc;

	if (guard_start(&guard, release, t, keep, 2, e) == -1)
		return -1;
	rc = from != NULL ? live_save(s, from, pause_and_resume, &pausing, e)
			  : save_paused(s, t, e);
	guard_stop(guard);
	return rc;
}

/* Where the chosen memory is mapped, and a userfaultfd of the process. */
static int
find_live(struct live_vm *from, const struct snapshot *s, const struct target *t, struct err *e)
{
	const struct region *r = s->regions.v;

	for (size_t i = 0; i < t->objects.n; i++)
		if (t->chosen[i] &&
		    live_add_object(from, &t->objects.v[i], 0, r++->object.size, e) == -1)
			return -1;
	return uffd_take(t->pid, &from->uffd, e);
}

/* The userfaultfd first: a guardian has none of our descriptors, and threads come after it. */
static int
guarded_live(struct snapshot *s, struct target *t, struct err *e)
{
	struct live_vm from = LIVE_VM(t->pid);
	int rc;

	rc = find_live(&from, s, t, e);
	if (rc == 0)
		rc = guarded(s, t, &from, e);
	else
		err_wrap(e, "--pause-less");
	live_vm_fini(&from);
	return rc;
}

static int
save_unpaused(struct snapshot *s, struct target *t, struct err *e)
{
	if (snapshot_start(s, e) == -1)
		return -1;
	return save(s, t, NULL, e);
}

int
snap_process(struct snapshot *s, struct err *e)
{
	struct target t = { .pid = s->o->pid, .pause = PAUSE_INIT };
	struct err ignored = ERR_INIT;
	bool live;
	int rc;

	if (objects_find(&t.objects, t.pid, e) == -1)
		return -1;
	rc = prepare(s, &t, e);
	live = s->o->pause_less && t.method != PAUSE_NONE;
	if (rc == 0 && t.method == PAUSE_NONE)
		rc = save_unpaused(s, &t, e);
	else if (rc == 0)
		rc = live ? guarded_live(s, &t, e) : guarded(s, &t, NULL, e);
	if (rc == 0 && !live)
		rc = check_after(&t, e);
	if (rc == 0)
		rc = snapshot_commit(s, e);
	pause_resume(&t.pause, &ignored);
	objects_fini(&t.objects);
	free(t.chosen);
	return rc;
}
