/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "serve/batch.h"

/* Giving all of an object before anybody can ask for it. */
#define SPAN_BYTES                                                                             \
	(UINT64_C(4) << 20) /* of guest memory that a thread takes at once                     \
			     */

int
sweep_init(struct sweep *w, const struct server *s, size_t object, bool hot, struct err *e)
{
	const struct plan_options what = { .hot = hot, .region = object };

	*w = (struct sweep){ .object = object };
	pthread_mutex_init(&w->lock, NULL);
	return hot ? plan_make(&w->hot, s, &what, e) : 0;
}

void
sweep_fini(struct sweep *w)
{
	plan_free(&w->hot);
	pthread_mutex_destroy(&w->lock);
}

/* Takes [*first, *end); false when nothing is left. */
static bool
take_span(struct sweep *w, const struct server *s, uint64_t *first, uint64_t *end)
{
	const struct served_object *o = &s->objects[w->object];
	uint64_t n = image_chunks(s->img, o->object);
	uint64_t span = MAX(MAX(SPAN_BYTES, o->page_size) / s->img->g.chunk_size, 1);
	bool more;

	pthread_mutex_lock(&w->lock);
	more = w->next < n;
	*first = w->next;
	*end = MIN(w->next + span, n);
	if (more)
		w->next = *end;
	pthread_mutex_unlock(&w->lock);
	return more;
}

int
sweep_some(struct sweep *w, struct batch *b, struct err *e)
{
	uint64_t first, end, next;
	size_t group, last;

	if (plan_take(&w->hot, b->max, &group, &last))
		return batch_groups(b, &w->hot, group, last, e) == -1 ? -1 : 1;
	if (!take_span(w, b->filler.server, &first, &end))
		return 0;
	if (batch_chunks(b, w->object, first, end, &next, e) == -1)
		return -1;
	/* The stretch behind the span is empty: nobody need look at it again. */
	pthread_mutex_lock(&w->lock);
	w->next = MAX(w->next, next);
	pthread_mutex_unlock(&w->lock);
	return 1;
}

struct eager {
	struct server *s;
	struct sweep sweep;
	struct cold cold;
	pthread_mutex_t lock;
	struct err failure;
};

struct eager_thread {
	struct eager *eager;
	struct batch batch;
	pthread_t thread;
	bool started;
};

static void
eager_fail(struct eager *g, const struct err *e)
{
	pthread_mutex_lock(&g->lock);
	err_first(&g->failure, e);
	pthread_mutex_unlock(&g->lock);
}

static bool
goes_on(struct eager *g)
{
	bool failed;

	pthread_mutex_lock(&g->lock);
	failed = g->failure.kind != ERR_NONE;
	pthread_mutex_unlock(&g->lock);
	return !failed && !atomic_load(&g->s->stop);
}

static void *
eager_main(void *arg)
{
	struct eager_thread *t = arg;
	struct eager *g = t->eager;
	struct err e = ERR_INIT;
	int rc = 1;

	while (rc == 1 && goes_on(g))
		rc = sweep_some(&g->sweep, &t->batch, &e);
	if (rc == -1)
		eager_fail(g, &e);
	return NULL;
}

static void
eager_collect(struct eager_thread *t)
{
	if (t->started)
		pthread_join(t->thread, NULL);
	batch_fini(&t->batch);
}

int
fill_eagerly(struct server *s, size_t object, unsigned nthreads, struct err *e)
{
	struct eager g = { .s = s, .failure = ERR_INIT };
	struct eager_thread *threads;
	int rc = 0;

	threads = calloc(nthreads, sizeof(*threads));
	if (threads == NULL)
		return err_sys(e, "eager restore");
	pthread_mutex_init(&g.lock, NULL);
	rc = sweep_init(&g.sweep, s, object, true, e);
	cold_open(&g.cold, s->img, s->options.prefetch.io);
	/* Two threads decode for longer than they wait for the file's lock. */
	if (nthreads > 2)
		(void)own_open(&s->objects[object]);
	for (unsigned i = 0; i < nthreads && rc == 0; i++) {
		threads[i].eager = &g;
		rc = batch_init(&threads[i].batch, s, &g.cold,
		    MIN(BATCH_BYTES, LOCKED_BYTES / nthreads), false, e);
		if (rc == 0)
			image_reader_urgent(threads[i].batch.filler.reader, true);
		if (rc == 0)
			rc = thread_start(&threads[i].thread, eager_main, &threads[i], e);
		threads[i].started = rc == 0;
	}
	if (rc == -1)
		eager_fail(&g, e);
	for (unsigned i = 0; i < nthreads; i++)
		eager_collect(&threads[i]);
	own_close(&s->objects[object]);
	cold_close(&g.cold);
	sweep_fini(&g.sweep);
	pthread_mutex_destroy(&g.lock);
	free(threads);
	if (g.failure.kind != ERR_NONE) {
		*e = g.failure;
		return -1;
	}
	if (atomic_load(&s->stop))
		return err_set(e, ERR_FAILED, "the page server has stopped");
	return 0;
}
