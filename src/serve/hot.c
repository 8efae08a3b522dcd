/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "serve/hot.h"

/*
 * Pages of the image's hot section: those of one chunk are from all over the memory.
 *
 * A fault on one has its chunk decoded up to the page, which is given; what else is in the
 * chunk goes to its places when nobody waits.
 */

#define HOT_CHUNK_LARGE (512u << 10)

/* A chunk that was decoded for a fault. */
struct hot_chunk {
	struct image_reader *reader; /* owned; its buffer is locked */
	bool pending; /* there is a rest */
	uint64_t chunk;
	struct entry entry;
};

struct hot_filler {
	struct hot_chunk chunks[2]; /* of fault workers; else without readers */
	unsigned nchunks, newest;
	struct scatter scatter;
};

/* ---- what is where ---- */

int
hot_open(struct server *s, struct err *e)
{
	struct hot *h;

	h = calloc(1, sizeof(*h));
	if (h == NULL)
		return err_sys(e, "hot pages");
	s->hot = h;
	if (image_hot(s->img, &h->list, e) == -1)
		return -1;
	if (h->list == NULL || h->list->object == NULL) {
		hot_close(s);
		return 0;
	}
	h->number = calloc((size_t)h->list->nstored + 1, sizeof(*h->number));
	if (h->number == NULL)
		return err_sys(e, "%u hot pages", h->list->nstored);
	for (size_t i = 0; i < h->list->n; i++)
		if (h->list->pages[i].at < h->list->nstored)
			h->number[h->list->pages[i].at] = (uint32_t)i;
	return 0;
}

void
hot_close(struct server *s)
{
	if (s->hot != NULL)
		free(s->hot->number);
	free(s->hot);
	s->hot = NULL;
}

int
hot_filler_init(struct filler *f, bool faults, struct err *e)
{
	struct server *s = f->server;

	if (s->hot == NULL)
		return 0;
	f->hot = calloc(1, sizeof(*f->hot));
	if (f->hot == NULL)
		return err_sys(e, "hot pages");
	/* They are locked, of which there is little. */
	f->hot->nchunks = s->img->g.chunk_size > HOT_CHUNK_LARGE ? 1 : 2;
	for (unsigned i = 0; faults && i < f->hot->nchunks; i++) {
		struct image_reader **r = &f->hot->chunks[i].reader;

		if (image_reader_new(r, s->img, e) == -1 || image_reader_lock(*r, e) == -1)
			return -1;
		image_reader_urgent(*r, true);
	}
	return scatter_init(&f->hot->scatter, f, s->img->g.pages, true, e);
}

void
hot_filler_fini(struct filler *f)
{
	if (f->hot == NULL)
		return;
	for (unsigned i = 0; i < 2; i++)
		image_reader_free(f->hot->chunks[i].reader);
	scatter_fini(&f->hot->scatter);
	free(f->hot);
	f->hot = NULL;
}

void
hot_count(const struct filler *f, struct image_reader_stats *sum)
{
	struct image_reader_stats one;

	for (unsigned i = 0; f->hot != NULL && i < 2; i++) {
		if (f->hot->chunks[i].reader == NULL)
			continue;
		image_reader_stats(f->hot->chunks[i].reader, &one);
		sum->bytes_read += one.bytes_read;
		sum->bytes_decoded += one.bytes_decoded;
		sum->reads += one.reads;
	}
}

/* ---- giving ---- */

static int
not_listed(const struct server *s, size_t object, uint64_t page, struct err *e)
{
	err_set(e, ERR_CORRUPT, "%s: %s: the page at %#llx is hot, and not among the hot pages",
	    s->img->path, s->img->manifest.regions[object].name,
	    (unsigned long long)(page * PAGE_GRANULE));
	return err_damage(e);
}

int
hot_not_stored(const struct server *s, uint64_t at, struct err *e)
{
	err_set(e, ERR_CORRUPT, "%s: hot page %llu is not stored", s->img->path,
	    (unsigned long long)at);
	return err_damage(e);
}

int
hot_check(const struct server *s, size_t object, uint64_t chunk, const struct entry *en,
    struct err *e)
{
	uint32_t npages = s->img->g.pages;

	for (uint32_t i = 0; i < npages; i++)
		if (entry_is_hot(en, i) &&
		    (s->hot == NULL || hot_find(s->hot->list, (uint32_t)object,
					   chunk * npages + i) == HOT_ZERO))
			return not_listed(s, object, chunk * npages + i, e);
	return 0;
}

/* What nobody took of a chunk that is loaded.  Huge pages are given whole, by others. */
static int
give_rest(struct filler *f, struct image_reader *r, uint64_t chunk, const struct entry *en,
    stat_counter *count, struct err *e)
{
	struct server *s = f->server;
	uint32_t npages = s->img->g.pages;
	const uint8_t *pages;

	if (image_reader_pages(r, image_reader_stored(r, en), &pages, e) == -1)
		return -1;
	for (uint32_t i = 0; i < npages && chunk * npages + i < s->hot->list->nstored; i++) {
		const struct hot_page *p =
		    &s->hot->list->pages[s->hot->number[chunk * npages + i]];

		if (!entry_is_stored(en, i))
			return hot_not_stored(s, chunk * npages + i, e);
		if (s->objects[p->region].page_size == PAGE_GRANULE &&
		    !claims_taken(&s->objects[p->region].claims, p->page))
			scatter_put(&f->hot->scatter, p->region, p->page,
			    pages + (size_t)entry_rank(en, i) * PAGE_GRANULE);
	}
	return scatter_give(&f->hot->scatter, count, NULL, NULL, e);
}

