/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/mix.h"
#include "format/pieces.h"
#include "format/trace.h"

/*
 * From the pages of a trace to those of another image.  Places in regions are
 * one line of numbers here, region after region, so that one kind of table
 * leads from places to addresses and from addresses to places.
 */
#define PLACE_SHIFT 47 /* OBJECT_SIZE_MAX fits */

static uint64_t
place(size_t region, uint64_t offset)
{
	return (uint64_t)region << PLACE_SHIFT | offset;
}

struct resolver {
	const struct trace *t;
	const struct object *regions; /* where to */
	size_t nregions;
	bool same; /* the numbers are the same */
	struct pieces addresses; /* of the trace: place to guest-physical address */
	struct pieces places; /* of the regions: address to place */
	size_t names[OBJECTS_MAX]; /* the region of that name, or SIZE_MAX */
	uint64_t *seen; /* a hash of pages that were given, plus 1; 0: free */
	size_t nseen; /* its places, a power of two */
};

static size_t
count_segments(const struct object *regions, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += regions[i].nsegments;
	return sum;
}

static int
make_pieces(
    struct pieces *p, const struct object *regions, size_t n, bool to_place, struct err *e)
{
	size_t nsegments = count_segments(regions, n), k = 0;
	struct piece *list = calloc(nsegments + 1, sizeof(*list));
	int ret;

	if (list == NULL)
		return err_set(e, ERR_FAILED, "trace: out of memory");
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < regions[i].nsegments; j++) {
			const struct segment *s = &regions[i].segments[j];
			uint64_t at = place(i, s->offset);

			list[k++] = to_place ? (struct piece){ s->gpa, s->size, at }
					     : (struct piece){ at, s->size, s->gpa };
		}
	}
	ret = pieces_make(p, list, nsegments, e);
	free(list);
	return ret;
}

static void
match_names(struct resolver *r)
{
	for (size_t i = 0; i < r->t->nregions; i++) {
		r->names[i] = SIZE_MAX;
		for (size_t k = 0; k < r->nregions; k++)
			if (strcmp(r->t->regions[i].name, r->regions[k].name) == 0)
				r->names[i] = k;
	}
}

static int
resolver_init(struct resolver *r, size_t npages, struct err *e)
{
	if (r->same)
		return 0;
	match_names(r);
	for (r->nseen = 16; r->nseen < 2 * npages; r->nseen *= 2)
		;
	r->seen = calloc(r->nseen, sizeof(*r->seen));
	if (r->seen == NULL)
		return err_set(e, ERR_FAILED, "trace: out of memory");
	if (make_pieces(&r->addresses, r->t->regions, r->t->nregions, false, e) == -1)
		return -1;
	return make_pieces(&r->places, r->regions, r->nregions, true, e);
}

static void
resolver_fini(struct resolver *r)
{
	free(r->seen);
	pieces_free(&r->addresses);
	pieces_free(&r->places);
}

/* Whether the page comes for the first time. */
static bool
first_time(struct resolver *r, size_t region, uint64_t page)
{
	uint64_t key = place(region, page) + 1;
	size_t i = (size_t)mix_key(key, r->seen) & (r->nseen - 1);

	for (; r->seen[i] != 0; i = (i + 1) & (r->nseen - 1))
		if (r->seen[i] == key)
			return false;
	r->seen[i] = key;
	return true;
}

/* Where a page is; false: nowhere. */
static bool
find_place(struct resolver *r, size_t *region, uint64_t *page)
{
	uint64_t gpa, at;

	if (r->same)
		return true;
	/* With addresses on both sides nothing else counts. */
	if (r->places.n != 0 &&
	    pieces_find(&r->addresses, place(*region, *page * PAGE_GRANULE), &gpa)) {
		if (!pieces_find(&r->places, gpa, &at) || at % PAGE_GRANULE != 0)
			return false;
		*region = at >> PLACE_SHIFT;
		*page = (at & ((UINT64_C(1) << PLACE_SHIFT) - 1)) / PAGE_GRANULE;
		return true;
	}
	*region = r->names[*region];
	return *region != SIZE_MAX;
}

static bool
resolve_page(struct resolver *r, const struct trace_run *run, uint32_t i, struct trace_run *to)
{
	size_t region = run->region;
	uint64_t page = run->page + i;

	if (!find_place(r, &region, &page) || region >= r->nregions ||
	    page >= div_up(r->regions[region].size, PAGE_GRANULE) ||
	    (!r->same && !first_time(r, region, page)))
		return false;
	*to = (struct trace_run){ .page = page,
		.npages = 1,
		.region = (uint32_t)region,
		.time_ms = run->time_ms,
		.access = run->access };
	return true;
}

static size_t
resolve_all(struct resolver *r, struct trace_run *list, uint64_t *dropped)
{
	size_t n = 0;

	for (size_t i = 0; i < r->t->nruns; i++) {
		const struct trace_run *run = &r->t->runs[i];

		for (uint32_t k = 0; k < run->npages; k++) {
			if (resolve_page(r, run, k, &list[n]))
				n++;
			else
				*dropped += 1;
		}
	}
	return n;
}

int
trace_touches(const struct trace *t, const struct object *regions, size_t nregions,
    const uint8_t root[DIGEST_SIZE], struct trace_run **list, size_t *n, uint64_t *dropped,
    struct err *e)
{
	struct resolver r = { .t = t,
		.regions = regions,
		.nregions = nregions,
		.same = memcmp(t->root, root, DIGEST_SIZE) == 0 };
	size_t npages = trace_pages(t);

	*list = NULL;
	*n = 0;
	*dropped = 0;
	if (npages == 0)
		return 0;
	if (resolver_init(&r, npages, e) == -1) {
		resolver_fini(&r);
		return -1;
	}
	*list = calloc(npages, sizeof(**list));
	if (*list != NULL)
		*n = resolve_all(&r, *list, dropped);
	else
		err_set(e, ERR_FAILED, "trace: %zu pages: out of memory", npages);
	resolver_fini(&r);
	if (*n == 0) {
		int ret = *list == NULL ? -1 : 0;

		free(*list);
		*list = NULL;
		return ret;
	}
	return 0;
}

int
trace_resolve(const struct trace *t, const struct manifest *m, const uint8_t root[DIGEST_SIZE],
    struct page_ref **list, size_t *n, uint64_t *dropped, struct err *e)
{
	struct trace_run *touches;

	*list = NULL;
	if (trace_touches(t, m->regions, m->nregions, root, &touches, n, dropped, e) == -1)
		return -1;
	if (*n == 0)
		return 0;
	*list = calloc(*n, sizeof(**list));
	if (*list == NULL) {
		free(touches);
		return err_set(e, ERR_FAILED, "trace: %zu pages: out of memory", *n);
	}
	for (size_t i = 0; i < *n; i++)
		(*list)[i] = (struct page_ref){ touches[i].region, touches[i].page };
	free(touches);
	return 0;
}
