/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "base/ckd.h"
#include "serve/hot.h"
#include "serve/internal.h"

/*
 * Giving pages.
 *
 * A page is taken (claims.taken), written into the memory object, marked given,
 * and only then mapped wherever somebody may wait for it.  Who meets a page that
 * is taken but not given does nothing: the taker maps it into every mapping
 * after it has marked it, so whoever waits is woken then.  A page that is given
 * but not in the object any more was discarded by its owner, and is zeros.
 *
 * Where nothing is registered any more whoever waits is woken too, to try
 * again: unregistering misses those who have only just begun to wait.
 */

/* ---- chunks ---- */

struct run {
	uint32_t page, rank, n; /* first page in the chunk, where it is packed, how many */
};

/* The next run of pages that are stored and were not taken, from page *at on; takes them. */
static bool
take_run(struct served_object *o, const struct entry *en, uint64_t first, uint32_t npages,
    uint32_t *at, struct run *run)
{
	uint32_t page = *at;

	while (page < npages &&
	       !(entry_is_stored(en, page) && claims_take(&o->claims, first + page)))
		page++;
	*run = (struct run){ page, entry_rank(en, page), 0 };
	while (page < npages && (run->n == 0 || (entry_is_stored(en, page) &&
						    claims_take(&o->claims, first + page)))) {
		run->n++;
		page++;
	}
	*at = page;
	return run->n != 0;
}

static int
give_run(struct filler *f, size_t object, uint64_t first, const struct run *run,
    const uint8_t *pages, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	uint64_t off = (first + run->page) * PAGE_GRANULE;
	size_t len = (size_t)run->n * PAGE_GRANULE;

	pages += (size_t)run->rank * PAGE_GRANULE;
	if (o->engine == SERVE_COPY)
		return copy_pages(f, object, off, pages, len, e);
	if (object_write(o, pages, len, off, e) == -1)
		return -1;
	for (uint32_t i = 0; i < run->n; i++)
		object_give(o, first + run->page + i);
	return map_everywhere(f, object, off, len, NULL, e);
}

/* How many pages the record holds of those before page `end`. */
static uint32_t
rank_of_end(const struct filler *f, const struct entry *en, uint32_t end)
{
	const struct geometry *g = &f->server->img->g;

	return end < g->pages ? entry_rank(en, end) : entry_stored(en, g);
}

/*
 * Gives what nobody took of pages [at, end) of the loaded chunk.  Everything is decoded
 * before anything more is taken: what is taken is given soon.
 */
static int
give_rest(struct filler *f, struct image_reader *reader, size_t object, uint64_t chunk,
    const struct entry *en, uint32_t at, uint32_t end, stat_counter *count, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	uint64_t first = chunk * f->server->img->g.pages;
	const uint8_t *pages;
	struct run run;

	if (image_reader_pages(reader, rank_of_end(f, en, end), &pages, e) == -1)
		return -1;
	while (take_run(o, en, first, end, &at, &run)) {
		if (give_run(f, object, first, &run, pages, e) == -1)
			return -1;
		stat_add(count, run.n);
	}
	return 0;
}

static bool
anything_left(
    const struct served_object *o, const struct entry *en, uint64_t first, uint32_t npages)
{
	for (uint32_t i = 0; i < npages; i++)
		if (entry_is_stored(en, i) && !claims_taken(&o->claims, first + i))
			return true;
	return false;
}

int
fill_chunk(struct filler *f, size_t object, uint64_t chunk, const struct entry *en,
    stat_counter *count, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	uint32_t npages = f->server->img->g.pages;

	if (!anything_left(o, en, chunk * npages, npages))
		return 0;
	if (filler_lock(f, e) == -1 ||
	    image_reader_load(f->reader, o->object, chunk, en, e) == -1)
		return -1;
	return give_rest(f, f->reader, object, chunk, en, 0, npages, count, e);
}

/* ---- faults ---- */

int
await_given(struct server *s, const struct claims *c, uint64_t page, struct err *e)
{
	while (!claims_given(c, page) && atomic_load(&s->state) != SERVER_COMPLETE) {
		if (atomic_load(&s->state) == SERVER_FAILED || atomic_load(&s->stop))
			return err_set(e, ERR_FAILED, "the page server has stopped");
		thread_nap(20);
	}
	return 0;
}

