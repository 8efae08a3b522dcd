/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "format/trace.h"
#include "serve/hot.h"
#include "serve/prefetch.h"

/*
 * What to prefetch, and in which order.  A chunk is decoded once, whatever pages of it are
 * wanted; chunks come in the order in which the first of their pages was touched.
 */
#define ZERO_GROUP 64u /* hot pages of zeros that are given together */

struct item {
	struct wanted w;
	uint64_t chunk;
	uint32_t kind, order;
};

static int
by_place(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->kind != GROUP_HOT && x->w.region != y->w.region)
		return x->w.region < y->w.region ? -1 : 1;
	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	if (x->w.region != y->w.region)
		return x->w.region < y->w.region ? -1 : 1;
	return (x->w.page > y->w.page) - (x->w.page < y->w.page);
}

static int
by_order(const void *a, const void *b)
{
	const struct page_group *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

static bool
same_group(const struct page_group *g, const struct item *i)
{
	return (uint32_t)g->kind == i->kind && g->chunk == i->chunk &&
	       (g->kind == GROUP_HOT || g->kind == GROUP_ZERO || g->region == i->w.region);
}

static int
alloc(struct plan *p, size_t n, struct err *e)
{
	p->pages = calloc(n + 1, sizeof(*p->pages));
	p->groups = calloc(n + 1, sizeof(*p->groups));
	if (p->groups != NULL)
		pthread_mutex_init(&p->lock, NULL);
	if (p->pages == NULL || p->groups == NULL || n >= UINT32_MAX)
		return err_sys(e, "a list of %zu pages to prefetch", n);
	return 0;
}

/* To the last group, if it is of that; of `most` pages at most. */
static void
add(struct plan *p, const struct item *i, uint32_t most)
{
	struct page_group *g = p->ngroups > 0 ? &p->groups[p->ngroups - 1] : NULL;

	if (g == NULL || !same_group(g, i) || g->n == most) {
		g = &p->groups[p->ngroups++];
		*g = (struct page_group){ .kind = i->kind,
			.region = i->w.region,
			.chunk = i->chunk,
			.first = p->npages,
			.order = UINT32_MAX };
	}
	g->n++;
	g->order = MIN(g->order, i->order);
	p->pages[p->npages++] = i->w;
}

/* Where a page is: at its place in the region, or (hot not HOT_ZERO) among the hot pages. */
static void
place(const struct server *s, struct item *i, uint64_t page, uint32_t region, uint32_t hot)
{
	const struct served_object *o = &s->objects[region];
	uint32_t n = s->img->g.pages;

	i->w = (struct wanted){ page, region, (uint32_t)(page % n) };
	i->kind = GROUP_CHUNK;
	i->chunk = page / n;
	if (o->page_size > PAGE_GRANULE) {
		i->kind = GROUP_UNIT;
		i->chunk = page / (o->page_size / PAGE_GRANULE);
	} else if (hot != HOT_ZERO) {
		i->kind = GROUP_HOT;
		i->chunk = hot / n;
		i->w.at = hot % n;
	}
}

/* Of eager memory the other regions may not be there yet. */
static bool
in_range(const struct server *s, const struct plan_options *o, uint32_t region, uint64_t page)
{
	return region < s->nobjects && (o->region == PLAN_ALL_REGIONS || o->region == region) &&
	       page < div_up(s->img->manifest.regions[region].size, PAGE_GRANULE);
}

/* ---- the pages of a trace ---- */

static size_t
collect(const struct server *s, const struct plan_options *o, struct item *items)
{
	size_t n = 0;

	for (size_t i = 0; i < o->nlist; i++) {
		const struct page_ref *ref = &o->list[i];

		if (!in_range(s, o, ref->region, ref->page))
			continue;
		items[n].order = (uint32_t)i;
		place(s, &items[n++], ref->page, ref->region,
		    s->hot != NULL ? hot_find(s->hot->list, ref->region, ref->page) : HOT_ZERO);
	}
	return n;
}

static int
plan_list(struct plan *p, const struct server *s, const struct plan_options *o, struct err *e)
{
	struct item *items = calloc(o->nlist + 1, sizeof(*items));
	size_t n;

	if (items == NULL)
		return err_sys(e, "a list of %zu pages to prefetch", o->nlist);
	if (alloc(p, o->nlist, e) == -1) {
		free(items);
		return -1;
	}
	n = collect(s, o, items);
	qsort(items, n, sizeof(*items), by_place);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || by_place(&items[i - 1], &items[i]) != 0)
			add(p, &items[i], s->img->g.pages);
	free(items);
	return 0;
}

/* ---- hot pages ---- */

/* They are in order; huge pages come once for each of theirs, which does no harm. */
static void
add_hot(struct plan *p, const struct server *s, const struct plan_options *o, bool zeros)
{
	const struct hot_list *l = s->hot->list;

	for (size_t i = 0; i < l->n; i++) {
		const struct hot_page *h = &l->pages[i];
		struct item item = { .order = (uint32_t)i };

		if ((h->at == HOT_ZERO) != zeros || !in_range(s, o, h->region, h->page))
			continue;
		place(s, &item, h->page, h->region, h->at);
		if (zeros && item.kind == GROUP_CHUNK) {
			/* There is nothing to look up, and they need not lie together. */
			item.kind = GROUP_ZERO;
			item.chunk = 0;
		}
		add(p, &item, zeros ? ZERO_GROUP : s->img->g.pages);
	}
}

static int
plan_hot(struct plan *p, const struct server *s, const struct plan_options *o, struct err *e)
{
	if (alloc(p, s->hot->list->n, e) == -1)
		return -1;
	add_hot(p, s, o, false);
	if (o->zeros)
		add_hot(p, s, o, true);
	return 0;
}

int
plan_make(struct plan *p, const struct server *s, const struct plan_options *o, struct err *e)
{
	*p = (struct plan){ 0 };
	if (o->hot && s->hot == NULL)
		return 0;
	if ((o->hot ? plan_hot : plan_list)(p, s, o, e) == -1)
		return -1;
	qsort(p->groups, p->ngroups, sizeof(*p->groups), by_order);
	return 0;
}

bool
plan_take(struct plan *p, unsigned chunks, size_t *first, size_t *end)
{
	size_t i, zeros = 0;
	unsigned n = 0;

	if (p->ngroups == 0)
		return false;
	pthread_mutex_lock(&p->lock);
	for (i = *first = p->next; i < p->ngroups; i++) {
		const struct page_group *g = &p->groups[i];

		if (g->kind == GROUP_ZERO ? zeros + g->n > PLAN_ZEROS : n == chunks)
			break;
		zeros += g->kind == GROUP_ZERO ? g->n : 0;
		n += g->kind != GROUP_ZERO;
	}
	p->next = *end = i;
	pthread_mutex_unlock(&p->lock);
	return *first < *end;
}

void
plan_free(struct plan *p)
{
	if (p->groups != NULL)
		pthread_mutex_destroy(&p->lock);
	free(p->pages);
	free(p->groups);
	*p = (struct plan){ 0 };
}
