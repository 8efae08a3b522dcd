/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/backfill.h"

/* The thread behind the faults: it sees to it that all is given, and then lets go. */
#define BATCH ((size_t)256 << 10) /* of pages that are decoded together, or one chunk */

/*
 * While faults come without a break, it pauses this many times as long as it works: so the
 * memory is complete some day, and the faults hardly notice.
 */
#define SHARE 3

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

/* ---- the end ---- */

/* Naps until the page is given, or cannot be: 1, 0 when the server has stopped or failed. */
static int
await_page(struct server *s, const struct claims *c, uint64_t page)
{
	while (!claims_given(c, page) && !claims_bad(c, page)) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return 0;
		thread_nap(100);
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
		thread_nap(100);
	}
	server_shed(s);
}

static void *
background_main(void *arg)
{
	struct backfill *b = arg;
	struct server *s = b->server;
	struct err e = ERR_INIT;
	int rc;

	rc = backfill_all(b, &e);
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
