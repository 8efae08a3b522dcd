/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/prefetch.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "base/pool.h"
#include "serve/batch.h"

/*
 * The threads that prefetch.
 *
 * Each takes the next stretch of the list, reads it, decodes it, and puts its pages there: so
 * while one waits for the disk another decodes.  The first one, the leader, also maps what was
 * given before somebody came to map the memory, and stays for that when all is given.
 */
#define THREADS_MAX 8u
#define MAP_RUN 512u /* pages that are mapped by one call, at most */
#define NICE 10 /* of all but the leader: the VMM is starting, too */

struct new_mapping {
	struct new_mapping *next;
	struct mapping m;
};

struct prefetch_thread {
	struct prefetch *p;
	struct batch batch;
	pthread_t thread;
	bool leader, started;
};

struct prefetch {
	struct server *s;
	struct plan plan;
	struct cold cold;
	atomic_size_t next; /* group that nobody has taken */
	struct sweep *sweeps; /* PREFETCH_ALL: one for each object; else NULL */
	atomic_size_t sweep;
	bitmap_word **wanted; /* of each object: pages (4 KiB) of the list; or NULL */
	uint64_t began;
	unsigned nthreads;
	struct prefetch_thread threads[THREADS_MAX];

	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned working; /* threads that may give something yet */
	struct new_mapping *mappings; /* that nobody has looked at */
	bool stop;
};

/* ---- mapping what is there ---- */

/* The next run of given pages in [*at, end); its length. */
static uint64_t
given_run(const struct claims *c, uint64_t *at, uint64_t end)
{
	uint64_t page = *at, n = 0;

	while (page < end && !claims_given(c, page)) {
		/* Memory is large, and mostly nothing is there. */
		if (page % 64 == 0 &&
		    atomic_load_explicit(&c->given[page / 64], memory_order_acquire) == 0)
			page += 64;
		else
			page++;
	}
	*at = MIN(page, end);
	while (*at + n < end && n < MAP_RUN && claims_given(c, *at + n))
		n++;
	return n;
}

static int
map_given_pages(struct prefetch_thread *t, const struct mapping *m, struct err *e)
{
	struct server *s = t->p->s;
	const struct served_object *o = &s->objects[m->object];
	uint64_t page = m->offset / o->page_size, end = page + m->len / o->page_size, n;

	t->batch.worked = serve_now();
	while (!recording(s) &&
	       (n = given_run(&o->claims, &page, MIN(end, o->claims.npages))) > 0) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) != SERVER_FILLING)
			return 0;
		if (map_at(&t->batch.filler, m, m->hva + (page * o->page_size - m->offset),
			n * o->page_size, e) == -1)
			return -1;
		page += n;
		batch_give_way(&t->batch);
	}
	return 0;
}

static int
map_new(struct prefetch_thread *t, struct err *e)
{
	struct prefetch *p = t->p;
	int rc = 0;

	for (;;) {
		struct new_mapping *n;

		pthread_mutex_lock(&p->lock);
		n = p->mappings;
		if (n != NULL)
			p->mappings = n->next;
		pthread_mutex_unlock(&p->lock);
		if (n == NULL)
			return rc;
		if (rc == 0)
			rc = map_given_pages(t, &n->m, e);
		free(n);
	}
}

void
prefetch_mapping(struct server *s, const struct mapping *m)
{
	struct prefetch *p = s->prefetch;
	struct new_mapping *n = NULL;

	if (p == NULL)
		return;
	/* Without, each page is mapped when it is touched. */
	if (m != NULL && (n = malloc(sizeof(*n))) != NULL)
		n->m = *m;
	pthread_mutex_lock(&p->lock);
	if (n != NULL) {
		n->next = p->mappings;
		p->mappings = n;
	}
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

/* ---- giving ---- */

static bool
has_foreign(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY)
			return true;
	return false;
}

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
	size_t first = atomic_fetch_add(&p->next, t->batch.max), n = p->plan.ngroups, i;
	int rc;

	if (first < n)
		return batch_groups(
			   &t->batch, &p->plan, first, MIN(first + t->batch.max, n), e) == -1
			   ? -1
			   : 1;
	atomic_store(&p->next, n);
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
		if (rc == 1 && t->leader && map_new(t, e) == -1)
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
	/* Nobody writes through it any more. */
	for (size_t i = 0; i < s->nobjects; i++)
		own_close(&s->objects[i]);
	log_debug("prefetched after %llu us", (unsigned long long)us);
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
		if (!stop && map_new(t, e) == -1)
			return -1;
	}
	return 0;
}

