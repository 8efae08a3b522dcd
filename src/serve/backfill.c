/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/backfill.h"

#include "base/ckd.h"
#include "serve/hot.h"
#include "serve/near.h"

/* Giving what nobody asks for, in the background behind the faults. */
#define PIECE (UINT64_C(4) << 20) /* of guest memory, between looking around */

/*
 * The start of a VM is its own: whatever is read or decoded for nobody takes the disk and the
 * CPUs from the VMM, from its state, and from faults.  So at first only that is given which
 * comes from the page cache, and is decoded by a CPU that nobody else wants.  All else waits
 * until nobody has asked for anything for a while, or has gone on asking for long.
 *
 * What is known to be touched soon was prefetched: what lies near it comes first.
 */
#define QUIET_NS UINT64_C(200000000)
#define START_NS UINT64_C(3000000000)

/* So many batches that are not in the page cache: neither is the rest. */
#define MISSED_MAX 16

/* What has no place in the VMM cannot be given; eagerly others do it.  False: the server is
 * stopped or has failed. */
static bool
await_mapped(struct server *s)
{
	while (!atomic_load(s->options.engine == SERVE_EAGER ? &s->filled : &s->mapped)) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return false;
		thread_nap(1000);
	}
	return true;
}

/* Chunks at once.  Who is asked for pages in their order has the next one soon. */
static uint64_t
piece_chunks(const struct backfill *b, const struct served_object *o)
{
	uint32_t chunk_size = b->server->img->g.chunk_size;

	if (o->source)
		return 1;
	return MAX(MAX(pace_piece(&b->pace, PIECE), o->page_size) / chunk_size, 1);
}

static void
begin_early(struct backfill *b)
{
	b->early = b->batch.only_at_hand = true;
	b->batch.pages.demand = true;
	b->aside.how = BACKGROUND_IDLE;
	b->began = serve_now();
	b->waits = b->server->hot != NULL && b->server->options.prefetch.kind == PREFETCH_NONE;
}

static void
end_early(struct backfill *b)
{
	b->early = b->batch.only_at_hand = false;
	b->batch.pages.demand = false;
	b->aside.how = b->server->options.background;
}

/* Who asks for pages in their order is to find the next one there. */
static bool
is_asked_in_order(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].source)
			return true;
	return false;
}

/* False: the server is stopped or has failed. */
static bool
await_quiet(struct server *s)
{
	uint64_t began = serve_now(), now = began, last = began;

	while (now - last < QUIET_NS && now - began < START_NS) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return false;
		thread_nap(5000);
		last = MAX(last, atomic_load(&s->first_mapping));
		last = MAX(last, atomic_load(&s->last_asked));
		now = serve_now();
	}
	return true;
}

#define LEFT_ALONE 2

/* Of chunks [*next, end): 1; LEFT_ALONE: early, and this would be in somebody's way; 0; -1 */
static int
fill_piece(struct backfill *b, size_t object, uint64_t end, uint64_t *next, struct err *e)
{
	struct server *s = b->server;
	const stat_counter *pages = &b->batch.filler.stats.pages_background;
	uint64_t before = stat_get(pages);

	if (source_ahead(s, &b->batch.filler, e) == -1 ||
	    batch_chunks(&b->batch, object, *next, end, next, e) == -1)
		return -1;
	b->waits |= b->batch.away;
	b->missed = b->batch.away ? b->missed + 1 : 0;
	b->batch.away = false;
	if (b->missed == MISSED_MAX)
		return LEFT_ALONE;
	if (b->early && serve_now() - b->began > START_NS)
		end_early(b);
	return pace_next(&b->pace, (stat_get(pages) - before) * PAGE_GRANULE);
}

