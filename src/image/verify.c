/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/verify.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "format/header.h"
#include "format/trailer.h"
#include "image/content.h"
#include "image/cover.h"
#include "image/hot.h"
#include "image/reader.h"

#define JOB_BYTES (UINT64_C(4) << 20) /* of guest memory per job */

struct job {
	const struct object *object;
	uint64_t first, end; /* chunks */
	struct verify_result found;
	uint64_t hot; /* pages that are in the hot section */
	uint64_t record_bytes;
	struct cover cover;
	struct deep *deep; /* or NULL: the content is not digested */
	uint8_t *items; /* image/content.h: room for those of all chunks */
	size_t items_len;
};

/* The digests of all hot pages come first: where they belong is known only with their regions.
 */
struct deep {
	struct hash_stream *sum; /* of the object */
	uint8_t *items; /* of all slots */
	uint8_t (*hot)[DIGEST_SIZE]; /* one a page, or NULL: there are none */
	const struct object *hot_pages;
};

struct verify {
	const struct image *img;
	struct deep *deep; /* or NULL */
	struct pool *pool;
	struct image_reader *reader; /* for walking the index */
	verify_progress *progress;
	void *arg;
	struct verify_result *result;
	/* Of the object whose jobs are being collected. */
	uint64_t stored, hot, bytes;
	struct cover cover;
	uint64_t done, total; /* bytes of records, of all objects */
};

static int
worker_new(void **worker, void *arg, struct err *e)
{
	return image_reader_new((struct image_reader **)worker, arg, e);
}

static void
worker_free(void *worker)
{
	image_reader_free(worker);
}

/*
 * Each page that the index calls hot is in the table; counts tell that there are no others.
 * digests: has room for those of a chunk.
 */
static int
check_hot(struct image_reader *r, struct job *job, uint64_t chunk, const struct entry *en,
    uint8_t (*digests)[DIGEST_SIZE], struct err *e)
{
	const struct geometry *g = &image_reader_image(r)->g;
	uint32_t left = entry_hot(en, g);
	struct place place;

	job->hot += left;
	for (uint32_t i = 0; left != 0 && i < g->pages; i++) {
		if (!entry_is_hot(en, i))
			continue;
		if (image_reader_place(r, job->object, chunk * g->pages + i, &place, e) == -1)
			return -1;
		/* All pages of the section are stored: verify_object has counted them. */
		if (job->deep != NULL)
			memcpy(*digests++, job->deep->hot[place.chunk * g->pages + place.rank],
			    DIGEST_SIZE);
		left--;
	}
	return 0;
}

