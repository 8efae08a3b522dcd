/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <sched.h>

#include "base/ckd.h"
#include "serve/internal.h"

/* Workers: the threads that read faults and answer them. */

static int
answer(struct worker *w, const struct uffd_fault *fault, struct err *e)
{
	struct server *s = w->filler.server;
	const struct mapping *m = mapping_find(s, w->process->id, fault->hva);
	enum uffd_result r;
	uint64_t off;

	if (fault->write)
		stat_add(&w->filler.stats.faults_write, 1);
	if (m == NULL) {
		/* Unmapped meanwhile, or all is complete: the access is to be tried again. */
		stat_add(&w->filler.stats.faults_outside, 1);
		if (w->filler.process != NULL && !atomic_load(&w->process->dead))
			return err_set(e, ERR_CORRUPT,
			    "hand-off: the VMM waits for memory at %#llx, which it has not "
			    "handed "
			    "over",
			    (unsigned long long)fault->hva);
		r = uffd_wake(
		    w->process->uffd, align_down(fault->hva, PAGE_GRANULE), PAGE_GRANULE, e);
		return r == UFFD_FAILED ? -1 : 0;
	}
	off = align_down(fault->hva - m->hva + m->offset, s->objects[m->object].page_size);
	record(s, m->object, off, fault->write);
	return fill_fault(&w->filler, m, off, e);
}

/* Whether more faults wait by now, without waiting for one; they are in the queue then. */
static int
more_faults(struct filler *f, struct err *e)
{
	/* Where the thread that was just woken shares our CPU: its next fault may be the one.
	 */
	sched_yield();
	if (f->process != NULL)
		return events_take(f, e) == -1 ? -1 : 0;
	f->at = 0;
	f->n = uffd_peek(f->uffd, f->queue, FAULTS_AT_ONCE, e);
	f->began = serve_now();
	return f->n == -1 ? -1 : 0;
}

/*
 * Answers what is in the queue, and what comes in meanwhile.  No fault waits for
 * pages that nobody has asked for: the rests of chunks come when none waits.
 */
static int
answer_queue(struct worker *w, struct err *e)
{
	struct filler *f = &w->filler;
	int rest = 1;

	while (rest == 1) {
		while (f->at < f->n) {
			struct uffd_fault fault = f->queue[f->at++];

			if (answer(w, &fault, e) == -1)
				return -1;
			if (f->at == f->n && more_faults(f, e) == -1)
				return -1;
		}
		rest = fill_pending(f, e);
		if (rest == 1 && more_faults(f, e) == -1)
			return -1;
	}
	return rest;
}

static int
handle_faults(struct worker *w, struct err *e)
{
	struct filler *f = &w->filler;
	struct server *s = f->server;
	int rc;

	if (f->process == NULL)
		f->began = serve_now();
	if (atomic_load_explicit(&s->first_fault, memory_order_relaxed) == 0)
		atomic_store(&s->first_fault, f->began);
	atomic_fetch_add(&s->busy, 1);
	rc = answer_queue(w, e);
	filler_account(f);
	atomic_fetch_sub(&s->busy, 1);
	return rc;
}

/* Faults into the queue, waiting for the first: their number, 0 to look around, -1. */
static int
await_faults(struct filler *f, struct err *e)
{
	if (f->process != NULL)
		return events_wait(f, e);
	f->at = 0;
	f->n = uffd_read(f->uffd, f->queue, FAULTS_AT_ONCE, e);
	return f->n;
}

void *
worker_main(void *arg)
{
	struct worker *w = arg;
	struct filler *f = &w->filler;
	struct err e = ERR_INIT;

	while (!atomic_load(&w->process->stop)) {
		f->n = await_faults(f, &e);
		if (f->n == -1 || (f->n > 0 && handle_faults(w, &e) == -1)) {
			server_fail(f->server, &e);
			break;
		}
	}
	return NULL;
}
