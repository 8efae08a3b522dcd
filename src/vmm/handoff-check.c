/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "memory/process.h"
#include "vmm/handoff-internal.h"

/* Looks for who maps the memory and has not handed that over. */

/* How long a VMM may take from its memory to the first mapping of it. */
#define MAP_NS (UINT64_C(5) * 1000000000)

/*
 * The part of a mapping that shows region i while that still has to be served: false if
 * there is none.  With the lock held.
 */
static bool
shows_region(const struct handoff *h, uint32_t i, const struct memory_object *o,
    const struct memory_mapping *m, struct memory_mapping *part)
{
	const struct gmem_region *r = &h->regions[i];
	uint64_t start = MAX(m->offset, r->offset);
	uint64_t end = MIN(m->offset + m->len, r->offset + align_up(r->size, r->page_size));

	if (r->dev != o->dev || r->ino != o->ino || start >= end ||
	    pager_is_complete(h->server, i))
		return false;
	*part =
	    (struct memory_mapping){ .hva = m->hva + (start - m->offset), .len = end - start };
	return true;
}

/* By a process that has handed it over, or is about to.  With the lock held. */
static bool
is_served(const struct handoff *h, pid_t pid, const struct memory_mapping *m)
{
	uint64_t last = atomic_load(&h->last_memory);
	bool fresh = last == UINT64_MAX || serve_now() - last < MAP_NS;

	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		const struct client *c = &h->clients[i];

		if (!c->used || c->pid != pid)
			continue;
		if ((c->owns && !c->mapped && fresh) ||
		    (c->served && pager_covers(h->server, c->id, m->hva, m->len)))
			return true;
	}
	return false;
}

static int
check_mapping(struct handoff *h, pid_t pid, const struct memory_object *o,
    const struct memory_mapping *m, struct err *e)
{
	struct memory_mapping part;
	bool good = true;

	pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->nregions && good; i++)
		good = !shows_region(h, i, o, m, &part) || is_served(h, pid, &part);
	pthread_mutex_unlock(&h->lock);
	if (good)
		return 0;
	return err_set(e, ERR_FAILED,
	    "process %d maps the guest's memory at %#llx and has not handed it over: it would "
	    "read zeros there; use --eager",
	    (int)pid, (unsigned long long)part.hva);
}

static int
check_process(struct handoff *h, pid_t pid, struct err *e)
{
	struct memory_object *list;
	struct err unused;
	size_t n;
	int rc = 0;

	/* A process that has ended meanwhile is none to worry about. */
	if (memory_list(pid, &list, &n, &unused) == -1)
		return 0;
	for (size_t i = 0; i < n && rc == 0; i++)
		for (size_t k = 0; k < list[i].nmappings && rc == 0; k++)
			rc = check_mapping(h, pid, &list[i], &list[i].mappings[k], e);
	memory_list_free(list, n);
	return rc;
}

static int
check_once(struct handoff *h, struct err *e)
{
	int rc = 0;

	for (uint32_t i = 0; i < h->nregions && rc == 0; i++) {
		size_t n, unreadable;
		struct err unused;
		pid_t *pids;
		dev_t dev;
		ino_t ino;

		pthread_mutex_lock(&h->lock);
		dev = (dev_t)h->regions[i].dev;
		ino = (ino_t)h->regions[i].ino;
		pthread_mutex_unlock(&h->lock);
		if (ino == 0 || memory_users(dev, ino, &pids, &n, &unreadable, &unused) == -1)
			continue;
		for (size_t k = 0; k < n && rc == 0; k++)
			/* The page server maps it, and is nobody who would read zeros. */
			if (pids[k] != getpid() && !pager_is_process(h->server, pids[k]))
				rc = check_process(h, pids[k], e);
		free(pids);
	}
	return rc;
}

int
handoff_check(struct handoff *h, struct err *e)
{
	const struct timespec nap = { .tv_nsec = 100000000 };
	int rc = -1;

	/* A mapping exists a moment before it is handed over: look again. */
	for (int i = 0; i < 3 && rc == -1; i++) {
		if (i > 0)
			nanosleep(&nap, NULL);
		rc = check_once(h, e);
	}
	return rc;
}