static void
digest_chunk(struct job *job, const struct geometry *g, uint64_t chunk, const struct entry *en,
    const uint8_t *pages, const uint8_t (*hot)[DIGEST_SIZE])
{
	const struct deep *deep = job->deep;
	uint32_t n = entry_stored(en, g);

	if (deep == NULL)
		return;
	if (job->object != deep->hot_pages) {
		job->items_len +=
		    content_of_record(job->items + job->items_len, g, chunk, pages, en, hot);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		content_of_page(
		    deep->hot[chunk * g->pages + i], pages + (size_t)i * PAGE_GRANULE);
}

static int
run(void *worker, void *slot, struct err *e)
{
	struct image_reader *r = worker;
	struct job *job = slot;
	const struct geometry *g = &image_reader_image(r)->g;
	uint8_t hot[CHUNK_PAGES_MAX][DIGEST_SIZE];
	uint64_t chunk;
	struct entry en;
	int more;

	while ((more = image_reader_next(r, job->object, job->first, &chunk, &en, e)) == 1 &&
	       chunk < job->end) {
		uint32_t pages = image_reader_stored(r, &en);
		const uint8_t *content = NULL;

		if (check_hot(r, job, chunk, &en, hot, e) == -1)
			return -1;
		job->first = chunk + 1;
		if (pages == 0) {
			digest_chunk(job, g, chunk, &en, NULL, hot);
			continue;
		}
		if (image_reader_load(r, job->object, chunk, &en, e) == -1 ||
		    image_reader_pages(r, pages, &content, e) == -1)
			return -1;
		digest_chunk(job, g, chunk, &en, content, hot);
		job->found.records++;
		job->found.pages += pages;
		job->record_bytes += en.length;
		cover_add(&job->cover, en.offset, en.length);
	}
	return more == -1 ? -1 : 0;
}

static int
collect(struct verify *v, struct err *e)
{
	const struct job *job = pool_collect(v->pool, e);

	if (job == NULL)
		return -1;
	v->stored += job->found.pages + job->hot;
	v->hot += job->hot;
	v->bytes += job->record_bytes;
	if (job->items_len != 0)
		hash_stream_add(v->deep->sum, job->items, job->items_len);
	v->cover.sum += job->cover.sum;
	v->done += job->record_bytes;
	v->result->records += job->found.records;
	v->result->pages += job->found.pages;
	v->result->bytes += job->found.pages * PAGE_GRANULE;
	pool_release(v->pool);
	if (v->progress != NULL)
		v->progress(v->arg, v->done, v->total);
	return 0;
}

/* Its pages are digested, one by one. */
static bool
digested(const struct verify *v, const struct object *o)
{
	return v->deep != NULL && (o->has_digest || o == v->deep->hot_pages);
}

/* The next stretch of chunks from *from on that may hold something, as a job. */
static int
next_job(
    struct verify *v, const struct object *o, uint64_t *from, struct job *job, struct err *e)
{
	uint64_t span = MAX(JOB_BYTES / v->img->g.chunk_size, 1);
	uint64_t chunk;
	struct entry en;
	int more;

	more = image_reader_next(v->reader, o, *from, &chunk, &en, e);
	if (more != 1)
		return more;
	*job = (struct job){
		.object = o,
		.deep = digested(v, o) ? v->deep : NULL,
		.items = job->items,
		.first = chunk,
		.end = (chunk / span + 1) * span,
		.cover.key = v->cover.key,
	};
	*from = job->end;
	return 1;
}

static void
cover_node(void *arg, uint64_t offset)
{
	cover_add(arg, offset, NODE_FRAME_SIZE);
}

static int
check_content(const struct verify *v, const struct object *o, struct err *e)
{
	char is[DIGEST_TEXT_SIZE], want[DIGEST_TEXT_SIZE];
	uint8_t digest[DIGEST_SIZE];

	if (v->deep == NULL || !o->has_digest)
		return 0;
	content_end(v->deep->sum, o->size, digest);
	if (memcmp(digest, o->digest, DIGEST_SIZE) == 0)
		return 0;
	digest_text(is, digest);
	digest_text(want, o->digest);
	return err_set(e, ERR_CORRUPT,
	    "%s: %s: SHA-256 of its content is %s, recorded is %s: not what was saved",
	    v->img->path, o->name, is, want);
}

static int
verify_object(struct verify *v, const struct object *o, struct err *e)
{
	uint64_t from = 0, nodes;
	struct job *job;
	struct err first = ERR_INIT;
	int more = 1;

	v->stored = v->hot = v->bytes = 0;
	if (v->deep != NULL)
		content_begin(v->deep->sum);
	while (more == 1 || pool_busy(v->pool) != 0) {
		job = more == 1 ? pool_slot(v->pool) : NULL;
		if (job == NULL) {
			if (collect(v, e) == -1)
				return -1;
			continue;
		}
		more = next_job(v, o, &from, job, &first);
		if (more == 1)
			pool_submit(v->pool);
	}
	if (more == -1) {
		*e = first;
		return -1;
	}
	if (v->stored != o->top.stored || v->hot != o->top.hot || v->bytes != o->top.bytes)
		return err_set(e, ERR_CORRUPT,
		    "%s: %s: %llu pages (%llu hot) in %llu bytes, its index says %llu (%llu) "
		    "in %llu",
		    v->img->path, o->name, (unsigned long long)v->stored,
		    (unsigned long long)v->hot, (unsigned long long)v->bytes,
		    (unsigned long long)o->top.stored, (unsigned long long)o->top.hot,
		    (unsigned long long)o->top.bytes);
	if (image_reader_nodes(v->reader, o, cover_node, &v->cover, &nodes, e) == -1)
		return -1;
	v->result->nodes += nodes;
	return check_content(v, o, e);
}

static int
verify_objects(struct verify *v, const struct object *list, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (verify_object(v, &list[i], e) == -1)
			return -1;
	return 0;
}

/* What the table says is zero is so in the index. */
static int
verify_zeros(struct verify *v, const struct hot_list *hot, struct err *e)
{
	const struct object *regions = v->img->manifest.regions;
	struct place place;

	for (size_t i = 0; i < hot->n; i++) {
		const struct hot_page *p = &hot->pages[i];
		int there = 0;

		if (p->at == HOT_ZERO)
			there = image_reader_place(
			    v->reader, &regions[p->region], p->page, &place, e);
		if (there == 1)
			return err_set(e, ERR_CORRUPT,
			    "%s: hot table: entry %zu: page %llu of %s is not zero",
			    v->img->path, i, (unsigned long long)p->page,
			    regions[p->region].name);
		if (there == -1)
			return -1;
	}
	return 0;
}

static int
verify_hot(struct verify *v, struct err *e)
{
	const struct hot_section *h = v->img->manifest.hot;
	const struct hot_list *list;

	if (h == NULL)
		return 0;
	if (h->pages.size != 0 && verify_object(v, &h->pages, e) == -1)
		return -1;
	if (verify_object(v, &h->table, e) == -1 || image_hot(v->img, &list, e) == -1)
		return -1;
	v->result->hot = list->nstored;
	return verify_zeros(v, list, e);
}

static uint64_t
record_bytes(const struct object *list, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += list[i].top.bytes;
	return sum;
}

/* Header, records, nodes, manifest and trailer are the whole file, and each lies alone. */
static int
verify_size(struct verify *v, struct err *e)
{
	uint64_t end = SKIP_SIZE + v->img->manifest_length + TRAILER_SIZE;
	uint64_t known = HEADER_SIZE + v->total + v->result->nodes * NODE_FRAME_SIZE + end;
	uint64_t size = v->img->size;

	cover_add(&v->cover, 0, HEADER_SIZE);
	cover_add(&v->cover, size - MIN(end, size), MIN(end, size));
	if (known == size &&
	    v->cover.sum == cover_mix(&v->cover, 0) - cover_mix(&v->cover, size))
		return 0;
	if (known == size)
		return err_set(e, ERR_CORRUPT,
		    "%s: two parts of the file overlap, and something else is in it",
		    v->img->path);
	return err_set(e, ERR_CORRUPT, "%s: %llu bytes are accounted for, the file has %llu",
	    v->img->path, (unsigned long long)known, (unsigned long long)v->img->size);
}

/* ---- content ---- */

static int
check_recorded(const struct image *img, const struct object *list, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (!list[i].has_digest)
			return err_set(e, ERR_UNRECORDED,
			    "%s: %s: no SHA-256 of its content is recorded in this image "
			    "(gmem-snap --digest does that)",
			    img->path, list[i].name);
	return 0;
}

static int
deep_init(
    struct deep *d, struct pool *pool, unsigned nslots, const struct image *img, struct err *e)
{
	const struct hot_section *h = img->manifest.hot;
	size_t room = MAX(JOB_BYTES, img->g.chunk_size) / PAGE_GRANULE * CONTENT_ITEM_SIZE;
	uint64_t hot = h != NULL ? h->pages.top.stored : 0; /* at most HOT_PAGES_MAX */

	d->sum = hash_stream_new();
	d->items = malloc(nslots * room);
	d->hot = calloc(hot + 1, sizeof(*d->hot));
	d->hot_pages = h != NULL ? &h->pages : NULL;
	if (d->sum == NULL || d->items == NULL || d->hot == NULL)
		return err_sys(e, "digests");
	for (unsigned i = 0; i < nslots; i++)
		((struct job *)pool_slot_at(pool, i))->items = d->items + i * room;
	return 0;
}

static void
deep_fini(struct deep *d)
{
	hash_stream_free(d->sum);
	free(d->items);
	free(d->hot);
}

static int
verify_all(struct verify *v, struct err *e)
{
	const struct manifest *m = &v->img->manifest;

	if (verify_hot(v, e) == -1 || verify_objects(v, m->states, m->nstates, e) == -1 ||
	    verify_objects(v, m->regions, m->nregions, e) == -1)
		return -1;
	return verify_size(v, e);
}

int
image_verify(const struct image *img, unsigned nthreads, verify_progress *progress, void *arg,
    struct verify_result *result, struct err *e)
{
	return image_verify_with(img, 0, nthreads, progress, arg, result, e);
}

int
image_verify_with(const struct image *img, unsigned flags, unsigned nthreads,
    verify_progress *progress, void *arg, struct verify_result *result, struct err *e)
{
	const struct manifest *m = &img->manifest;
	const struct pool_work work = {
		.worker_new = worker_new,
		.worker_free = worker_free,
		.run = run,
		.arg = (void *)(uintptr_t)img,
		.job_size = sizeof(struct job),
	};
	struct verify v = { .img = img, .progress = progress, .arg = arg, .result = result };
	unsigned nslots = 4 * nthreads;
	struct deep deep = { 0 };
	int rc = -1;

	if ((flags & VERIFY_DEEP) != 0) {
		v.deep = &deep;
		if (check_recorded(img, m->states, m->nstates, e) == -1 ||
		    check_recorded(img, m->regions, m->nregions, e) == -1)
			return -1;
	}

	*result = (struct verify_result){ 0 };
	if (getrandom(&v.cover.key, sizeof(v.cover.key), 0) == -1)
		return err_sys(e, "random number");
	v.total = record_bytes(m->regions, m->nregions) + record_bytes(m->states, m->nstates);
	if (m->hot != NULL)
		v.total += m->hot->pages.top.bytes + m->hot->table.top.bytes;
	if (image_reader_new(&v.reader, img, e) == 0 &&
	    pool_new(&v.pool, nthreads, nslots, &work, e) == 0 &&
	    (v.deep == NULL || deep_init(&deep, v.pool, nslots, img, e) == 0))
		rc = verify_all(&v, e);
	pool_free(v.pool);
	deep_fini(&deep);
	image_reader_free(v.reader);
	return rc;
}
