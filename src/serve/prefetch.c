/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/prefetch.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "base/pool.h"
#include "serve/prefetcher.h"

/*
 * The threads that prefetch.
 *
 * Each takes the next stretch of the list, reads it, decodes it, and puts its pages there: so
 * while one waits for the disk another decodes.  The first one, the leader, makes the list and
 * starts the others; and it maps what was given before somebody came to map the memory, for
 * which it stays when all is given.
 */
#define NICE 10 /* of all but the leader: the VMM is starting, too */

/* ---- giving ---- */

/* What has no place in the VMM cannot be given. */
static bool
await_place(struct prefetch *p)
{
	bool stop;

	pthread_mutex_lock(&p->lock);
	while (!p->stop && has_foreign(p->s) && !atomic_load(&p->s->mapped))
		pthread_cond_wait(&p->changed, &p->lock);
	stop = p->stop;
	pthread_mutex_unlock(&p->lock);
	return !stop;
}

/* 1: gave something; 0: nothing is left; -1 */
static int
give_some(struct prefetch_thread *t, struct err *e)
{
	struct prefetch *p = t->p;
	size_t first, end, i;
	int rc;

	if (plan_take(&p->plan, t->batch.max, &first, &end))
		return batch_groups(&t->batch, &p->plan, first, end, e) == -1 ? -1 : 1;
	i = atomic_load(&p->sweep);
	if (p->sweeps == NULL || i >= p->s->nobjects)
		return 0;
	rc = atomic_load(&p->s->objects[i].complete) ? 0
						     : sweep_some(&p->sweeps[i], &t->batch, e);
	/* Whoever sees that the object is done goes to the next. */
	if (rc == 0)
		atomic_compare_exchange_strong(&p->sweep, &i, i + 1);
	return rc == -1 ? -1 : 1;
}

static int
give(struct prefetch_thread *t, struct err *e)
{
	struct server *s = t->p->s;
	int rc = 1;

	if (!await_place(t->p))
		return 0;
	while (rc == 1 && !atomic_load(&s->stop) && atomic_load(&s->state) != SERVER_FAILED) {
		rc = give_some(t, e);
		if (rc == 1 && t->leader && premap(t, e) == -1)
			return -1;
	}
	return rc;
}

static void
stop_working(struct prefetch *p)
{
	pthread_mutex_lock(&p->lock);
	p->working--;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

/* ---- the leader ---- */

static void
tell_ready(struct prefetch_thread *t)
{
	struct server *s = t->p->s;
	uint64_t us = (serve_now() - t->p->began) / 1000;

	if (atomic_load(&s->state) == SERVER_FAILED || atomic_load(&s->stop))
		return;
	stat_add(&t->batch.filler.stats.prefetch_us, MAX(us, 1));
	log_debug("prefetched after %llu us", (unsigned long long)us);
	/* Nobody writes through it any more; who waits for what was prefetched would. */
	for (size_t i = 0; i < s->nobjects; i++)
		own_close(&s->objects[i]);
	server_set_prefetched(s);
}

/* Maps what comes to be mapped, and says when all is there. */
static int
lead(struct prefetch_thread *t, struct err *e)
{
	struct prefetch *p = t->p;
	bool stop = false;

	while (!stop) {
		pthread_mutex_lock(&p->lock);
		while (p->mappings == NULL && p->working > 0 && !p->stop)
			pthread_cond_wait(&p->changed, &p->lock);
		if (p->mappings == NULL && !atomic_load(&p->s->prefetched) && !p->stop) {
			pthread_mutex_unlock(&p->lock);
			tell_ready(t);
			pthread_mutex_lock(&p->lock);
		}
		while (p->mappings == NULL && !p->stop)
			pthread_cond_wait(&p->changed, &p->lock);
		stop = p->stop;
		pthread_mutex_unlock(&p->lock);
		if (!stop && premap(t, e) == -1)
			return -1;
	}
	return 0;
}

/* ---- begin and end ---- */

static void
free_wanted(const struct server *s, bitmap_word **wanted)
{
	for (size_t i = 0; wanted != NULL && i < s->nobjects; i++)
		free(wanted[i]);
	free(wanted);
}

static uint64_t
pages_of(const struct server *s, size_t object)
{
	return div_up(s->objects[object].object->size, PAGE_GRANULE);
}

static int
note_wanted(struct prefetch *p, struct err *e)
{
	struct server *s = p->s;
	bitmap_word **wanted = calloc(s->nobjects + 1, sizeof(*wanted));
	bool good = wanted != NULL;

	for (size_t i = 0; good && i < s->nobjects; i++) {
		wanted[i] = calloc(1, bitmap_bytes(pages_of(s, i)) + 8);
		good = wanted[i] != NULL;
	}
	if (!good) {
		err_sys(e, "prefetch");
		free_wanted(s, wanted);
		return -1;
	}
	for (size_t i = 0; i < p->plan.npages; i++)
		bitmap_claim(wanted[p->plan.pages[i].region], p->plan.pages[i].page);
	atomic_store(&p->wanted, wanted);
	return 0;
}

static int
note_all(struct prefetch *p, struct err *e)
{
	size_t n = p->s->nobjects;

	p->sweeps = calloc(n + 1, sizeof(*p->sweeps));
	if (p->sweeps == NULL)
		return err_sys(e, "prefetch");
	for (size_t i = 0; i < n; i++)
		if (sweep_init(&p->sweeps[i], p->s, i, false, e) == -1)
			return -1;
	return 0;
}

/* Where pages that are there can't be left unmapped: who touches them would not be recorded. */
static bool
would_hide(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY ||
		    s->objects[i].engine == SERVE_SOURCE ||
		    s->objects[i].engine == SERVE_USERFAULT)
			return true;
	return false;
}

