/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/capture.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "image/content.h"
#include "image/pack.h"

#define JOB_SIZE (UINT64_C(1) << 20) /* bytes of memory, or one chunk if that is larger */
#define READ_SIZE ((size_t)128 << 10) /* the same; what is read at once stays in a L2 cache */
#define SLOTS_PER_THREAD 4

/* Memory of one worker. */
struct worker {
	struct geometry g;
	uint32_t chunk_size;
	size_t read_size;
	struct packer *packer;
	uint8_t *buf; /* read_size */
};

struct job {
	const struct capture_input *in;
	struct hot_region hot;
	uint64_t at; /* in the input, bytes */
	uint64_t chunk; /* the first one, in the object */
	size_t len; /* a multiple of the chunk size but at the object's end */
	struct entry *entries; /* one a chunk */
	uint8_t *records; /* one behind the other */
	bool digest; /* the content is wanted */
	uint8_t *items; /* image/content.h, one behind the other */
	size_t items_len;
};

struct capture {
	struct capture_params params;
	struct geometry g;
	uint64_t job_size;
	struct pool *pool;
	struct entry *entries; /* of all slots */
	uint8_t *records; /* of all slots; touched as far as needed */
	uint8_t *items; /* the same */
};

/* Where in the object the next job begins. */
struct cursor {
	const struct capture_input *in;
	struct hot_region hot;
	uint64_t offset, size; /* the object is [offset, offset + size) of the input */
	uint64_t next, end; /* in the object: what is left of the current run */
};

static void
worker_free(void *arg)
{
	struct worker *w = arg;

	if (w == NULL)
		return;
	packer_free(w->packer);
	free(w->buf);
	free(w);
}

static int
worker_new(void **out, void *arg, struct err *e)
{
	const struct capture *c = arg;
	struct worker *w;

	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return err_sys(e, "worker");
	w->g = c->g;
	w->chunk_size = c->g.chunk_size;
	w->read_size = MAX(READ_SIZE, (size_t)c->g.chunk_size);
	w->buf = aligned_alloc(PAGE_GRANULE, w->read_size);
	if (w->buf == NULL)
		err_sys(e, "worker");
	if (w->buf == NULL || packer_new(&w->packer, &c->g, c->params.level, e) == -1) {
		worker_free(w);
		return -1;
	}
	*out = w;
	return 0;
}

static int
job_run(void *worker, void *arg, struct err *e)
{
	struct worker *w = worker;
	struct job *job = arg;
	struct entry *en = job->entries;
	uint8_t *record = job->records;
	uint64_t hot[CHUNK_PAGES_MAX / 64], chunk = job->chunk;

	job->items_len = 0;
	for (size_t done = 0, n; done < job->len; done += n) {
		n = MIN(w->read_size, job->len - done);
		if (job->in->read(job->in->arg, w->buf, n, job->at + done, e) == -1)
			return -1;
		for (size_t off = 0; off < n; off += w->chunk_size, en++) {
			size_t len = MIN(n - off, w->chunk_size);

			hot_set_mask(job->hot.set, &w->g, job->hot.region, chunk, hot);
			if (packer_pack_cold(
				w->packer, w->buf + off, len, hot, en, record, e) == -1)
				return -1;
			record += en->length;
			if (job->digest)
				job->items_len += content_of_chunk(job->items + job->items_len,
				    &w->g, chunk, w->buf + off, len, en);
			chunk++;
		}
	}
	return 0;
}

/* Gives each slot its part of the buffers. */
static int
slots_init(struct capture *c, unsigned nslots, struct err *e)
{
	size_t nchunks = (size_t)(c->job_size / c->g.chunk_size);
	size_t room = nchunks * packer_bound(&c->g);
	size_t items = nchunks * content_items_max(&c->g);

	c->entries = calloc(nslots * nchunks, sizeof(*c->entries));
	c->records = malloc(nslots * room);
	c->items = malloc(nslots * items);
	if (c->entries == NULL || c->records == NULL || c->items == NULL)
		return err_sys(e, "copying memory");
	for (unsigned i = 0; i < nslots; i++) {
		struct job *job = pool_slot_at(c->pool, i);

		job->entries = c->entries + i * nchunks;
		job->records = c->records + i * room;
		job->items = c->items + i * items;
	}
	return 0;
}