static void *
thread_main(void *arg)
{
	struct prefetch_thread *t = arg;
	struct err e = ERR_INIT;
	int rc;

	if (!t->leader)
		(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	rc = give(t, &e);
	/* Before anybody can take it for done. */
	if (rc == -1)
		server_fail(t->p->s, &e);
	stop_working(t->p);
	if (rc == 0 && t->leader && lead(t, &e) == -1)
		server_fail(t->p->s, &e);
	return NULL;
}

/* ---- begin and end ---- */

static int
note_wanted(struct prefetch *p, struct err *e)
{
	struct server *s = p->s;

	p->wanted = calloc(s->nobjects + 1, sizeof(bitmap_word *));
	if (p->wanted == NULL)
		return err_sys(e, "prefetch");
	for (size_t i = 0; i < s->nobjects; i++) {
		p->wanted[i] = calloc(
		    1, bitmap_bytes(div_up(s->objects[i].object->size, PAGE_GRANULE)) + 8);
		if (p->wanted[i] == NULL)
			return err_sys(e, "prefetch");
	}
	for (size_t i = 0; i < p->plan.npages; i++)
		bitmap_claim(p->wanted[p->plan.pages[i].region], p->plan.pages[i].page);
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

static int
start_threads(struct prefetch *p, unsigned wanted, size_t bytes, struct err *e)
{
	for (unsigned i = 0; i < wanted; i++) {
		struct prefetch_thread *t = &p->threads[i];
		int rc;

		t->p = p;
		t->leader = i == 0;
		p->nthreads = i + 1;
		rc = batch_init(&t->batch, p->s, &p->cold, bytes, true, e);
		if (rc == 0 && t->leader)
			stat_add(&t->batch.filler.stats.prefetch_listed, p->plan.npages);
		pthread_mutex_lock(&p->lock);
		p->working++;
		pthread_mutex_unlock(&p->lock);
		if (rc == 0)
			rc = thread_start(&t->thread, thread_main, t, e);
		if (rc == -1) {
			stop_working(p);
			/* Fewer do it too. */
			return t->leader ? -1 : 0;
		}
		t->started = true;
	}
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

static int
start(struct prefetch *p, struct err *e)
{
	struct server *s = p->s;
	unsigned n = s->options.prefetch.nthreads;
	bool any;

	if (prepare(p, e) == -1)
		return -1;
	any = p->plan.ngroups > 0 || p->sweeps != NULL;
	if (!any) {
		server_set_prefetched(s);
		/* What the background gives before somebody maps the memory is to be mapped. */
		return s->options.background ? start_threads(p, 1, 0, e) : 0;
	}
	if (n == 0)
		n = MAX(pool_ncpus(), 2);
	n = MIN(n, THREADS_MAX);
	/* Whoever answers a fault need not wait for the file's lock then. */
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine != SERVE_COPY)
			(void)own_open(&s->objects[i]);
	return start_threads(p, n, MIN(BATCH_BYTES, LOCKED_BYTES / n), e);
}

int
prefetch_start(struct server *s, struct err *e)
{
	struct prefetch *p;

	/* Eagerly others do it, and say when. */
	if (s->prefetch != NULL || s->options.engine == SERVE_EAGER)
		return 0;
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return err_sys(e, "prefetch");
	p->s = s;
	p->began = serve_now();
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	cold_open(&p->cold, s->img, s->options.prefetch.io);
	s->prefetch = p;
	return start(p, e) == -1 ? err_wrap(e, "prefetch") : 0;
}

bool
prefetch_await(struct server *s)
{
	const struct timespec nap = { .tv_nsec = 500000 };

	while (!atomic_load(&s->prefetched) && s->options.engine != SERVE_EAGER) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return false;
		nanosleep(&nap, NULL);
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
	for (size_t i = 0; i < p->s->nobjects; i++) {
		if (p->wanted != NULL)
			free(p->wanted[i]);
		if (p->sweeps != NULL)
			sweep_fini(&p->sweeps[i]);
	}
	free(p->wanted);
	free(p->sweeps);
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
	for (unsigned i = 0; i < p->nthreads; i++) {
		if (p->threads[i].started)
			thread_stop(p->threads[i].thread);
		p->threads[i].started = false;
		batch_fini(&p->threads[i].batch);
	}
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

void
prefetch_note_fault(struct filler *f, size_t object, uint64_t page)
{
	const struct prefetch *p = f->server->prefetch;

	if (p != NULL && p->wanted != NULL && bitmap_test(p->wanted[object], page))
		stat_add(&f->stats.prefetch_late, 1);
}
