/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "base/pool.h"
#include "cli/json.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "gmem-inspect/inspect.h"
#include "gmem-inspect/text.h"
#include "image/reader.h"

/*
 * Workers decode stretches of an object, this thread writes them in order and
 * makes holes of the zeros between.
 */
#define STRETCH ((uint64_t)2 << 20) /* of memory per job: at least a chunk of any size */

_Static_assert(STRETCH >= CHUNK_SIZE_MAX, "a job holds a chunk");

struct job {
	const struct geometry *g;
	const struct object *object;
	uint64_t first, end; /* chunks */
	uint64_t packed; /* bytes of the records */
	uint8_t *buf; /* borrowed, STRETCH bytes: from the first chunk on */
	uint64_t stored[STRETCH / PAGE_GRANULE / 64];
};

struct extract {
	const struct image *img;
	struct out *out;
	struct pool *pool;
	struct image_reader *reader; /* for walking the index */
	uint8_t *buffers; /* owned */
	struct progress progress;
	uint64_t done, total; /* bytes of records */
	uint64_t at; /* in the object that is being written */
	uint64_t written; /* bytes that are no holes */
};

static volatile sig_atomic_t stopped_by;

static void
on_signal(int sig)
{
	stopped_by = sig;
}

/* A signal is an error like others: not even under another name is anything left. */
static void
catch_signals(void)
{
	const struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static int
check_stopped(struct err *e)
{
	if (stopped_by == 0)
		return 0;
	err_set(e, ERR_INTERRUPTED, "interrupted by signal %d", (int)stopped_by);
	e->sysno = stopped_by;
	return -1;
}

/* ---- workers ---- */

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

static void
place_pages(struct job *job, uint64_t at, const struct entry *en, const uint8_t *packed)
{
	for (uint32_t page = 0; page < job->g->pages; page++) {
		uint64_t to = at / PAGE_GRANULE + page;

		if (!entry_is_stored(en, page))
			continue;
		memcpy(job->buf + to * PAGE_GRANULE, packed, PAGE_GRANULE);
		packed += PAGE_GRANULE;
		job->stored[to / 64] |= UINT64_C(1) << (to % 64);
	}
}

static int
place_hot(struct image_reader *r, struct job *job, uint64_t chunk, const struct entry *en,
    struct err *e)
{
	uint64_t first = chunk * job->g->pages, base = job->first * job->g->pages;

	for (uint32_t page = 0; page < job->g->pages; page++) {
		uint64_t to = first + page - base;
		const uint8_t *bytes;
		struct place p;

		if (!entry_is_hot(en, page))
			continue;
		if (image_reader_place(r, job->object, first + page, &p, e) == -1 ||
		    image_reader_get(r, &p, &bytes, e) == -1)
			return -1;
		memcpy(job->buf + to * PAGE_GRANULE, bytes, PAGE_GRANULE);
		job->stored[to / 64] |= UINT64_C(1) << (to % 64);
	}
	return 0;
}

static int
run(void *worker, void *slot, struct err *e)
{
	struct image_reader *r = worker;
	struct job *job = slot;
	uint64_t from = job->first, chunk;
	struct entry en;
	int more;

	memset(job->stored, 0, sizeof(job->stored));
	job->packed = 0;
	while ((more = image_reader_next(r, job->object, from, &chunk, &en, e)) == 1 &&
	       chunk < job->end) {
		const uint8_t *pages = NULL;

		if (en.length != 0 &&
		    (image_reader_load(r, job->object, chunk, &en, e) == -1 ||
			image_reader_pages(r, image_reader_stored(r, &en), &pages, e) == -1))
			return -1;
		place_pages(job, (chunk - job->first) * job->g->chunk_size, &en, pages);
		if (place_hot(r, job, chunk, &en, e) == -1)
			return -1;
		job->packed += en.length;
		from = chunk + 1;
	}
	return more == -1 ? -1 : 0;
}

/* ---- the owner ---- */

/* Pages [first, last) of the job, and the hole before them. */
static int
put_run(struct extract *x, const struct job *job, uint64_t first, uint64_t last, struct err *e)
{
	uint64_t base = job->first * job->g->chunk_size;
	uint64_t start = base + first * PAGE_GRANULE;
	uint64_t end = MIN(base + last * PAGE_GRANULE, job->object->size);

	if (out_skip(x->out, start - x->at, e) == -1 ||
	    out_write(x->out, job->buf + first * PAGE_GRANULE, (size_t)(end - start), e) == -1)
		return -1;
	x->written += end - start;
	x->at = end;
	return 0;
}

static bool
has_page(const struct job *job, uint64_t page)
{
	return (job->stored[page / 64] >> (page % 64) & 1) != 0;
}

static int
put_job(struct extract *x, const struct job *job, struct err *e)
{
	const uint64_t npages = STRETCH / PAGE_GRANULE;
	uint64_t first, last = 0;

	for (;;) {
		for (first = last; first < npages && !has_page(job, first); first++)
			;
		for (last = first; last < npages && has_page(job, last); last++)
			;
		if (first == last)
			return 0;
		if (put_run(x, job, first, last, e) == -1)
			return -1;
	}
}

static int
collect(struct extract *x, struct err *e)
{
	const struct job *job = pool_collect(x->pool, e);

	if (job == NULL || check_stopped(e) == -1 || put_job(x, job, e) == -1)
		return -1;
	x->done += job->packed;
	pool_release(x->pool);
	progress_update(&x->progress, x->done, x->total);
	return 0;
}

/* The next stretch from *from on that stores something: 1, 0 if there is none. */
static int
next_job(
    struct extract *x, const struct object *o, uint64_t *from, struct job *job, struct err *e)
{
	uint64_t span = STRETCH / x->img->g.chunk_size, chunk;
	struct entry en;
	int more;

	more = image_reader_next(x->reader, o, *from, &chunk, &en, e);
	if (more != 1)
		return more;
	job->g = &x->img->g;
	job->object = o;
	job->first = chunk;
	job->end = *from = (chunk / span + 1) * span;
	return 1;
}

static int
extract_object(struct extract *x, const struct object *o, struct err *e)
{
	struct err index = ERR_INIT;
	uint64_t from = 0;
	int more = 1;

	x->at = 0;
	while (more == 1 || pool_busy(x->pool) != 0) {
		struct job *job = more == 1 ? pool_slot(x->pool) : NULL;

		if (job == NULL) {
			if (collect(x, e) == -1)
				return -1;
			continue;
		}
		more = next_job(x, o, &from, job, &index);
		if (more == 1)
			pool_submit(x->pool);
	}
	if (more == -1) {
		*e = index;
		return -1;
	}
	return out_skip(x->out, o->size - x->at, e);
}

/* The jobs' buffers in one piece, whose memory comes as it is used. */
static int
give_buffers(struct extract *x, unsigned nslots, struct err *e)
{
	x->buffers = malloc(nslots * STRETCH);
	if (x->buffers == NULL)
		return err_sys(e, "extract");
	for (unsigned i = 0; i < nslots; i++)
		((struct job *)pool_slot_at(x->pool, i))->buf = x->buffers + i * STRETCH;
	return 0;
}

static int
extract_all(
    struct extract *x, const struct object *list, size_t n, unsigned nthreads, struct err *e)
{
	const struct pool_work work = {
		.worker_new = worker_new,
		.worker_free = worker_free,
		.run = run,
		.arg = (void *)(uintptr_t)x->img,
		.job_size = sizeof(struct job),
	};
	unsigned nslots = 2 * nthreads + 1;
	int rc = -1;

	for (size_t i = 0; i < n; i++)
		x->total += list[i].top.bytes;
	if (image_reader_new(&x->reader, x->img, e) == 0 &&
	    pool_new(&x->pool, nthreads, nslots, &work, e) == 0)
		rc = give_buffers(x, nslots, e);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = extract_object(x, &list[i], e);
	pool_free(x->pool);
	image_reader_free(x->reader);
	free(x->buffers);
	return rc;
}

/* What of the image is wanted. */
static int
choose(const struct inspect *in, const struct object **list, size_t *n, struct err *e)
{
	const struct manifest *m = &in->img->manifest;
	const struct options *opt = in->opt;

	*list = m->regions;
	*n = m->nregions;
	if (opt->region != NULL || opt->state != NULL) {
		*list = opt->region != NULL ? manifest_region(m, opt->region)
					    : manifest_state(m, opt->state);
		*n = 1;
	}
	if (*list == NULL || *n == 0)
		return err_set(e, ERR_FAILED, "%s: no %s%s%s", in->img->path,
		    opt->state != NULL ? "state" : "memory region",
		    opt->state != NULL || opt->region != NULL ? " is called " : "",
		    opt->state != NULL    ? opt->state
		    : opt->region != NULL ? opt->region
					  : "");
	return 0;
}

static int
extract_json(const struct inspect *in, const struct extract *x, uint64_t size, struct err *e)
{
	json_t *json = json_output();

	json_object_set_new(json, "image", text_json(in->img->path));
	json_object_set_new(json, "root", json_digest(in->img->root));
	json_object_set_new(json, "output", text_json(in->opt->output));
	json_put(json, "size", size);
	json_put(json, "stored_bytes", x->written);
	return json_write(STDOUT_FILENO, json, e);
}

int
verb_extract(struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;
	struct extract x = { .img = in->img, .out = in->out };
	const struct object *list;
	char size[16], written[16];
	uint64_t total;
	size_t n;
	int rc;

	if (choose(in, &list, &n, e) == -1)
		return -1;
	if (out_seekable(x.out))
		catch_signals();
	progress_start(&x.progress, "extract", opt->quiet, opt->progress_fd);
	rc = extract_all(&x, list, n, opt->threads, e);
	total = out_offset(x.out);
	if (rc == 0)
		rc = out_commit(x.out, e);
	progress_end(&x.progress, rc == 0);
	if (rc == -1)
		return -1;
	log_info("%s: %s, %s of it no zeros", opt->output, opt_human(size, total),
	    opt_human(written, x.written));
	return opt->json ? extract_json(in, &x, total, e) : 0;
}
