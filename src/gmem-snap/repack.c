/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/repack.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "image/content.h"
#include "image/pack.h"
#include "image/reader.h"

#define JOB_SIZE (UINT64_C(1) << 20) /* bytes of memory, or a chunk if that is larger */
#define SLOTS_PER_THREAD 4

struct worker {
	const struct repack *r;
	struct image_reader *reader;
	struct packer *packer;
	uint8_t *buf; /* a chunk */
};

struct job {
	const struct object *object;
	const struct hot_set *hot; /* NULL for states */
	uint32_t region;
	uint64_t at, end; /* bytes of the object; at: where a chunk of either image begins */
	struct entry *entries; /* owned: one for each new chunk */
	uint8_t *records; /* owned: one behind the other */
	bool digest; /* the content is wanted */
	uint8_t *items; /* owned: image/content.h, one behind the other */
	size_t items_len;
};

struct repack {
	struct repack_params params;
	struct geometry g; /* of the new image */
	bool alike; /* records may be copied as they are */
	uint64_t job_size;
	struct pool *pool;
	unsigned nslots;
	struct job *slots; /* what they own */
	struct image_reader *reader; /* for walking the index */
};

/* ---- workers ---- */

static void
worker_free(void *arg)
{
	struct worker *w = arg;

	if (w == NULL)
		return;
	image_reader_free(w->reader);
	packer_free(w->packer);
	free(w->buf);
	free(w);
}

static int
worker_new(void **out, void *arg, struct err *e)
{
	const struct repack *r = arg;
	struct worker *w = calloc(1, sizeof(*w));
	int rc = -1;

	if (w == NULL)
		return err_sys(e, "worker");
	w->r = r;
	w->buf = aligned_alloc(PAGE_GRANULE, r->g.chunk_size);
	if (w->buf == NULL)
		err_sys(e, "worker");
	else if (image_reader_new(&w->reader, r->params.from, e) == 0)
		rc = packer_new(&w->packer, &r->g, r->params.level, e);
	if (rc == -1)
		worker_free(w);
	else
		*out = w;
	return rc;
}

/* Both images pack the chunk alike: its record is checked and copied.  1, 0 if not, -1. */
static int
copy_record(struct worker *w, struct job *job, uint64_t chunk, const uint64_t *hot,
    struct entry *en, uint8_t *record, struct err *e)
{
	const struct geometry *g = &w->r->g;
	const uint8_t *pages;
	uint64_t bits = 0;

	if (!w->r->alike)
		return 0;
	if (image_reader_entry(w->reader, job->object, chunk, en, e) == -1)
		return -1;
	for (unsigned i = 0; i < CHUNK_PAGES_MAX / 64; i++)
		bits |= en->hot[i] | hot[i];
	if (bits != 0)
		return 0;
	if (en->length == 0)
		return 1;
	if (image_reader_load(w->reader, job->object, chunk, en, e) == -1 ||
	    image_reader_pages(w->reader, entry_stored(en, g), &pages, e) == -1)
		return -1;
	memcpy(record, image_reader_record(w->reader), en->length);
	if (job->digest)
		job->items_len +=
		    content_of_record(job->items + job->items_len, g, chunk, pages, en, NULL);
	return 1;
}

static int
pack_chunk(struct worker *w, struct job *job, uint64_t at, struct entry *en, uint8_t *record,
    struct err *e)
{
	const struct geometry *g = &w->r->g;
	size_t len = (size_t)MIN(job->object->size - at, g->chunk_size);
	uint64_t hot[CHUNK_PAGES_MAX / 64];
	int copied;

	hot_set_mask(job->hot, g, job->region, at / g->chunk_size, hot);
	copied = copy_record(w, job, at / g->chunk_size, hot, en, record, e);
	if (copied != 0)
		return copied == -1 ? -1 : 0;
	if (image_reader_read(w->reader, job->object, at, w->buf, len, e) == -1)
		return -1;
	if (packer_pack_cold(w->packer, w->buf, len, hot, en, record, e) == -1)
		return -1;
	if (job->digest)
		job->items_len += content_of_chunk(
		    job->items + job->items_len, g, at / g->chunk_size, w->buf, len, en);
	return 0;
}

static int
job_run(void *worker, void *arg, struct err *e)
{
	struct worker *w = worker;
	struct job *job = arg;
	struct entry *en = job->entries;
	uint8_t *record = job->records;

	job->items_len = 0;
	for (uint64_t at = job->at; at < job->end; at += w->r->g.chunk_size, en++) {
		if (pack_chunk(w, job, at, en, record, e) == -1)
			return -1;
		record += en->length;
	}
	return 0;
}

/* ---- the owner ---- */

