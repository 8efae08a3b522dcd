/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <sys/syscall.h>
#include <unistd.h>

#include "base/ckd.h"
#include "serve/hot.h"
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

bool
more_faults(struct filler *f)
{
	struct err unused;

	if (f->at < f->n)
		return true;
	if (f->process != NULL)
		return events_waiting(f->process);
	if (f->uffd == -1)
		return false;
	f->at = 0;
	f->n = uffd_peek(f->uffd, f->queue, FAULTS_AT_ONCE, &unused);
	/* Who reads next is told what is wrong. */
	if (f->n < 1)
		f->n = 0;
	else
		f->began = serve_now();
	return f->n > 0;
}

/*
 * Answers what is in the queue, and no more: reading waits for the next, and lets whoever was
 * woken have the CPU, if it is ours.
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
		}
		/* Of a chunk of hot pages; all others are left to who gives rests.  When all
		 * is there it may be freed by now. */
		rest = 0;
		if (atomic_load(&f->server->state) != SERVER_COMPLETE && f->hot != NULL)
			rest = more_faults(f) ? f->at < f->n : hot_pending(f, e);
	}
	return rest;
}

static int
handle_faults(struct worker *w, struct err *e)
{
	struct filler *f = &w->filler;
	struct server *s = f->server;
	bool others = atomic_fetch_add(&w->process->readers.answering, 1) > 0;
	int rc;

	if (f->process == NULL) {
		f->began = serve_now();
		readers_note(w, others);
	}
	atomic_store_explicit(&s->last_asked, f->began, memory_order_relaxed);
	if (atomic_load_explicit(&s->first_fault, memory_order_relaxed) == 0)
		atomic_store(&s->first_fault, f->began);
	atomic_fetch_add(&s->busy, 1);
	rc = answer_queue(w, e);
	/* Else server_shed does. */
	if (atomic_load(&s->state) != SERVER_COMPLETE)
		filler_account(f);
	atomic_fetch_sub(&s->busy, 1);
	atomic_fetch_sub(&w->process->readers.answering, 1);
	w->answered = serve_now();
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

	if (place_take(&f->server->options.place, w->number, &e) == -1) {
		server_fail(f->server, &e);
		return NULL;
	}
	atomic_store(&w->tid, (pid_t)syscall(SYS_gettid));
	while (!atomic_load(&w->process->stop)) {
		/* Those of adopted ones take turns (events.c). */
		if (f->process == NULL)
			readers_await(w);
		if (atomic_load(&w->process->stop))
			break;
		f->n = await_faults(f, &e);
		if (f->n == -1 || (f->n > 0 && handle_faults(w, &e) == -1)) {
			server_fail(f->server, &e);
			break;
		}
	}
	atomic_store(&w->tid, 0);
	return NULL;
}
