/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/thread.h"

enum slot_state { SLOT_FREE, SLOT_READY, SLOT_RUNNING, SLOT_DONE };

struct slot {
	enum slot_state state;
	int result;
	struct err err;
	void *job;
};

struct worker {
	struct pool *pool;
	void *own;
	bool threaded;
	pthread_t thread;
};

/*
 * Slots form a ring: [tail, take) are running or done, [take, head) are ready
 * to be taken, the rest is free.  The counters never wrap; a slot is at their
 * value modulo nslots.
 */
struct pool {
	struct pool_work work;
	pthread_mutex_t lock;
	pthread_cond_t ready; /* a job can be taken, or stop */
	pthread_cond_t done; /* a job has finished */
	uint64_t head, take, tail;
	bool stop;
	unsigned nslots;
	struct slot *slots; /* owned, nslots */
	unsigned nworkers; /* threads that were started */
	struct worker *workers;
};

static struct slot *
slot_at(struct pool *p, uint64_t counter)
{
	return &p->slots[counter % p->nslots];
}

static void
run_job(struct worker *w, struct slot *s)
{
	s->err.kind = ERR_NONE;
	s->result = w->pool->work.run(w->own, s->job, &s->err);
}

static void *
worker_main(void *arg)
{
	struct worker *w = arg;
	struct pool *p = w->pool;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct slot *s;

		while (p->take == p->head && !p->stop)
			pthread_cond_wait(&p->ready, &p->lock);
		if (p->stop)
			break;
		s = slot_at(p, p->take++);
		s->state = SLOT_RUNNING;
		pthread_mutex_unlock(&p->lock);
		run_job(w, s);
		pthread_mutex_lock(&p->lock);
		s->state = SLOT_DONE;
		pthread_cond_signal(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Signals are for the thread that owns the pool. */
static int
start_thread(struct worker *w, struct err *e)
{
	if (quiet_thread(&w->thread, worker_main, w, NULL) == -1)
		return err_sys(e, "start a worker thread");
	w->threaded = true;
	return 0;
}

static int
start_workers(struct pool *p, unsigned n, struct err *e)
{
	for (; p->nworkers < n; p->nworkers++) {
		struct worker *w = &p->workers[p->nworkers];

		w->pool = p;
		if (p->work.worker_new(&w->own, p->work.arg, e) == -1)
			return -1;
		if (n > 1 && start_thread(w, e) == -1) {
			p->work.worker_free(w->own);
			return -1;
		}
	}
	return 0;
}

int
pool_new(struct pool **out, unsigned nworkers, unsigned nslots, const struct pool_work *work,
    struct err *e)
{
	struct pool *p;

	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return err_sys(e, "worker pool");
	p->work = *work;
	p->nslots = nslots;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->ready, NULL);
	pthread_cond_init(&p->done, NULL);
	p->slots = calloc(nslots, sizeof(*p->slots));
	p->workers = calloc(nworkers, sizeof(*p->workers));
	if (p->slots == NULL || p->workers == NULL)
		goto oom;
	for (unsigned i = 0; i < nslots; i++) {
		p->slots[i].job = calloc(1, work->job_size);
		if (p->slots[i].job == NULL)
			goto oom;
	}
	if (start_workers(p, nworkers, e) == -1) {
		pool_free(p);
		return -1;
	}
	*out = p;
	return 0;
oom:
	err_sys(e, "worker pool");
	pool_free(p);
	return -1;
}

void *
pool_slot(struct pool *p)
{
	return p->head - p->tail == p->nslots ? NULL : slot_at(p, p->head)->job;
}

void
pool_submit(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	slot_at(p, p->head)->state = SLOT_READY;
	p->head++;
	pthread_cond_signal(&p->ready);
	pthread_mutex_unlock(&p->lock);
}

unsigned
pool_busy(const struct pool *p)
{
	return (unsigned)(p->head - p->tail);
}

void *
pool_collect(struct pool *p, struct err *e)
{
	struct slot *s = slot_at(p, p->tail);

	if (p->nworkers == 1) {
		run_job(&p->workers[0], s);
		s->state = SLOT_DONE;
	}
	pthread_mutex_lock(&p->lock);
	while (s->state != SLOT_DONE)
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (s->result == -1) {
		*e = s->err;
		return NULL;
	}
	return s->job;
}

void
pool_release(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	slot_at(p, p->tail)->state = SLOT_FREE;
	p->tail++;
	pthread_mutex_unlock(&p->lock);
}

void *
pool_slot_at(struct pool *p, unsigned i)
{
	return p->slots[i].job;
}

void
pool_free(struct pool *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->ready);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->nworkers; i++) {
		if (p->workers[i].threaded)
			pthread_join(p->workers[i].thread, NULL);
		p->work.worker_free(p->workers[i].own);
	}
	for (unsigned i = 0; p->slots != NULL && i < p->nslots; i++)
		free(p->slots[i].job);
	free(p->slots);
	free(p->workers);
	pthread_cond_destroy(&p->done);
	pthread_cond_destroy(&p->ready);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

unsigned
pool_ncpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == -1)
		return 1;
	return (unsigned)CPU_COUNT(&set);
}
