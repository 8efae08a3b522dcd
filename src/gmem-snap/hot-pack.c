/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/hot-pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "image/hot-write.h"
#include "image/pack.h"

/*
 * First all workers look which pages are zero: that settles where each of the others goes.
 * Then they read these, a chunk at a time, and pack them.
 */
#define LOOK_PAGES 256u /* of a job that looks */
#define SLOTS_PER_THREAD 4

struct worker {
	const struct hot_pack_params *params;
	struct geometry g;
	void *reader;
	struct packer *packer;
	uint8_t *buf; /* a chunk */
};

struct job {
	struct hot_page *pages; /* of the list: first to last */
	size_t n;
	uint32_t first; /* packing: number of the first page that is not zero */
	uint32_t npages; /* how many there are */
	struct entry entry;
	uint8_t *record; /* owned */
};

struct packing {
	struct hot_choice *choice;
	const struct hot_pack_params *params;
	struct geometry g;
	struct pool *pool;
	size_t next; /* page of the list */
	uint32_t at; /* its number among those that are not zero */
	bool looking;
};

static void
worker_free(void *arg)
{
	struct worker *w = arg;

	if (w == NULL)
		return;
	if (w->reader != NULL)
		w->params->input.reader_free(w->reader);
	packer_free(w->packer);
	free(w->buf);
	free(w);
}

static int
worker_new(void **out, void *arg, struct err *e)
{
	const struct packing *p = arg;
	const struct hot_input *in = &p->params->input;
	struct worker *w = calloc(1, sizeof(*w));
	int rc = -1;

	if (w == NULL)
		return err_sys(e, "worker");
	w->params = p->params;
	w->g = p->g;
	w->buf = aligned_alloc(PAGE_GRANULE, p->g.chunk_size);
	if (w->buf == NULL)
		err_sys(e, "worker");
	else if (in->reader_new(&w->reader, in->arg, e) == 0)
		rc = packer_new(&w->packer, &p->g, p->params->level, e);
	if (rc == -1)
		worker_free(w);
	else
		*out = w;
	return rc;
}

/* ---- looking ---- */

