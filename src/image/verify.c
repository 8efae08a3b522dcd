/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/verify.h"

#include <sys/random.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "format/header.h"
#include "format/trailer.h"
#include "image/hot.h"
#include "image/reader.h"

#define JOB_BYTES (UINT64_C(4) << 20) /* of guest memory per job */

/*
 * The parts of a file lie one behind the other exactly if the places where they end are the
 * places where they begin, each as often, but for the first and the last.  As a sum of
 * what a key that nobody knows makes of these places, that takes no memory, and the parts
 * may come in any order.
 */
struct cover {
	uint64_t key, sum;
};

static uint64_t
mix(const struct cover *c, uint64_t at)
{
	uint64_t x = at + c->key;

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void
cover_add(struct cover *c, uint64_t at, uint64_t len)
{
	c->sum += mix(c, at) - mix(c, at + len);
}

struct job {
	const struct object *object;
	uint64_t first, end; /* chunks */
	struct verify_result found;
	uint64_t hot; /* pages that are in the hot section */
	uint64_t record_bytes;
	struct cover cover;
};

struct verify {
	const struct image *img;
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

/* Each page that the index calls hot is in the table; counts tell that there are no others. */
static int
check_hot(struct image_reader *r, struct job *job, uint64_t chunk, const struct entry *en,
    struct err *e)
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
		left--;
	}
	return 0;
}

static int
run(void *worker, void *slot, struct err *e)
{
	struct image_reader *r = worker;
	struct job *job = slot;
	uint64_t chunk;
	struct entry en;
	int more;

	while ((more = image_reader_next(r, job->object, job->first, &chunk, &en, e)) == 1 &&
	       chunk < job->end) {
		uint32_t pages = image_reader_stored(r, &en);
		const uint8_t *content;

		if (check_hot(r, job, chunk, &en, e) == -1)
			return -1;
		job->first = chunk + 1;
		if (pages == 0)
			continue;
		if (image_reader_load(r, job->object, chunk, &en, e) == -1 ||
		    image_reader_pages(r, pages, &content, e) == -1)
			return -1;
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
verify_object(struct verify *v, const struct object *o, struct err *e)
{
	uint64_t from = 0, nodes;
	struct job *job;
	struct err first = ERR_INIT;
	int more = 1;

	v->stored = v->hot = v->bytes = 0;
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
	return 0;
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
	if (known == size && v->cover.sum == mix(&v->cover, 0) - mix(&v->cover, size))
		return 0;
	if (known == size)
		return err_set(e, ERR_CORRUPT,
		    "%s: two parts of the file overlap, and something else is in it",
		    v->img->path);
	return err_set(e, ERR_CORRUPT, "%s: %llu bytes are accounted for, the file has %llu",
	    v->img->path, (unsigned long long)known, (unsigned long long)v->img->size);
}

int
image_verify(const struct image *img, unsigned nthreads, verify_progress *progress, void *arg,
    struct verify_result *result, struct err *e)
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
	int rc = -1;

	*result = (struct verify_result){ 0 };
	if (getrandom(&v.cover.key, sizeof(v.cover.key), 0) == -1)
		return err_sys(e, "random number");
	v.total = record_bytes(m->regions, m->nregions) + record_bytes(m->states, m->nstates);
	if (m->hot != NULL)
		v.total += m->hot->pages.top.bytes + m->hot->table.top.bytes;
	if (image_reader_new(&v.reader, img, e) == 0 &&
	    pool_new(&v.pool, nthreads, 4 * nthreads, &work, e) == 0 &&
	    verify_hot(&v, e) == 0 && verify_objects(&v, m->states, m->nstates, e) == 0 &&
	    verify_objects(&v, m->regions, m->nregions, e) == 0)
		rc = verify_size(&v, e);
	pool_free(v.pool);
	image_reader_free(v.reader);
	return rc;
}