static bool
anything_left(const struct server *s, uint64_t chunk)
{
	uint32_t npages = s->img->g.pages;

	for (uint64_t at = chunk * npages;
	     at < (chunk + 1) * npages && at < s->hot->list->nstored; at++) {
		const struct hot_page *p = &s->hot->list->pages[s->hot->number[at]];

		if (s->objects[p->region].page_size == PAGE_GRANULE &&
		    !claims_taken(&s->objects[p->region].claims, p->page))
			return true;
	}
	return false;
}

/* A chunk of hot pages that cannot be had, of which nobody waits for one.  Told of the first's.
 */
static int
leave(struct server *s, uint64_t chunk, struct err *e)
{
	uint64_t at = MIN(chunk * s->img->g.pages, s->hot->list->nstored - 1);
	const struct hot_page *p = &s->hot->list->pages[s->hot->number[at]];

	return damage_leave(s, p->region, p->page / s->img->g.pages, e);
}

int
hot_fill(struct filler *f, uint64_t chunk, const struct entry *en, stat_counter *count,
    struct err *e)
{
	const struct object *o = f->server->hot->list->object;
	int rc;

	if (!anything_left(f->server, chunk) || en->length == 0)
		return 0;
	if (filler_lock(f, e) == -1)
		return -1;
	if (image_reader_load(f->reader, o, chunk, en, e) == -1)
		return leave(f->server, chunk, e);
	rc = give_rest(f, f->reader, chunk, en, count, e);
	filler_account(f);
	return rc == -1 ? leave(f->server, chunk, e) : 0;
}

static int
finish(struct filler *f, struct hot_chunk *c, struct err *e)
{
	/* Neighbours that are there would be touched unseen. */
	if (!c->pending || recording(f->server))
		return 0;
	c->pending = false;
	if (give_rest(f, c->reader, c->chunk, &c->entry, &f->stats.pages_around, e) == 0)
		return 0;
	return leave(f->server, c->chunk, e);
}

int
hot_pending(struct filler *f, struct err *e)
{
	struct hot_filler *h = f->hot;

	if (h == NULL || recording(f->server))
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		struct hot_chunk *c = &h->chunks[(h->newest + i) % 2];

		if (c->pending)
			return finish(f, c, e) == -1 ? -1 : 1;
	}
	return 0;
}

static int
load(struct filler *f, struct hot_chunk *c, uint64_t chunk, struct err *e)
{
	const struct object *o = f->server->hot->list->object;

	c->pending = false;
	if (image_reader_entry(f->reader, o, chunk, &c->entry, e) == -1)
		return -1;
	if (c->entry.length == 0)
		return hot_not_stored(f->server, chunk * f->server->img->g.pages, e);
	if (image_reader_load(c->reader, o, chunk, &c->entry, e) == -1)
		return -1;
	c->chunk = chunk;
	c->pending = true;
	return 0;
}

/* The chunk, loaded; *again if it is for a second page of it. */
static int
get_chunk(struct filler *f, uint64_t chunk, struct hot_chunk **c, bool *again, struct err *e)
{
	struct hot_filler *h = f->hot;

	for (unsigned i = 0; i < 2; i++)
		if (h->chunks[i].pending && h->chunks[i].chunk == chunk) {
			*c = &h->chunks[i];
			*again = true;
			return 0;
		}
	*again = false;
	h->newest = (h->newest + 1) % h->nchunks;
	*c = &h->chunks[h->newest];
	return load(f, *c, chunk, e);
}

/* Hot page `at`, and the chunk that it is in. */
static int
get_page(struct filler *f, uint32_t at, struct hot_chunk **c, bool *again, const uint8_t **page,
    struct err *e)
{
	uint32_t q = at % f->server->img->g.pages;

	if (get_chunk(f, at / f->server->img->g.pages, c, again, e) == -1)
		return -1;
	if (!entry_is_stored(&(*c)->entry, q))
		return hot_not_stored(f->server, at, e);
	return image_reader_page((*c)->reader, entry_rank(&(*c)->entry, q), page, e);
}

int
hot_fault(struct filler *f, size_t object, uint64_t off, struct err *e)
{
	struct server *s = f->server;
	uint32_t at = UINT32_MAX;
	struct placed page = { .page = off / PAGE_GRANULE, .region = (uint32_t)object };
	struct hot_chunk *c;
	bool again;

	if (s->hot != NULL)
		at = hot_find(s->hot->list, page.region, page.page);
	if (at == UINT32_MAX) {
		not_listed(s, object, page.page, e);
		return damage_poison(f, object, off, e);
	}
	if (get_page(f, at, &c, &again, &page.from, e) == -1)
		return damage_poison(f, object, off, e);
	if (scatter_one(&f->hot->scatter, &page, e) == -1)
		return -1;
	serve_stats_answer(&f->stats, ANSWER_HOT, f->began);
	stat_add(&f->stats.faults_stored, 1);
	stat_add(&f->stats.faults_hot, 1);
	stat_add(&f->stats.pages_demand, 1);
	/* What was decoded is given before its place is needed; who asks twice wants it all. */
	if (again || f->hot->nchunks == 2)
		return finish(f, again ? c : &f->hot->chunks[1 - f->hot->newest], e);
	return 0;
}
