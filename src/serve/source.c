/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/ckd.h"
#include "serve/internal.h"

/*
 * Engine source: the VMM maps a memory object of ours itself, and asks for its pages in
 * words, most likely one after the other, holes too.  So what is asked for often is prepared:
 * whole chunks, stretches of zeros, and the chunk behind the one that is asked for.
 *
 * A page that is given is in the memory object; those of zeros are allocated when they are
 * asked for, and never without, for most guests are holes for the most part.
 */
#define ZEROS_BYTES                                                                            \
	(UINT64_C(1) << 20) /* that are allocated at once; more than a chunk may be */

/* ---- what will be asked for ---- */

#define AHEAD_CHUNK_BITS 48

/* A chunk is begun behind the one before: the next will be asked for soon. */
static void
note(struct server *s, size_t object, uint64_t off)
{
	struct served_object *o = &s->objects[object];
	uint64_t chunk = off / s->img->g.chunk_size;
	uint64_t last = atomic_load_explicit(&o->last_asked, memory_order_relaxed);

	if (chunk == last)
		return;
	atomic_store_explicit(&o->last_asked, chunk, memory_order_relaxed);
	if (chunk == last + 1 && chunk + 1 < image_chunks(s->img, o->object))
		atomic_store(&s->ahead, (uint64_t)object << AHEAD_CHUNK_BITS | (chunk + 1));
}

int
source_ahead(struct server *s, struct filler *f, struct err *e)
{
	uint64_t ahead = atomic_exchange(&s->ahead, 0);
	uint64_t chunk = ahead & ((UINT64_C(1) << AHEAD_CHUNK_BITS) - 1);
	size_t object = (size_t)(ahead >> AHEAD_CHUNK_BITS);
	struct entry en;

	if (ahead == 0)
		return 0;
	if (image_reader_entry(f->reader, s->objects[object].object, chunk, &en, e) == -1)
		return -1;
	return en.length == 0 ? 0 : fill_one(f, object, chunk, &en, e);
}

/* ---- zeros ---- */

/* Where the pages end, from `off` on, of which the image stores nothing; *off if it stores
 * that. */
static int
zeros_end(struct filler *f, const struct object *o, uint64_t off, uint64_t *end, struct err *e)
{
	const struct geometry *g = &f->server->img->g;
	uint64_t chunk = off / g->chunk_size;
	uint32_t page = (uint32_t)(off % g->chunk_size / PAGE_GRANULE);
	struct entry en;
	int more;

	if (image_reader_entry(f->reader, o, chunk, &en, e) == -1)
		return -1;
	while (page < g->pages && entry_is_zero(&en, page))
		page++;
	*end = chunk * g->chunk_size + page * (uint64_t)PAGE_GRANULE;
	if (page < g->pages)
		return 0;
	more = image_reader_next(f->reader, o, chunk + 1, &chunk, &en, e);
	if (more == 1)
		*end = chunk * g->chunk_size;
	else if (more == 0)
		*end = UINT64_MAX;
	return more == -1 ? -1 : 0;
}

/* The page is taken; and what nobody has taken of the zeros behind it goes with it. */
static int
give_zeros(
    struct filler *f, struct served_object *o, uint64_t page, uint64_t end, struct err *e)
{
	uint64_t most = recording(f->server) ? 1 : MAX(ZEROS_BYTES / o->page_size, 1), n = 1;
	uint64_t last = MIN(o->claims.npages, end / o->page_size);

	while (n < most && page + n < last && claims_take(&o->claims, page + n))
		n++;
	if (object_allocate(o, page * o->page_size, n * o->page_size, e) == -1)
		return -1;
	for (uint64_t i = 0; i < n; i++)
		object_give(o, page + i);
	stat_add(&f->stats.faults_zero, 1);
	stat_add(&f->stats.pages_demand, n * o->page_size / PAGE_GRANULE);
	stat_add(&f->stats.pages_zero, n * o->page_size / PAGE_GRANULE);
	serve_stats_answer(&f->stats, ANSWER_ZERO, f->began);
	return 0;
}

/* ---- a page ---- */

static int
give(struct filler *f, size_t object, uint64_t page, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	uint64_t off = page * o->page_size, end;

	f->began = serve_now();
	if (zeros_end(f, o->object, off, &end, e) == -1)
		return -1;
	if (end >= off + o->page_size)
		return give_zeros(f, o, page, end, e);
	return fill_taken(f, object, off, e);
}

/* The page is not given yet: takes and gives it, unless somebody is about to. */
static int
give_missing(struct server *s, size_t object, uint64_t page, struct err *e)
{
	struct filler *f = &s->asked_filler;
	int rc = 0;

	atomic_fetch_add(&s->busy, 1);
	pthread_mutex_lock(&s->asked_lock);
	if (atomic_load(&s->state) != SERVER_COMPLETE)
		rc = asked_filler_init(s, e);
	if (rc == 0 && f->reader != NULL && claims_take(&s->objects[object].claims, page)) {
		rc = give(f, object, page, e);
		filler_account(f);
		/* Others may wait for it. */
		if (rc == -1)
			server_fail(s, e);
	}
	pthread_mutex_unlock(&s->asked_lock);
	atomic_fetch_sub(&s->busy, 1);
	return rc;
}

static int
provide(struct server *s, size_t object, uint64_t page, struct err *e)
{
	struct served_object *o = &s->objects[object];

	if (atomic_load(&s->state) != SERVER_COMPLETE && !claims_given(&o->claims, page)) {
		if (give_missing(s, object, page, e) == -1 ||
		    await_given(s, &o->claims, page, e) == -1)
			return -1;
		/* Those of zeros may be missing still, and nobody knows any more. */
		if (atomic_load(&s->state) != SERVER_COMPLETE)
			return 0;
	}
	/* The guest may have given it back (a balloon), before the VMM asks for the first time
	 * too: then it is a hole, and nothing that the VMM could map. */
	return object_allocate(o, page * o->page_size, o->page_size, e);
}

int
server_provide(struct server *s, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	uint64_t end;

	if (o == NULL || !server_has_memory(s) || !o->source)
		return err_set(e, ERR_CORRUPT,
		    "the VMM asks for pages of memory number %zu, which is not for asking",
		    object);
	if (ckd_add(&end, offset, len) || end > object_length(o))
		return err_set(e, ERR_CORRUPT,
		    "the VMM asks for %llu bytes at %#llx of %s, which has %llu",
		    (unsigned long long)len, (unsigned long long)offset, o->object->name,
		    (unsigned long long)object_length(o));
	if (server_state(s, e) == SERVER_FAILED)
		return -1;
	for (; offset < end; offset = align_down(offset, o->page_size) + o->page_size) {
		note(s, object, offset);
		if (provide(s, object, offset / o->page_size, e) == -1)
			return -1;
	}
	return 0;
}
