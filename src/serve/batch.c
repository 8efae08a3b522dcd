/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ckd.h"
#include "serve/aside.h"

/* Between two records that are read together there may be so much that nobody wants. */
#define GAP_BYTES (16u << 10)

struct job {
	const struct object *object;
	size_t region; /* of the object, unless group is not NULL */
	const struct page_group *group; /* NULL: all pages of the chunk */
	const struct wanted *wanted; /* the group's */
	uint64_t chunk;
	struct entry entry;
	const uint8_t *record; /* NULL: it is still to be read, or cannot be */
};

/* ---- making one ---- */

static uint8_t *
map_buffer(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void
unmap_buffer(uint8_t *p, size_t len)
{
	if (p != NULL)
		munmap(p, len);
}

int
batch_init(struct batch *b, struct server *s, struct cold *cold, size_t bytes, bool demand,
    struct err *e)
{
	const struct geometry *g = &s->img->g;
	size_t npages;

	*b = (struct batch){ .cold = cold, .demand = demand, .share = demand ? 1 : 0 };
	b->max = (unsigned)MAX(bytes / g->chunk_size, 1);
	b->out_size = (size_t)b->max * g->chunk_size;
	b->in_size = cold_room((size_t)b->max * (record_length_max(g->pages) + GAP_BYTES));
	npages = b->out_size / PAGE_GRANULE;
	b->jobs = calloc(b->max, sizeof(*b->jobs));
	b->in = map_buffer(b->in_size);
	b->out = map_buffer(b->out_size);
	if (b->jobs == NULL || b->in == NULL || b->out == NULL)
		return err_sys(e, "memory to fill with");
	if (mlock(b->out, b->out_size) == -1)
		return err_sys(e, "lock %zu bytes of memory (raise RLIMIT_MEMLOCK, ulimit -l)",
		    b->out_size);
	b->count =
	    demand ? &b->filler.stats.pages_prefetched : &b->filler.stats.pages_background;
	if (filler_init(&b->filler, s, false, -1, e) == -1 ||
	    scatter_init(&b->pages, &b->filler, npages, demand, e) == -1)
		return -1;
	if (scatter_init(&b->zeros, &b->filler, npages + PLAN_ZEROS, demand, e) == -1)
		return -1;
	b->pages.own = b->zeros.own = true;
	return 0;
}

void
batch_fini(struct batch *b)
{
	filler_fini(&b->filler);
	scatter_fini(&b->pages);
	scatter_fini(&b->zeros);
	unmap_buffer(b->in, b->in_size);
	unmap_buffer(b->out, b->out_size);
	free(b->jobs);
	*b = (struct batch){ 0 };
}

/* ---- demand first ---- */

void
batch_give_way(struct batch *b)
{
	struct server *s = b->filler.server;
	uint64_t now, until;

	if (b->share == 0)
		return;
	now = serve_now();
	if (atomic_load_explicit(&s->busy, memory_order_relaxed) > 0) {
		until = now + b->share * (now - b->worked);
		while (now < until && atomic_load(&s->busy) > 0 && !atomic_load(&s->stop)) {
			thread_nap(20);
			now = serve_now();
		}
	}
	b->worked = now;
}

/* ---- reading ---- */

static int
by_offset(const void *a, const void *b)
{
	const struct job *x = a, *y = b;

	return (x->entry.offset > y->entry.offset) - (x->entry.offset < y->entry.offset);
}

static bool
fits(const struct batch *b, const struct job *j)
{
	const struct image *img = b->filler.server->img;

	return j->entry.length <= record_length_max(img->g.pages) &&
	       j->entry.offset <= img->size && img->size - j->entry.offset >= j->entry.length;
}

/* Jobs from the i-th on whose records lie together; at least one. */
static unsigned
together(const struct batch *b, unsigned i, size_t *len)
{
	uint64_t begin = b->jobs[i].entry.offset, end = begin + b->jobs[i].entry.length;
	unsigned k;

	for (k = i + 1; k < b->njobs; k++) {
		const struct entry *en = &b->jobs[k].entry;

		if (en->offset < end || en->offset - end > GAP_BYTES || !fits(b, &b->jobs[k]))
			break;
		end = en->offset + en->length;
	}
	*len = (size_t)(end - begin);
	return k - i;
}

/* The records of all jobs, but for those that cannot be read. */
static void
read_records(struct batch *b)
{
	size_t used = 0, len;
	const uint8_t *at;
	struct err unused;
	int rc;

	qsort(b->jobs, b->njobs, sizeof(*b->jobs), by_offset);
	for (unsigned i = 0, n; i < b->njobs; i += n) {
		uint64_t off = b->jobs[i].entry.offset;

		n = 1;
		b->jobs[i].record = NULL;
		if (!fits(b, &b->jobs[i]))
			continue;
		n = together(b, i, &len);
		for (unsigned k = i; k < i + n; k++)
			b->jobs[k].record = NULL;
		if (b->only_at_hand && !cold_at_hand(b->cold, off, len)) {
			b->away = true;
			return;
		}
		/* One of them may be at fault: each is read alone then, and tells. */
		image_reader_reading(b->filler.reader, off, len);
		rc = cold_read(b->cold, b->in + used, off, len, &at, &unused);
		image_reader_has_read(b->filler.reader);
		if (rc == -1)
			continue;
		for (unsigned k = i; k < i + n; k++)
			b->jobs[k].record = at + (b->jobs[k].entry.offset - off);
		used += cold_room(len);
		used = (size_t)align_down(used, COLD_ALIGN);
		stat_add(&b->filler.stats.crossings, 1);
	}
}

/* ---- decoding ---- */

static bool
taken(const struct batch *b, uint32_t region, uint64_t page)
{
	return claims_taken(&b->filler.server->objects[region].claims, page);
}

/* How many pages of the chunk have to be decoded, from the first; 0: none is wanted. */
static uint32_t
wanted_upto(const struct batch *b, const struct job *j)
{
	uint32_t npages = b->filler.server->img->g.pages, upto = 0;

	if (j->group == NULL) {
		for (uint32_t i = 0; i < npages; i++)
			if (entry_is_stored(&j->entry, i) &&
			    !taken(b, (uint32_t)j->region, j->chunk * npages + i))
				return entry_rank(&j->entry, npages);
		return 0;
	}
	for (uint32_t i = 0; i < j->group->n; i++) {
		const struct wanted *w = &j->wanted[i];

		if (entry_is_stored(&j->entry, w->at) && !taken(b, w->region, w->page))
			upto = MAX(upto, entry_rank(&j->entry, w->at) + 1);
	}
	return upto;
}

static void
place_pages(struct batch *b, const struct job *j, const uint8_t *pages)
{
	uint32_t npages = b->filler.server->img->g.pages, rank = 0;

	for (uint32_t i = 0; j->group == NULL && i < npages; i++)
		if (entry_is_stored(&j->entry, i))
			scatter_put(&b->pages, (uint32_t)j->region, j->chunk * npages + i,
			    pages + (size_t)rank++ * PAGE_GRANULE);
	for (uint32_t i = 0; j->group != NULL && i < j->group->n; i++) {
		const struct wanted *w = &j->wanted[i];

		if (entry_is_stored(&j->entry, w->at))
			scatter_put(&b->pages, w->region, w->page,
			    pages + (size_t)entry_rank(&j->entry, w->at) * PAGE_GRANULE);
	}
}

static bool
is_hot(const struct job *j)
{
	return j->group != NULL && j->group->kind == GROUP_HOT;
}

static int
load_record(struct image_reader *r, const struct job *j, uint8_t *out, struct err *e)
{
	if (j->record == NULL)
		return image_reader_load(r, j->object, j->chunk, &j->entry, e);
	return image_reader_load_from(r, j->object, j->chunk, &j->entry, j->record, out, e);
}

/* The region of which a job gives pages; of hot ones, the first's. */
static size_t
region_of(const struct job *j)
{
	return j->group != NULL ? j->wanted[0].region : j->region;
}

static int
decode_job(struct batch *b, const struct job *j, struct err *e)
{
	struct image_reader *r = b->filler.reader;
	uint8_t *out = b->out + b->out_used;
	uint32_t upto = wanted_upto(b, j);
	const uint8_t *pages;

	if (upto == 0)
		return 0;
	if (load_record(r, j, out, e) == -1 || image_reader_pages(r, upto, &pages, e) == -1)
		return -1;
	if (pages != out)
		memcpy(out, pages, (size_t)upto * PAGE_GRANULE);
	pages = out;
	for (uint32_t i = 0; is_hot(j) && i < j->group->n; i++)
		if (!entry_is_stored(&j->entry, j->wanted[i].at))
			return hot_not_stored(b->filler.server,
			    j->chunk * b->filler.server->img->g.pages + j->wanted[i].at, e);
	b->out_used += (size_t)image_reader_stored(r, &j->entry) * PAGE_GRANULE;
	place_pages(b, j, pages);
	return 0;
}

/* Whoever is stopped meanwhile leaves the rest. */
static bool
stopped(const struct batch *b)
{
	const struct server *s = b->filler.server;

	return atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED;
}

static void
between(void *arg)
{
	batch_give_way(arg);
}

static int
decode_jobs(void *arg, struct err *e)
{
	struct batch *b = arg;

	b->out_used = 0;
	read_records(b);
	for (unsigned i = 0; i < b->njobs && !b->away; i++) {
		if (stopped(b))
			return 0;
		batch_give_way(b);
		if (decode_job(b, &b->jobs[i], e) == -1 &&
		    damage_leave(
			b->filler.server, region_of(&b->jobs[i]), b->jobs[i].chunk, e) == -1)
			return -1;
	}
	b->njobs = 0;
	/* This thread's may not be the one that gives. */
	stat_add(&b->filler.stats.crossings, crossings_take());
	return 0;
}

/* Nothing is taken before all is decoded: what is taken is given soon. */
static int
run_jobs(struct batch *b, struct err *e)
{
	uint64_t before;
	int rc;

	rc = b->aside != NULL ? aside_run(b->aside, decode_jobs, b, e) : decode_jobs(b, e);
	if (rc == -1 || stopped(b))
		return rc;
	if (scatter_give(&b->pages, b->count, between, b, e) == -1 ||
	    scatter_give(&b->zeros, b->count, between, b, e) == -1)
		return -1;
	before = stat_get(&b->filler.stats.bytes_read);
	filler_account(&b->filler);
	if (b->demand)
		stat_add(&b->filler.stats.bytes_prefetched,
		    stat_get(&b->filler.stats.bytes_read) - before);
	return 0;
}

/* ---- what is to be given ---- */

/* Pages of the group that the chunk does not store. */
static void
place_zeros(struct batch *b, const struct wanted *w, uint32_t n, const struct entry *en)
{
	for (uint32_t i = 0; i < n; i++)
		if (en == NULL || !entry_is_stored(en, w[i].at))
			scatter_put(&b->zeros, w[i].region, w[i].page, NULL);
}

static int
add_group(struct batch *b, const struct plan *p, const struct page_group *g, struct err *e)
{
	struct server *s = b->filler.server;
	const struct wanted *w = &p->pages[g->first];
	struct job *j = &b->jobs[b->njobs];

	/* While touches are recorded nothing is put where it would be mapped at once. */
	if (recording(s) &&
	    (g->kind == GROUP_UNIT || s->objects[g->region].engine == SERVE_COPY))
		return 0;
	if (g->kind == GROUP_UNIT) {
		if (fill_unit(&b->filler, g->region, g->chunk, b->count, e) == -1)
			return damage_bear(s, g->region, e);
		return 0;
	}
	if (g->kind == GROUP_ZERO) {
		place_zeros(b, w, g->n, NULL);
		return 0;
	}
	*j = (struct job){ .object = g->kind == GROUP_HOT ? s->hot->list->object
							  : s->objects[g->region].object,
		.group = g,
		.wanted = w,
		.chunk = g->chunk };
	if (image_reader_entry(b->filler.reader, j->object, j->chunk, &j->entry, e) == -1)
		return damage_leave(s, w[0].region, g->chunk, e);
	if (g->kind == GROUP_CHUNK)
		place_zeros(b, w, g->n, &j->entry);
	if (wanted_upto(b, j) > 0)
		b->njobs++;
	return 0;
}

int
batch_groups(struct batch *b, const struct plan *p, size_t first, size_t end, struct err *e)
{
	b->worked = serve_now();
	for (size_t i = first; i < end; i++)
		if (add_group(b, p, &p->groups[i], e) == -1)
			return -1;
	return run_jobs(b, e);
}

int
batch_chunks(
    struct batch *b, size_t object, uint64_t first, uint64_t end, uint64_t *next, struct err *e)
{
	struct server *s = b->filler.server;
	const struct served_object *o = &s->objects[object];
	int more = 1;

	b->worked = serve_now();
	*next = first;
	while (*next < end && !stopped(b) && !b->away) {
		struct job *j = &b->jobs[b->njobs];

		*j = (struct job){ .object = o->object, .region = object };
		more = image_reader_next(
		    b->filler.reader, o->object, *next, &j->chunk, &j->entry, e);
		if (more == -1) {
			if (damage_leave(s, object, *next, e) == -1)
				return -1;
			*next = image_reader_behind(b->filler.reader);
			continue;
		}
		*next = more == 1 ? j->chunk : UINT64_MAX;
		if (*next >= end)
			break;
		++*next;
		if (hot_check(s, object, j->chunk, &j->entry, e) == -1) {
			if (damage_leave(s, object, j->chunk, e) == -1)
				return -1;
			continue;
		}
		if (o->page_size > PAGE_GRANULE) {
			if (fill_one(&b->filler, object, j->chunk, &j->entry, e) == -1)
				return damage_bear(s, object, e);
			batch_give_way(b);
		} else if (wanted_upto(b, j) > 0 && ++b->njobs == b->max &&
			   run_jobs(b, e) == -1) {
			return -1;
		}
	}
	return run_jobs(b, e);
}