static int
prepare(struct prefetch *p, struct err *e)
{
	const struct prefetch_options *o = &p->s->options.prefetch;

	const struct plan_options what = {
		.hot = o->kind == PREFETCH_HOT || o->kind == PREFETCH_ALL,
		.zeros = o->kind == PREFETCH_HOT,
		.region = PLAN_ALL_REGIONS,
		.list = o->list,
		.nlist = o->kind == PREFETCH_LIST ? o->nlist : 0,
	};

	if (recording(p->s) && would_hide(p->s)) {
		if (o->kind != PREFETCH_NONE)
			log_warn("nothing is prefetched: that would hide from the recording "
				 "which pages are touched");
		return 0;
	}
	if (plan_make(&p->plan, p->s, &what, e) == -1 ||
	    (p->plan.npages > 0 && note_wanted(p, e) == -1))
		return -1;
	return o->kind == PREFETCH_ALL ? note_all(p, e) : 0;
}

static void *
helper_main(void *arg)
{
	struct prefetch_thread *t = arg;
	struct err e = ERR_INIT;

	(void)setpriority(PRIO_PROCESS, 0, NICE);
	if (batch_init(&t->batch, t->p->s, &t->p->cold, t->p->bytes, true, &e) == -1)
		log_debug("one thread less prefetches: %s", e.msg);
	/* Before anybody can take it for done. */
	else if (give(t, &e) == -1)
		server_fail(t->p->s, &e);
	stop_working(t->p);
	return NULL;
}

static void
start_working(struct prefetch *p)
{
	pthread_mutex_lock(&p->lock);
	p->working++;
	pthread_mutex_unlock(&p->lock);
}

/* Without them it takes longer. */
static void
start_helpers(struct prefetch *p, unsigned n)
{
	struct err e = ERR_INIT;

	for (; p->nthreads < n; p->nthreads++) {
		struct prefetch_thread *t = &p->threads[p->nthreads];

		t->p = p;
		start_working(p);
		t->started = thread_start(&t->thread, helper_main, t, &e) == 0;
		if (!t->started)
			stop_working(p);
	}
}

/* What there is to do, and with how many threads; *n 0: nothing. */
static int
begin(struct prefetch *p, unsigned *n, struct err *e)
{
	struct server *s = p->s;

	if (prepare(p, e) == -1)
		return -1;
	*n = 0;
	if (p->plan.ngroups == 0 && p->sweeps == NULL)
		return 0;
	*n = s->options.prefetch.nthreads;
	if (*n == 0)
		*n = MAX(pool_ncpus(), 2);
	*n = MIN(*n, THREADS_MAX);
	p->bytes = MIN(BATCH_BYTES, LOCKED_BYTES / *n);
	/* Whoever answers a fault need not wait for the file's lock then. */
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine != SERVE_COPY)
			(void)own_open(&s->objects[i]);
	return 0;
}