static int
give_zero(struct filler *f, size_t object, const struct mapping *m, uint64_t off, struct err *e)
{
	struct served_object *o = &f->server->objects[object];

	/* First in the object, then marked; for one mapping that is one call. */
	if ((m != NULL ? zero_at(f, m, off, e) : object_touch(o, off, e)) == -1)
		return -1;
	object_give(o, off / PAGE_GRANULE);
	stat_add(&f->stats.faults_zero, 1);
	stat_add(&f->stats.pages_demand, 1);
	stat_add(&f->stats.pages_zero, 1);
	serve_stats_answer(&f->stats, ANSWER_ZERO, f->began);
	if (o->engine == SERVE_COPY)
		return copy_zeros_around(f, m, off, e);
	return map_everywhere(f, object, off, PAGE_GRANULE, m, e);
}

static int
decode_page(struct loaded *l, uint32_t page, const uint8_t **content, struct err *e)
{
	if (l->damage.kind == ERR_NONE)
		return image_reader_page(l->reader, entry_rank(&l->entry, page), content, e);
	*e = l->damage;
	return -1;
}

int
fill_page(struct filler *f, struct loaded *l, uint32_t page, uint64_t began, struct err *e)
{
	uint64_t first = l->chunk * f->server->img->g.pages;
	struct run run = { page, 0, 1 };
	const uint8_t *content;

	if (decode_page(l, page, &content, e) == -1)
		return damage_poison(f, l->object, (first + page) * PAGE_GRANULE, e);
	if (give_run(f, l->object, first, &run, content, e) == -1)
		return -1;
	serve_stats_answer(&f->stats, ANSWER_STORED, began);
	return 0;
}

/* The record, for whoever wants pages of it.  Who asks for a damaged one later tries again. */
static int
load(struct server *s, struct loaded *l, const struct entry *en, struct err *e)
{
	l->entry = *en;
	l->damage.kind = ERR_NONE;
	if (image_reader_load(l->reader, s->objects[l->object].object, l->chunk, en, e) == 0)
		return 0;
	l->damage = *e;
	return damage_bear(s, l->object, e);
}

/* So many pages of a rest are given at once: whoever asks for others of them waits so long. */
#define REST_PAGES 16u
#define REST_PAGES_UNASKED 4u

/* What is damaged of it stays away, and what comes behind that. */
static int
give_some(struct filler *f, struct loaded *l, uint32_t npages, struct err *e)
{
	uint32_t at = l->next, end = MIN(at + npages, f->server->img->g.pages);

	l->next = end;
	if (give_rest(f, l->reader, l->object, l->chunk, &l->entry, at, end,
		&f->stats.pages_around, e) == 0)
		return 0;
	l->next = f->server->img->g.pages;
	return damage_leave(f->server, l->object, l->chunk, e);
}

/* All that is left of it, until there are more faults. */
static int
fill_rest(struct filler *f, struct loaded *l, struct err *e)
{
	while (
	    l->damage.kind == ERR_NONE && l->next < f->server->img->g.pages && !more_faults(f))
		if (give_some(f, l, REST_PAGES, e) == -1)
			return -1;
	return 0;
}

int
fill_pending(struct filler *f, struct err *e)
{
	struct loaded *l = loaded_get_rest(f->server);

	if (l == NULL)
		return hot_pending(f, e);
	if (give_some(f, l, REST_PAGES_UNASKED, e) == -1 || loaded_put(f, l, e) == -1)
		return -1;
	return 1;
}

/* Who asks for a second page of a chunk goes through all of it. */
static int
give_page(struct filler *f, size_t object, uint64_t off, const struct entry *en, struct err *e)
{
	const struct geometry *g = &f->server->img->g;
	uint32_t page = (uint32_t)(off % g->chunk_size / PAGE_GRANULE);
	uint64_t chunk = off / g->chunk_size;
	bool again, through;
	struct loaded *l;

	stat_add(&f->stats.faults_stored, 1);
	stat_add(&f->stats.pages_demand, 1);
	l = loaded_get(f->server, object, chunk, page, f->began, &again, &through);
	if (l == NULL)
		return 0;
	if (!again && load(f->server, l, en, e) == -1)
		return -1;
	if (fill_page(f, l, page, f->began, e) == -1 ||
	    ((again || through) && !recording(f->server) && fill_rest(f, l, e) == -1))
		return -1;
	return loaded_put(f, l, e);
}

static int
write_unit(struct filler *f, size_t object, uint64_t unit, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	uint64_t off = unit * o->page_size;
	size_t len = MIN(o->page_size, o->object->size - off);

	memset(f->unit + len, 0, o->page_size - len);
	if (image_reader_read(f->reader, o->object, off, f->unit, len, e) == -1)
		return -1;
	if (o->engine == SERVE_COPY)
		return copy_pages(f, object, off, f->unit, o->page_size, e);
	if (object_write(o, f->unit, o->page_size, off, e) == -1)
		return -1;
	object_give(o, unit);
	return map_everywhere(f, object, off, o->page_size, NULL, e);
}