static int
slots_init(struct repack *r, struct err *e)
{
	size_t nchunks = (size_t)(r->job_size / r->g.chunk_size);

	for (unsigned i = 0; i < r->nslots; i++) {
		struct job *job = pool_slot_at(r->pool, i);

		job->entries = calloc(nchunks, sizeof(*job->entries));
		job->records = malloc(nchunks * packer_bound(&r->g));
		job->items = malloc(nchunks * content_items_max(&r->g));
		r->slots[i] = *job;
		if (job->entries == NULL || job->records == NULL || job->items == NULL)
			return err_sys(e, "copying the image");
	}
	return 0;
}

int
repack_new(struct repack **out, const struct repack_params *params, struct err *e)
{
	struct pool_work work = {
		.worker_new = worker_new,
		.worker_free = worker_free,
		.run = job_run,
		.job_size = sizeof(struct job),
	};
	struct repack *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return err_sys(e, "copying the image");
	r->params = *params;
	r->g = *image_writer_geometry(params->writer);
	r->alike = params->same_level && r->g.chunk_size == params->from->g.chunk_size;
	r->job_size = MAX(MAX(JOB_SIZE, r->g.chunk_size), params->from->g.chunk_size);
	r->nslots = params->nthreads * SLOTS_PER_THREAD;
	r->slots = calloc(r->nslots, sizeof(*r->slots));
	work.arg = r;
	if (r->slots == NULL)
		err_sys(e, "copying the image");
	else if (image_reader_new(&r->reader, params->from, e) == 0 &&
		 pool_new(&r->pool, params->nthreads, r->nslots, &work, e) == 0 &&
		 slots_init(r, e) == 0) {
		*out = r;
		return 0;
	}
	repack_free(r);
	return -1;
}

void
repack_free(struct repack *r)
{
	if (r == NULL)
		return;
	pool_free(r->pool);
	for (unsigned i = 0; r->slots != NULL && i < r->nslots; i++) {
		free(r->slots[i].entries);
		free(r->slots[i].records);
		free(r->slots[i].items);
	}
	image_reader_free(r->reader);
	free(r->slots);
	free(r);
}

/* The next stretch from byte *from on that stores something: 1, 0 if there is none, -1. */
static int
next_job(
    struct repack *r, const struct object *o, uint64_t *from, struct job *job, struct err *e)
{
	const uint64_t size = r->params.from->g.chunk_size;
	struct entry en;
	uint64_t chunk;
	int more;

	more = image_reader_next(r->reader, o, *from / size, &chunk, &en, e);
	if (more != 1)
		return more;
	/* Both chunk sizes divide the job's. */
	job->object = o;
	job->at = align_down(MAX(chunk * size, *from), MAX(size, r->g.chunk_size));
	job->end = MIN(align_down(job->at, r->job_size) + r->job_size, o->size);
	*from = job->end;
	return 1;
}

static int
collect(struct repack *r, struct err *e)
{
	const struct job *job = pool_collect(r->pool, e);
	const struct entry *en;
	const uint8_t *record;
	uint64_t end;

	if (job == NULL)
		return -1;
	en = job->entries;
	record = job->records;
	for (uint64_t at = job->at; at < job->end; at += r->g.chunk_size, en++) {
		if (image_writer_chunk(r->params.writer, at / r->g.chunk_size, en, record, e) ==
		    -1)
			return -1;
		record += en->length;
	}
	if (job->digest)
		image_writer_content(r->params.writer, job->items, job->items_len);
	end = job->end;
	pool_release(r->pool);
	return r->params.step(r->params.arg, end, e);
}

static int
copy_chunks(struct repack *r, const struct object *o, const struct hot_set *hot,
    uint32_t region, struct err *e)
{
	uint64_t from = 0;
	int more = 1;

	while (more == 1 || pool_busy(r->pool) != 0) {
		struct job *job = more == 1 && from < o->size ? pool_slot(r->pool) : NULL;

		if (job == NULL && pool_busy(r->pool) == 0)
			break;
		if (job == NULL) {
			if (collect(r, e) == -1)
				return -1;
			continue;
		}
		job->hot = hot;
		job->region = region;
		job->digest = image_writer_wants_content(r->params.writer);
		more = next_job(r, o, &from, job, e);
		if (more == -1)
			return -1;
		if (more == 1)
			pool_submit(r->pool);
	}
	return 0;
}

int
repack_object(
    struct repack *r, const struct object *o, bool state, uint32_t region, struct err *e)
{
	if (image_writer_begin(r->params.writer, o, state, e) == -1 ||
	    copy_chunks(r, o, state ? NULL : r->params.hot, region, e) == -1)
		return -1;
	return image_writer_end(r->params.writer, 0, e);
}