static int
leader(struct prefetch_thread *t, struct err *e)
{
	struct prefetch *p = t->p;
	unsigned n;

	if (begin(p, &n, e) == -1)
		return -1;
	start_helpers(p, n);
	if (batch_init(&t->batch, p->s, &p->cold, p->bytes, true, e) == -1)
		return -1;
	stat_add(&t->batch.filler.stats.prefetch_listed, p->plan.npages);
	if (n == 0 && atomic_load(&p->s->prefetched) == 0)
		server_set_prefetched(p->s);
	return n == 0 ? 0 : give(t, e);
}

static void *
leader_main(void *arg)
{
	struct prefetch_thread *t = arg;
	struct err e = ERR_INIT;
	int rc = leader(t, &e);

	if (rc == -1)
		server_fail(t->p->s, &e);
	stop_working(t->p);
	if (rc == 0 && lead(t, &e) == -1)
		server_fail(t->p->s, &e);
	return NULL;
}

int
prefetch_start(struct server *s, struct err *e)
{
	bool none = s->options.prefetch.kind == PREFETCH_NONE;
	struct prefetch *p;

	/* Eagerly others do it, and say when. */
	if (s->prefetch != NULL || s->options.engine == SERVE_EAGER)
		return 0;
	if (none && atomic_load(&s->prefetched) == 0)
		server_set_prefetched(s);
	/* What the background gives before somebody maps the memory is to be mapped, too. */
	if (none && !s->options.background)
		return 0;
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return err_sys(e, "prefetch");
	p->s = s;
	p->began = serve_now();
	p->nthreads = p->working = 1;
	p->threads[0] = (struct prefetch_thread){ .p = p, .leader = true };
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	cold_open(&p->cold, s->img, s->options.prefetch.io);
	s->prefetch = p;
	if (thread_start(&p->threads[0].thread, leader_main, &p->threads[0], e) == -1)
		return -1;
	p->threads[0].started = true;
	return 0;
}

bool
prefetch_await(struct server *s)
{
	while (!atomic_load(&s->prefetched) && s->options.engine != SERVE_EAGER) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return false;
		thread_nap(500);
	}
	return true;
}

static void
free_lists(struct prefetch *p)
{
	while (p->mappings != NULL) {
		struct new_mapping *n = p->mappings;

		p->mappings = n->next;
		free(n);
	}
	for (size_t i = 0; p->sweeps != NULL && i < p->s->nobjects; i++)
		sweep_fini(&p->sweeps[i]);
	free_wanted(p->s, atomic_load(&p->wanted));
	free(p->sweeps);
}

static void
stop_thread(struct prefetch_thread *t)
{
	if (t->started)
		thread_stop(t->thread);
	t->started = false;
	batch_fini(&t->batch);
}

void
prefetch_stop(struct server *s)
{
	struct prefetch *p = s->prefetch;

	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	/* The leader first: it starts the others, and counts them. */
	stop_thread(&p->threads[0]);
	for (unsigned i = 1; i < p->nthreads; i++)
		stop_thread(&p->threads[i]);
}

void
prefetch_free(struct server *s)
{
	struct prefetch *p = s->prefetch;

	if (p == NULL)
		return;
	free_lists(p);
	plan_free(&p->plan);
	cold_close(&p->cold);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
	s->prefetch = NULL;
}

const bitmap_word *
prefetch_wanted(const struct server *s, size_t object)
{
	struct prefetch *p = s->prefetch;
	bitmap_word **wanted = p != NULL ? atomic_load(&p->wanted) : NULL;

	return wanted != NULL ? wanted[object] : NULL;
}

void
prefetch_note_fault(struct filler *f, size_t object, uint64_t page)
{
	const bitmap_word *wanted = prefetch_wanted(f->server, object);

	if (wanted != NULL && bitmap_test(wanted, page))
		stat_add(&f->stats.prefetch_late, 1);
}

bool
server_prefetch_hits(struct server *s, uint64_t *hits, uint64_t *touched)
{
	struct prefetch *p = s->prefetch;
	bitmap_word **wanted = p != NULL ? atomic_load(&p->wanted) : NULL;

	if (wanted == NULL || s->recorder == NULL)
		return false;
	*hits = 0;
	*touched = recorder_pages(s->recorder);
	for (size_t i = 0; i < s->nobjects; i++)
		*hits += recorder_hits(s->recorder, i, wanted[i]);
	return true;
}