int
capture_new(struct capture **out, const struct capture_params *params, struct err *e)
{
	struct pool_work work = { .worker_new = worker_new,
		.worker_free = worker_free,
		.run = job_run,
		.job_size = sizeof(struct job) };
	unsigned nslots = params->nthreads * SLOTS_PER_THREAD;
	struct capture *c;

	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return err_sys(e, "copying memory");
	c->params = *params;
	c->g = *image_writer_geometry(params->writer);
	c->job_size = MAX(JOB_SIZE, (uint64_t)c->g.chunk_size);
	work.arg = c;
	if (pool_new(&c->pool, params->nthreads, nslots, &work, e) == -1 ||
	    slots_init(c, nslots, e) == -1) {
		capture_free(c);
		return -1;
	}
	*out = c;
	return 0;
}

void
capture_free(struct capture *c)
{
	if (c == NULL)
		return;
	pool_free(c->pool);
	free(c->entries);
	free(c->records);
	free(c->items);
	free(c);
}

static int
source_next(void *arg, uint64_t from, uint64_t *start, uint64_t *end, struct err *e)
{
	return memory_source_next(arg, from, start, end, e);
}

static int
source_read(void *arg, void *buf, size_t len, uint64_t off, struct err *e)
{
	return memory_source_read(arg, buf, len, off, e);
}

struct capture_input
capture_source(struct memory_source *src)
{
	return (struct capture_input){ src, source_next, NULL, source_read };
}

/* Nothing from `next` to there is read. */
static int
skip_to(struct cursor *cur, uint64_t to, struct err *e)
{
	uint64_t from = cur->next;

	cur->next = to;
	if (cur->in->skip == NULL || from >= to)
		return 0;
	return cur->in->skip(cur->in->arg, cur->offset + from, cur->offset + to, e);
}

/* The next run of chunks that may hold data: 1, 0 if there is none, -1. */
static int
next_run(const struct capture *c, struct cursor *cur, struct err *e)
{
	uint64_t start, end;
	int found;

	if (cur->next >= cur->size)
		return 0;
	found = cur->in->next(cur->in->arg, cur->offset + cur->next, &start, &end, e);
	if (found == -1)
		return -1;
	if (found == 0 || start - cur->offset >= cur->size)
		return skip_to(cur, cur->size, e);
	end = align_up(end - cur->offset, c->g.chunk_size);
	cur->end = MIN(end, cur->size);
	start = align_down(start - cur->offset, c->g.chunk_size);
	return skip_to(cur, start, e) == -1 ? -1 : 1;
}

/* Fills the job with the next piece: 1, 0 if nothing is left, -1. */
static int
next_job(const struct capture *c, struct cursor *cur, struct job *job, struct err *e)
{
	int found;

	if (cur->next == cur->end) {
		found = next_run(c, cur, e);
		if (found != 1)
			return found;
	}
	job->in = cur->in;
	job->hot = cur->hot;
	job->digest = image_writer_wants_content(c->params.writer);
	job->at = cur->offset + cur->next;
	job->chunk = cur->next / c->g.chunk_size;
	job->len = (size_t)MIN(cur->end - cur->next, c->job_size - cur->next % c->job_size);
	cur->next += job->len;
	return 1;
}

/* Puts the records of the oldest job into the image. */
static int
collect(struct capture *c, struct err *e)
{
	const struct job *job = pool_collect(c->pool, e);
	const uint8_t *record;
	uint64_t chunk, end;

	if (job == NULL)
		return -1;
	record = job->records;
	chunk = job->chunk;
	for (size_t i = 0; i * c->g.chunk_size < job->len; i++, chunk++) {
		const struct entry *en = &job->entries[i];

		if (image_writer_chunk(c->params.writer, chunk, en, record, e) == -1)
			return -1;
		record += en->length;
	}
	if (job->digest)
		image_writer_content(c->params.writer, job->items, job->items_len);
	end = job->chunk * c->g.chunk_size + job->len;
	pool_release(c->pool);
	return c->params.step(c->params.arg, end, e);
}

int
capture_memory(struct capture *c, const struct capture_input *in, uint64_t offset,
    uint64_t size, const struct hot_region *hot, struct err *e)
{
	struct cursor cur = { .in = in, .hot = *hot, .offset = offset, .size = size };
	struct job *job;
	int more = 1;

	while (more == 1 || pool_busy(c->pool) != 0) {
		job = more == 1 ? pool_slot(c->pool) : NULL;
		if (job == NULL) {
			if (collect(c, e) == -1)
				return -1;
			continue;
		}
		more = next_job(c, &cur, job, e);
		if (more == -1)
			return -1;
		if (more == 1)
			pool_submit(c->pool);
	}
	return c->params.step(c->params.arg, size, e);
}
