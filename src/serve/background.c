/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/aside.h"
#include "serve/batch.h"
#include "serve/hot.h"
#include "serve/internal.h"
#include "serve/pace.h"

/* Giving what nobody asks for, in the background behind the faults. */
#define PIECE (UINT64_C(4) << 20) /* of guest memory, between looking around */
#define BATCH ((size_t)256 << 10) /* of pages that are decoded together, or one chunk */

/*
 * While faults come without a break, it pauses this many times as long as it works: so the
 * memory is complete some day, and the faults hardly notice.
 */
#define SHARE 3

/*
 * The start of a VM is its own: whatever is read or decoded for nobody takes the disk and the
 * CPUs from the VMM, from its state, and from faults.  So this begins when nobody has asked for
 * anything for a while, or has gone on asking for long.
 */
#define QUIET_NS UINT64_C(200000000)
#define START_NS UINT64_C(3000000000)

struct backfill {
	struct server *server;
	pthread_t thread;
	bool started;
	struct cold cold;
	struct aside aside; /* decodes; its priority is low */
	struct batch batch;
	struct pace pace;
	uint64_t left; /* pages that cannot be had, or may be such */
};

static void
nap_us(long us)
{
	const struct timespec ts = { .tv_nsec = us * 1000 };

	nanosleep(&ts, NULL);
}

/* Gives all units of huge pages that chunk `chunk` lies in. */
static int
fill_units(struct filler *f, size_t object, uint64_t chunk, stat_counter *pages, struct err *e)
{
	const struct served_object *o = &f->server->objects[object];
	uint64_t off = chunk * f->server->img->g.chunk_size;
	uint64_t end = MIN(off + f->server->img->g.chunk_size, o->object->size);

	/* Units are larger than chunks, or (pages of 16 or 64 KiB) smaller. */
	for (uint64_t unit = off / o->page_size; unit * o->page_size < end; unit++)
		if (fill_unit(f, object, unit, pages, e) == -1)
			return -1;
	return 0;
}

int
fill_one(struct filler *f, size_t object, uint64_t chunk, const struct entry *en, struct err *e)
{
	stat_counter *pages = &f->stats.pages_background;
	int rc;

	if (f->server->objects[object].page_size > PAGE_GRANULE)
		rc = fill_units(f, object, chunk, pages, e);
	else
		rc = fill_chunk(f, object, chunk, en, pages, e);
	filler_account(f);
	return rc;
}

/* ---- in the background ---- */

/* What has no place in the VMM cannot be given; eagerly others do it.  False: the server is
 * stopped or has failed. */
