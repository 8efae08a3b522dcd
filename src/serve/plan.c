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
	       (g->kind == GROUP_HOT || g->region == i->w.region);
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
in_range(const struct server *s, uint32_t region, uint64_t page)
{
	return region < s->nobjects &&
	       page < div_up(s->img->manifest.regions[region].size, PAGE_GRANULE);
}

/* The pages of a trace. */
static size_t
collect_list(const struct server *s, const struct plan_options *o, struct item *items)
{
	size_t n = 0;

	for (size_t i = 0; i < o->nlist; i++) {
		const struct page_ref *ref = &o->list[i];

		if (!in_range(s, ref->region, ref->page))
			continue;
		items[n].order = (uint32_t)i;
		place(s, &items[n++], ref->page, ref->region,
		    s->hot != NULL ? hot_find(s->hot->list, ref->region, ref->page) : HOT_ZERO);
	}
	return n;
}

/* The hot pages, of one region or all. */
static size_t
collect_hot(const struct server *s, const struct plan_options *o, struct item *items)
{
	const struct hot_list *l = s->hot->list;
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct hot_page *p = &l->pages[i];

		if (!in_range(s, p->region, p->page) ||
		    (o->region != PLAN_ALL_REGIONS && o->region != p->region) ||
		    (p->at == HOT_ZERO && !o->zeros))
			continue;
		items[n].order = (uint32_t)i;
		place(s, &items[n], p->page, p->region, p->at);
		/* There is nothing to look up. */
		if (p->at == HOT_ZERO && items[n].kind == GROUP_CHUNK)
			items[n].kind = GROUP_ZERO;
		n++;
	}
	return n;
}

/* Of sorted items; at most so many pages are a group. */
static int
group(struct plan *p, const struct item *items, size_t n, uint32_t pages, struct err *e)
{
	struct page_group *g = NULL;

	p->pages = calloc(n + 1, sizeof(*p->pages));
	p->groups = calloc(n + 1, sizeof(*p->groups));
	if (p->pages == NULL || p->groups == NULL)
		return err_sys(e, "a list of %zu pages to prefetch", n);
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && by_place(&items[i - 1], &items[i]) == 0)
			continue;
		if (g == NULL || !same_group(g, &items[i]) || g->n == pages) {
			g = &p->groups[p->ngroups++];
			*g = (struct page_group){ .kind = items[i].kind,
				.region = items[i].w.region,
				.chunk = items[i].chunk,
				.first = p->npages,
				.order = UINT32_MAX };
		}
		g->n++;
		g->order = MIN(g->order, items[i].order);
		p->pages[p->npages++] = items[i].w;
	}
	qsort(p->groups, p->ngroups, sizeof(*p->groups), by_order);
	return 0;
}

int
plan_make(struct plan *p, const struct server *s, const struct plan_options *o, struct err *e)
{
	size_t max = o->nlist, n;
	struct item *items;
	int rc;

	*p = (struct plan){ 0 };
	if (o->hot && s->hot != NULL)
		max = s->hot->list->n;
	items = calloc(max + 1, sizeof(*items));
	if (items == NULL || max > UINT32_MAX) {
		free(items);
		return err_sys(e, "a list of %zu pages to prefetch", max);
	}
	n = o->hot && s->hot != NULL ? collect_hot(s, o, items) : collect_list(s, o, items);
	qsort(items, n, sizeof(*items), by_place);
	rc = group(p, items, n, s->img->g.pages, e);
	free(items);
	return rc;
}

void
plan_free(struct plan *p)
{
	free(p->pages);
	free(p->groups);
	*p = (struct plan){ 0 };
}
