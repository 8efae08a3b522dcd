/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_POOL_H
#define GMEM_BASE_POOL_H

#include <stddef.h>

#include "base/err.h"

/*
 * A pool of worker threads over a ring of job slots.  Jobs are taken by any
 * worker and come back in the order in which they were submitted, so that the
 * result does not depend on the number of threads.  One thread owns the pool:
 *
 *	while (work is left or pool_busy(p)) {
 *		if (work is left && (job = pool_slot(p)) != NULL) {
 *			fill *job; pool_submit(p);
 *		} else {
 *			job = pool_collect(p, &e);	waits for the oldest
 *			use *job; pool_release(p);
 *		}
 *	}
 *
 * With one worker no thread is started: pool_collect does the job itself.
 *
 * A job that failed is reported by pool_collect; the owner then stops submitting and frees
 * the pool, which waits for the workers.
 */
struct pool;

struct pool_work {
	/* Makes what one worker needs for itself (contexts, buffers). */
	int (*worker_new)(void **worker, void *arg, struct err *e);
	void (*worker_free)(void *worker);
	/* Does one job; runs on any worker. */
	int (*run)(void *worker, void *job, struct err *e);
	void *arg; /* for worker_new */
	size_t job_size; /* bytes of a slot, zeroed once at the start */
};

int pool_new(struct pool **out, unsigned nworkers, unsigned nslots,
    const struct pool_work *work, struct err *e);

/* The next free slot, or NULL while all are in flight.  Borrowed; fill it, then submit. */
void *pool_slot(struct pool *p);
void pool_submit(struct pool *p);

/* How many jobs are submitted and not yet released. */
unsigned pool_busy(const struct pool *p);

/* Waits for the oldest job: the slot, or NULL with the job's error. */
void *pool_collect(struct pool *p, struct err *e);
void pool_release(struct pool *p);

/* Waits for running jobs, drops the others.  NULL is fine. */
void pool_free(struct pool *p);

/* Every slot, for freeing what jobs own; i in [0, nslots). */
void *pool_slot_at(struct pool *p, unsigned i);

/* The number of CPUs this process may run on. */
unsigned pool_ncpus(void);

#endif