static bool
await_mapped(struct server *s)
{
	while (!atomic_load(s->options.engine == SERVE_EAGER ? &s->filled : &s->mapped)) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return false;
		nap_us(1000);
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

/* 1: all is given or being given; 0: stopped; -1 */
static int
fill_object(struct backfill *b, size_t object, struct err *e)
{
	struct server *s = b->server;
	const struct served_object *o = &s->objects[object];
	const stat_counter *pages = &b->batch.filler.stats.pages_background;
	uint64_t n, next = 0, before = stat_get(pages), given = 0;

	if (atomic_load(&o->complete))
		return 1;
	if (o->engine == SERVE_COPY && !await_mapped(s))
		return 0;
	n = image_chunks(s->img, o->object);
	while (next < n) {
		if (!pace_next(&b->pace, given * PAGE_GRANULE))
			return 0;
		before = stat_get(pages);
		if (source_ahead(s, &b->batch.filler, e) == -1 ||
		    batch_chunks(&b->batch, object, next, MIN(next + piece_chunks(b, o), n),
			&next, e) == -1)
			return -1;
		given = stat_get(pages) - before;
	}
	return 1;
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

/* Naps until the page is given, or cannot be: 1, 0 when the server has stopped or failed. */
static int
await_page(struct server *s, const struct claims *c, uint64_t page)
{
	while (!claims_given(c, page) && !claims_bad(c, page)) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return 0;
		nap_us(100);
	}
	return 1;
}

/*
 * Huge pages of zeros are written too, whole.  None may be on its way when the mappings are
 * released: what the guest writes from then on would be lost.
 */
static int
await_units(struct server *s, struct served_object *o)
{
	for (uint64_t unit = 0; unit < o->claims.npages; unit++) {
		/* Whoever asks for those of zeros later is to be told no lies. */
		if (o->source && !claims_taken(&o->claims, unit))
			continue;
		if (claims_take(&o->claims, unit))
			object_give(o, unit);
		else if (await_page(s, &o->claims, unit) == 0)
			return 0;
	}
	return 1;
}

/* Waits for what is taken of a chunk, and counts what is not, or cannot be given. */
static int
await_chunk(struct backfill *b, size_t object, uint64_t chunk, const struct entry *en)
{
	const struct claims *c = &b->server->objects[object].claims;
	uint32_t npages = b->server->img->g.pages;

	for (uint32_t i = 0; i < npages; i++) {
		uint64_t page = chunk * npages + i;

		if (entry_is_zero(en, i))
			continue;
		if (claims_taken(c, page) && await_page(b->server, c, page) == 0)
			return 0;
		b->left += !claims_given(c, page);
	}
	return 1;
}

/* Everything is taken, but for what cannot be had (b->left); waits until it is given. */
static int
await_object(struct backfill *b, size_t object, struct err *e)
{
	struct server *s = b->server;
	struct served_object *o = &s->objects[object];
	struct image_reader *r = b->batch.filler.reader;
	uint64_t chunk = 0, behind;
	struct entry en;
	int more = 1, rc = 1;

	if (atomic_load(&o->complete))
		return 1;
	if (o->page_size > PAGE_GRANULE)
		return await_units(s, o);
	while (
	    rc == 1 && (more = image_reader_next(r, o->object, chunk, &chunk, &en, e)) != 0) {
		if (more == 1) {
			rc = await_chunk(b, object, chunk++, &en);
			continue;
		}
		if (!damage_is_borne(s, e))
			return -1;
		behind = MIN(image_reader_behind(r), image_chunks(s->img, o->object));
		b->left += (behind - MIN(chunk, behind)) * s->img->g.pages;
		chunk = behind;
	}
	return rc;
}

/*
 * Nothing but zeros is missing now.  Unregistering wakes whoever waits, and
 * the kernel makes zeros where there is nothing.  A fault that is on its way
 * while that happens may begin to wait too late to be woken; hence the second
 * wake-up.
 */
static void
release_mappings(struct server *s)
{
	const struct mapping_table *t;
	struct err e;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->nobjects; i++)
		object_complete(&s->objects[i]);
	t = atomic_load(&s->mappings);
	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		/* What was unmapped meanwhile cannot be unregistered, and need not. */
		if (uffd_unregister(s->processes[m->process]->uffd, m->hva, m->len, &e) == -1)
			log_debug("%s", e.msg);
		if (uffd_wake(s->processes[m->process]->uffd, m->hva, m->len, &e) ==
		    UFFD_FAILED)
			log_debug("%s", e.msg);
	}
	for (size_t i = 0; i < s->nobjects; i++)
		object_finish(&s->objects[i]);
	server_complete(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the end ---- */

/* What is missing is no zeros: nothing is unregistered, ever. */
static void
stay_damaged(struct backfill *b)
{
	stat_add(&b->batch.filler.stats.pages_left, b->left);
	log_error("%s: all memory is there but for %llu pages that cannot be had: who asks for "
		  "one gets a memory error",
	    b->server->img->path, (unsigned long long)b->left);
}

/* Who begins to answer a fault from now on sees that all is there, and needs nothing for it. */
static void
give_back(struct backfill *b)
{
	struct server *s = b->server;

	batch_fini(&b->batch);
	aside_fini(&b->aside);
	cold_close(&b->cold);
	while (atomic_load(&s->busy) > 0) {
		if (atomic_load(&s->stop))
			return;
		nap_us(100);
	}
	server_shed(s);
}

/* False: the server is stopped or has failed. */
static bool
await_quiet(struct server *s)
{
	uint64_t began = serve_now(), now = began, last = began;

	/* Who asks for pages in their order is to find the next one there. */
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].source)
			return true;
	while (now - last < QUIET_NS && now - began < START_NS) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return false;
		nap_us(5000);
		last = MAX(last, atomic_load(&s->first_mapping));
		last = MAX(last, atomic_load(&s->last_asked));
		now = serve_now();
	}
	return true;
}

static void *
background_main(void *arg)
{
	struct backfill *b = arg;
	struct server *s = b->server;
	struct err e = ERR_INIT;
	int rc;

	rc = prefetch_await(s) && await_quiet(s) ? fill_hot(b, &e) : 0;
	for (size_t i = 0; i < s->nobjects && rc == 1; i++)
		rc = fill_object(b, i, &e);
	for (size_t i = 0; i < s->nobjects && rc == 1; i++)
		rc = await_object(b, i, &e);
	if (rc == 1 && b->left > 0) {
		stay_damaged(b);
	} else if (rc == 1) {
		release_mappings(s);
		give_back(b);
		server_announce(s);
	} else if (rc == -1) {
		server_fail(s, &e);
	}
	return NULL;
}

int
background_start(struct server *s, struct err *e)
{
	const struct server_options *o = &s->options;
	struct backfill *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return err_sys(e, "background");
	s->background = b;
	b->server = s;
	cold_open(&b->cold, s->img, o->prefetch.io);
	pace_begin(&b->pace, s, o->background_rate);
	if (aside_init(&b->aside, o->background, e) == -1 ||
	    batch_init(&b->batch, s, &b->cold, BATCH, false, e) == -1)
		return -1;
	b->batch.aside = &b->aside;
	b->batch.share = SHARE;
	if (thread_start(&b->thread, background_main, b, e) == -1)
		return -1;
	b->started = true;
	return 0;
}

void
background_free(struct server *s)
{
	struct backfill *b = s->background;

	if (b == NULL)
		return;
	if (b->started)
		thread_stop(b->thread);
	batch_fini(&b->batch);
	aside_fini(&b->aside);
	cold_close(&b->cold);
	free(b);
	s->background = NULL;
}