/* 1: it may be filled; 0: not now, or not at all; -1: the server is stopped or has failed. */
static int
is_fillable(struct backfill *b, size_t object)
{
	struct server *s = b->server;
	const struct served_object *o = &s->objects[object];

	if (atomic_load(&o->complete))
		return 0;
	/* Those are decoded here, not aside. */
	if (b->early && o->page_size > PAGE_GRANULE) {
		b->waits = true;
		return 0;
	}
	return o->engine == SERVE_COPY && !await_mapped(s) ? -1 : 1;
}

/* 1: all is given or being given; else as fill_piece */
static int
fill_object(struct backfill *b, size_t object, struct err *e)
{
	const struct served_object *o = &b->server->objects[object];
	uint64_t n = image_chunks(b->server->img, o->object), next = 0;
	int rc = is_fillable(b, object);

	if (rc != 1)
		return rc + 1;
	while (rc == 1 && next < n)
		rc = fill_piece(b, object, MIN(next + piece_chunks(b, o), n), &next, e);
	return rc;
}

/* The same of what lies near pages that were prefetched. */
static int
fill_near(struct backfill *b, size_t object, uint64_t reach, struct err *e)
{
	const struct served_object *o = &b->server->objects[object];
	struct near near = { .set = prefetch_wanted(b->server, object),
		.npages = div_up(o->object->size, PAGE_GRANULE),
		.chunk = b->server->img->g.pages,
		.reach = reach / PAGE_GRANULE };
	uint64_t next, end;
	int rc = is_fillable(b, object);

	if (rc != 1)
		return rc + 1;
	if (near.set == NULL)
		return 1;
	while (rc == 1 && near_next(&near, piece_chunks(b, o), &next, &end))
		while (rc == 1 && next < end)
			rc = fill_piece(b, object, end, &next, e);
	return rc;
}

static int
fill_objects(struct backfill *b, struct err *e)
{
	size_t n = b->server->nobjects;
	int rc = 1;

	for (unsigned k = 0; k < NEAR_STEPS; k++)
		for (size_t i = 0; i < n && rc == 1; i++)
			rc = fill_near(b, i, near_reach[k], e);
	for (size_t i = 0; i < n && rc == 1; i++)
		rc = fill_object(b, i, e);
	return rc;
}

/* What cannot be had of their index is left to those who ask. */
static int
next_hot(struct filler *f, uint64_t *chunk, struct entry *en, struct err *e)
{
	const struct object *o = f->server->hot->list->object;
	int more;

	while ((more = image_reader_next(f->reader, o, *chunk, chunk, en, e)) == -1 &&
	       damage_is_borne(f->server, e))
		*chunk = image_reader_behind(f->reader);
	return more;
}

/* What lies in the hot section, of all objects, unless it was prefetched.  The same. */
static int
fill_hot(struct backfill *b, struct err *e)
{
	struct server *s = b->server;
	struct filler *f = &b->batch.filler;
	stat_counter *pages = &f->stats.pages_background;
	uint64_t chunk = 0, given = 0, before;
	struct entry en;
	int more;

	if (s->hot == NULL)
		return 1;
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY && !await_mapped(s))
			return 0;
	b->batch.worked = serve_now();
	while ((more = next_hot(f, &chunk, &en, e)) == 1) {
		if (!pace_next(&b->pace, given * PAGE_GRANULE))
			return 0;
		batch_give_way(&b->batch);
		before = stat_get(pages);
		if (hot_fill(f, chunk, &en, pages, e) == -1)
			return -1;
		given = stat_get(pages) - before;
		chunk++;
	}
	return more == -1 ? -1 : 1;
}

/* What costs nobody anything, then what was left. */
int
backfill_all(struct backfill *b, struct err *e)
{
	int rc = 1;

	if (!prefetch_await(b->server))
		return 0;
	if (!is_asked_in_order(b->server)) {
		begin_early(b);
		rc = fill_objects(b, e);
		end_early(b);
	}
	if (rc < 1 || (b->waits && !await_quiet(b->server)))
		return MIN(rc, 0);
	rc = fill_hot(b, e);
	return rc == 1 ? fill_objects(b, e) : rc;
}