static int
by_place(const void *a, const void *b)
{
	const struct hot_page *x = *(const struct hot_page *const *)a;
	const struct hot_page *y = *(const struct hot_page *const *)b;

	if (x->region != y->region)
		return x->region < y->region ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

/* Pages in the order in which they lie in memory, or in an image, are read with less work. */
static void
sort_pages(struct hot_page **sorted, struct hot_page *pages, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sorted[i] = &pages[i];
	qsort(sorted, n, sizeof(struct hot_page *), by_place);
}

static int
run_look(void *worker, void *arg, struct err *e)
{
	struct worker *w = worker;
	struct job *job = arg;
	struct hot_page *sorted[LOOK_PAGES] = { NULL };

	sort_pages(sorted, job->pages, job->n);
	for (size_t i = 0; i < job->n; i++) {
		int there = w->params->input.page(w->reader, sorted[i], NULL, e);

		if (there == -1)
			return -1;
		sorted[i]->at = there == 0 ? HOT_ZERO : 0;
	}
	return 0;
}

static bool
next_look(struct packing *p, struct job *job)
{
	struct hot_choice *c = p->choice;

	job->pages = &c->pages[p->next];
	job->n = MIN(c->n - p->next, LOOK_PAGES);
	p->next += job->n;
	return job->n != 0;
}

/* The pages that are not zero are numbered. */
static void
number(struct hot_choice *c)
{
	c->nstored = 0;
	for (size_t i = 0; i < c->n; i++)
		if (c->pages[i].at != HOT_ZERO)
			c->pages[i].at = c->nstored++;
}

/* ---- packing ---- */

static int
run_pack(void *worker, void *arg, struct err *e)
{
	struct worker *w = worker;
	struct job *job = arg;
	struct hot_page *sorted[CHUNK_PAGES_MAX] = { NULL };
	size_t n = 0;
	int rc;

	for (size_t i = 0; i < job->n; i++)
		if (job->pages[i].at != HOT_ZERO)
			sorted[n++] = &job->pages[i];
	qsort(sorted, n, sizeof(sorted[0]), by_place);
	for (size_t i = 0; i < n; i++) {
		uint8_t *to = w->buf + (size_t)(sorted[i]->at - job->first) * PAGE_GRANULE;

		rc = w->params->input.page(w->reader, sorted[i], to, e);
		if (rc == 0)
			return err_set(e, ERR_FAILED, "memory changes while it is read");
		if (rc == -1)
			return -1;
	}
	return packer_pack(w->packer, w->buf, n * PAGE_GRANULE, &job->entry, job->record, e);
}

/* A chunk of pages that are not zero, and those of zeros before and between them. */
static bool
next_pack(struct packing *p, struct job *job)
{
	const struct hot_choice *c = p->choice;
	uint32_t n = 0;

	job->first = p->at;
	job->pages = &c->pages[p->next];
	for (job->n = 0; p->next < c->n && n < p->g.pages; job->n++, p->next++)
		n += c->pages[p->next].at != HOT_ZERO;
	p->at += n;
	job->npages = n;
	return n != 0;
}

static int
put(struct packing *p, const struct job *job, struct err *e)
{
	return image_writer_chunk(
	    p->params->writer, job->first / p->g.pages, &job->entry, job->record, e);
}

/* ---- all of it ---- */

static int
run_jobs(struct packing *p, struct err *e)
{
	bool more = true;

	p->next = p->at = 0;
	while (more || pool_busy(p->pool) != 0) {
		struct job *job = more ? pool_slot(p->pool) : NULL;

		if (job != NULL) {
			more = p->looking ? next_look(p, job) : next_pack(p, job);
			if (more)
				pool_submit(p->pool);
			continue;
		}
		job = pool_collect(p->pool, e);
		if (job == NULL || (!p->looking && put(p, job, e) == -1))
			return -1;
		pool_release(p->pool);
		if (p->params->step(p->params->arg, 0, e) == -1)
			return -1;
	}
	return 0;
}

static int
slots_init(struct packing *p, unsigned nslots, struct err *e)
{
	for (unsigned i = 0; i < nslots; i++) {
		struct job *job = pool_slot_at(p->pool, i);

		job->record = malloc(packer_bound(&p->g));
		if (job->record == NULL)
			return err_sys(e, "packing hot pages");
	}
	return 0;
}

static int
run_phase(struct packing *p, bool looking, struct err *e)
{
	const struct pool_work work = {
		.worker_new = worker_new,
		.worker_free = worker_free,
		.run = looking ? run_look : run_pack,
		.arg = p,
		.job_size = sizeof(struct job),
	};
	unsigned nslots = p->params->nthreads * SLOTS_PER_THREAD;
	uint8_t **records;
	int rc = -1;

	records = calloc(nslots, sizeof(*records));
	if (records == NULL)
		return err_sys(e, "packing hot pages");
	p->looking = looking;
	if (pool_new(&p->pool, p->params->nthreads, nslots, &work, e) == 0) {
		rc = looking ? 0 : slots_init(p, nslots, e);
		if (rc == 0)
			rc = run_jobs(p, e);
		for (unsigned i = 0; i < nslots; i++)
			records[i] = ((struct job *)pool_slot_at(p->pool, i))->record;
		pool_free(p->pool);
	}
	for (unsigned i = 0; i < nslots; i++)
		free(records[i]);
	free(records);
	return rc;
}

int
hot_pack(struct hot_choice *c, const struct hot_pack_params *params, struct err *e)
{
	struct image_writer *w = params->writer;
	struct packing p = {
		.choice = c, .params = params, .g = *image_writer_geometry(params->writer)
	};

	if (run_phase(&p, true, e) == -1)
		return -1;
	number(c);
	if (c->nstored != 0 &&
	    (image_writer_begin_hot(
		 w, HOT_OBJECT_PAGES, c->nstored * (uint64_t)PAGE_GRANULE, e) == -1 ||
		run_phase(&p, false, e) == -1 || image_writer_end(w, 0, e) == -1))
		return -1;
	return hot_write_table(w, c->pages, c->n, params->level, e);
}
