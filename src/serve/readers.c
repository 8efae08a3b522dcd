/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/internal.h"

/*
 * Which workers of a process read its userfaultfd.
 *
 * The kernel wakes all who wait there for each fault, and all but one in vain: on another CPU
 * of a virtual machine that costs as much as the answer.  So one worker reads, and as soon as
 * faults have to wait for it, all do; until they are no more at work at once.
 *
 * The one is best on the CPU of the thread that faults, where neither has to be woken from
 * afar.  Nobody tells which that is: where workers have CPUs of their own each is tried for a
 * few faults, now and then, and the one stays after whose answers the next fault comes soonest.
 */
#define AT_ONCE_NS 1500 /* it was there before the read */
#define SCORE_MAX 64
#define SCORE_CROWD 32
#define SCORE_UP 8
#define TRIAL 16u /* faults */
#define SETTLED 4096u
#define GAP_MAX UINT64_C(200000) /* what takes longer, took longer for other reasons */

void
readers_init(struct served_process *p)
{
	pthread_mutex_init(&p->readers.lock, NULL);
	for (unsigned i = 0; i < FAULT_WORKERS_MAX; i++)
		sem_init(&p->workers[i].turn, 0, 0);
}

void
readers_fini(struct served_process *p)
{
	pthread_mutex_destroy(&p->readers.lock);
	for (unsigned i = 0; i < FAULT_WORKERS_MAX; i++)
		sem_destroy(&p->workers[i].turn);
}

static bool
reads(const struct worker *w)
{
	const struct readers *r = &w->process->readers;

	return atomic_load(&r->crowd) || atomic_load(&r->leader) == w->number;
}

void
readers_await(struct worker *w)
{
	/* A signal ends this when the worker is to stop. */
	while (!reads(w) && !atomic_load(&w->process->stop)) {
		w->answered = 0;
		sem_wait(&w->turn);
	}
}

static void
lead(struct served_process *p, const struct worker *from, unsigned to)
{
	if (to == from->number)
		return;
	atomic_store(&p->readers.leader, to);
	crossing();
	sem_post(&p->workers[to].turn);
}

/* The others are taken out of read(2); whoever was not there yet takes one fault more. */
static void
set_crowd(struct worker *w, bool crowd)
{
	struct served_process *p = w->process;

	p->readers.count = 0;
	p->readers.sum = 0;
	atomic_store(&p->readers.leader, w->number);
	atomic_store(&p->readers.crowd, crowd);
	for (unsigned i = 0; i < p->server->options.nworkers; i++) {
		if (i == w->number)
			continue;
		crossing();
		if (crowd)
			sem_post(&p->workers[i].turn);
		else
			thread_kick(atomic_load(&p->workers[i].tid));
	}
}

/* The next to be tried, or the best of all. */
static void
next_trial(struct worker *w)
{
	struct served_process *p = w->process;
	struct readers *r = &p->readers;
	unsigned best = r->home;

	r->count = 0;
	if (r->settled) {
		r->settled = false;
		r->tried = 0;
	} else {
		r->cost[w->number] = r->sum;
		r->tried++;
	}
	r->sum = 0;
	if (r->tried < p->server->options.nworkers) {
		lead(p, w, r->tried);
		return;
	}
	/* Without a clear difference it stays. */
	for (unsigned i = 0; i < p->server->options.nworkers; i++)
		if (r->cost[i] < r->cost[best] - r->cost[r->home] / 8)
			best = i;
	r->home = best;
	r->settled = true;
	log_debug("process %u: worker %u reads, whose faults come after %llu ns", p->id, best,
	    (unsigned long long)r->cost[best] / TRIAL);
	lead(p, w, best);
}

static void
try_places(struct worker *w, uint64_t gap)
{
	struct readers *r = &w->process->readers;

	if (w->process->server->options.place.how == PLACE_FLOAT || w->answered == 0)
		return;
	r->sum += MIN(gap, GAP_MAX);
	if (++r->count >= (r->settled ? SETTLED : TRIAL))
		next_trial(w);
}

static void
note(struct worker *w, bool others)
{
	struct readers *r = &w->process->readers;
	uint64_t gap = w->filler.began - w->answered;
	bool waited = others || w->filler.n > 1 || (w->answered != 0 && gap < AT_ONCE_NS);
	bool crowd = atomic_load(&r->crowd);

	r->score = waited ? MIN(r->score + SCORE_UP, SCORE_MAX) : MAX(r->score - 1, 0);
	if (!crowd && r->score >= SCORE_CROWD)
		set_crowd(w, true);
	else if (crowd && r->score == 0)
		set_crowd(w, false);
	else if (!crowd && atomic_load(&r->leader) == w->number)
		try_places(w, gap);
}

void
readers_note(struct worker *w, bool others)
{
	struct served_process *p = w->process;

	/* Who finds it taken need not note it. */
	if (p->server->options.nworkers < 2 || pthread_mutex_trylock(&p->readers.lock) != 0)
		return;
	note(w, others);
	pthread_mutex_unlock(&p->readers.lock);
}
