/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "serve/prefetcher.h"

/*
 * Mapping what was given before somebody came to map the memory: in long runs, where each page
 * would be a fault else.
 */
#define MAP_RUN 512u /* pages that are mapped by one call, at most */

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

/* Those of pages [page, end). */
static int
map_given_between(struct prefetch_thread *t, const struct mapping *m, uint64_t page,
    uint64_t end, struct err *e)
{
	struct server *s = t->p->s;
	const struct served_object *o = &s->objects[m->object];
	uint64_t n;

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

/* What is not registered counts as given, and nobody has to map it. */
static int
map_given_pages(struct prefetch_thread *t, const struct mapping *m, struct err *e)
{
	const struct served_object *o = &t->p->s->objects[m->object];
	const struct extents *x = &o->extents;
	uint64_t end = m->offset + m->len;
	int rc = 0;

	if (x->list == NULL)
		return map_given_between(t, m, m->offset / o->page_size, end / o->page_size, e);
	for (size_t i = 0; i < x->n && rc == 0; i++)
		rc = map_given_between(t, m, MAX(x->list[i].off, m->offset) / o->page_size,
		    MIN(x->list[i].off + x->list[i].len, end) / o->page_size, e);
	return rc;
}

int
premap(struct prefetch_thread *t, struct err *e)
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