int
fill_unit(struct filler *f, size_t object, uint64_t unit, stat_counter *pages, struct err *e)
{
	struct served_object *o = &f->server->objects[object];

	int rc;

	if (!claims_take(&o->claims, unit))
		return 0;
	stat_add(pages, o->page_size / PAGE_GRANULE);
	/* It is taken: from now on somebody may be waiting for it. */
	image_reader_urgent(f->reader, true);
	rc = write_unit(f, object, unit, e);
	image_reader_urgent(f->reader, false);
	return rc;
}

static int
give_unit(struct filler *f, size_t object, uint64_t off, struct err *e)
{
	uint64_t page_size = f->server->objects[object].page_size;

	if (write_unit(f, object, off / page_size, e) == -1)
		return damage_bear(f->server, object, e);
	serve_stats_answer(&f->stats, ANSWER_STORED, f->began);
	stat_add(&f->stats.faults_stored, 1);
	stat_add(&f->stats.pages_demand, page_size / PAGE_GRANULE);
	return 0;
}

/* A page that this thread has taken; m: of the fault, NULL for a vCPU's. */
static int
give_taken(
    struct filler *f, size_t object, const struct mapping *m, uint64_t off, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	const struct geometry *g = &f->server->img->g;
	uint32_t page = (uint32_t)(off % g->chunk_size / PAGE_GRANULE);
	struct entry en;

	prefetch_note_fault(f, object, off / PAGE_GRANULE);
	if (o->page_size > PAGE_GRANULE)
		return give_unit(f, object, off, e);
	if (image_reader_entry(f->reader, o->object, off / g->chunk_size, &en, e) == -1)
		return damage_poison(f, object, off, e);
	if (entry_is_hot(&en, page))
		return hot_fault(f, object, off, e);
	if (entry_is_zero(&en, page))
		return give_zero(f, object, m, off, e);
	return give_page(f, object, off, &en, e);
}

/*
 * What is registered still would be asked for again and again: a mapping that has something
 * else in its midst, of which nobody was told, is not unregistered at once.
 */
#define LATE_BYTES (UINT64_C(2) << 20)

static int
answer_late(const struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	int uffd = f->server->processes[m->process]->uffd;
	uint64_t page_size = f->server->objects[m->object].page_size;
	uint64_t hva = m->hva + (off - m->offset), block = MAX(LATE_BYTES, page_size);
	uint64_t from = MAX(align_down(hva, block), m->hva);
	uint64_t end = MIN(align_down(hva, block) + block, m->hva + m->len);
	struct err unused;

	if (uffd_unregister(uffd, from, end - from, &unused) == -1)
		(void)uffd_unregister(uffd, hva, page_size, &unused);
	return uffd_wake(uffd, hva, page_size, e) == UFFD_FAILED ? -1 : 0;
}

int
fill_fault(struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	struct served_object *o = &f->server->objects[m->object];
	uint64_t page = off / o->page_size;

	/* What is needed for an answer may be freed by now: the access is to be tried again. */
	if (atomic_load(&f->server->state) == SERVER_COMPLETE) {
		stat_add(&f->stats.faults_outside, 1);
		return answer_late(f, m, off, e);
	}
	if (!claims_given(&o->claims, page) && claims_take(&o->claims, page))
		return give_taken(f, m->object, m, off, e);
	/* Looked at again: what was discarded in between is both, and nobody gives it. */
	if (claims_given(&o->claims, page)) {
		if (map_given(f, m, off, e) == -1)
			return -1;
		stat_add(&f->stats.faults_present, 1);
		serve_stats_answer(&f->stats, ANSWER_PRESENT, f->began);
		return 0;
	}
	if (claims_bad(&o->claims, page))
		return poison_at(f, m, off, e);
	stat_add(&f->stats.faults_waited, 1);
	return 0;
}

int
fill_taken(struct filler *f, size_t object, uint64_t off, struct err *e)
{
	f->began = serve_now();
	return give_taken(f, object, NULL, off, e);
}

int
fill_vcpu(struct filler *f, size_t object, uint64_t off, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	uint64_t page = off / o->page_size;

	f->began = serve_now();
	stat_add(&f->stats.faults_vcpu, 1);
	/* Who is at its chunk may have been left the page. */
	if (claims_take(&o->claims, page)) {
		if (give_taken(f, object, NULL, off, e) == -1)
			return -1;
	} else if (claims_given(&o->claims, page)) {
		object_admit(o, page);
		stat_add(&f->stats.faults_present, 1);
	} else {
		stat_add(&f->stats.faults_waited, 1);
	}
	return await_given(f->server, &o->claims, page, e);
}
