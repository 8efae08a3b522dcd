/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "fault.h"
#include "image/pack.h"
#include "image/reader.h"
#include "image/writer.h"

/* Images and plans of gmem-bench-fault. */

#define PAGE 4096u

static struct err e;

static void
must(int rc)
{
	if (rc == -1)
		errx(1, "%s", e.msg);
}

static uint64_t
random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- images ---- */

/* Records of a kind that compress as a guest's heap does (2.5 to 3x with level 1). */
static void
fill_page(uint8_t *page, uint64_t *seed)
{
	static const char *const words[] = { "user", "session", "order", "payment", "pending",
		"shipped", "error", "index", "cache", "token" };
	size_t at = 0;

	while (at < PAGE) {
		uint64_t r = random_next(seed);
		char text[96];
		int n = snprintf(text, sizeof(text),
		    "{\"id\":%u,\"state\":\"%s\",\"of\":\"%s\",\"n\":%08x}",
		    (unsigned)(r >> 50), words[r % 10], words[(r >> 8) % 10],
		    (unsigned)(r >> 16));
		size_t len = MIN((size_t)n, PAGE - at);

		memcpy(page + at, text, len);
		at += len;
	}
	memcpy(page, seed, sizeof(*seed));
}

void
make_image(const char *path, unsigned gib, uint64_t chunks, uint32_t chunk_size)
{
	const struct image_params params = {
		.chunk_size = chunk_size, .level = 1, .replace = true
	};
	struct segment segment = { 0, 0, (uint64_t)gib << 30 };
	struct object o = { .name = "ram",
		.kind = "memfd",
		.size = segment.size,
		.page_size = PAGE,
		.segments = &segment,
		.nsegments = 1 };
	uint64_t seed = 88172645463325252u, all = o.size / chunk_size;
	uint8_t root[DIGEST_SIZE], *buf = malloc(chunk_size), *record;
	struct image_writer *w;
	struct packer *p;
	struct entry en;

	must(image_writer_new(&w, path, &params, &e));
	must(packer_new(&p, image_writer_geometry(w), 1, &e));
	record = malloc(packer_bound(image_writer_geometry(w)));
	if (buf == NULL || record == NULL)
		err(1, "memory");
	must(image_writer_begin(w, &o, false, &e));
	for (uint64_t i = 0; i < chunks; i++) {
		for (uint32_t at = 0; at < chunk_size; at += PAGE)
			fill_page(buf + at, &seed);
		must(packer_pack(p, buf, chunk_size, &en, record, &e));
		must(image_writer_chunk(w, i * all / chunks, &en, record, &e));
	}
	must(image_writer_end(w, 0, &e));
	must(image_writer_commit(w, root, &e));
	image_writer_free(w);
	packer_free(p);
	free(record);
	free(buf);
}

/* ---- plans ---- */

struct stored {
	uint64_t chunk;
	struct entry entry;
};

static struct stored *
list_chunks(struct image_reader *r, const struct object *o, size_t *n)
{
	struct stored *list = NULL;
	uint64_t chunk = 0;
	struct entry en;
	size_t cap = 0;

	for (*n = 0; image_reader_next(r, o, chunk, &chunk, &en, &e) == 1; chunk++) {
		if (en.length == 0) /* all of it is hot */
			continue;
		if (*n == cap) {
			cap = cap * 2 + 1024;
			list = realloc(list, cap * sizeof(*list));
			if (list == NULL)
				err(1, "chunks");
		}
		list[(*n)++] = (struct stored){ chunk, en };
	}
	return list;
}

static void
shuffle(struct stored *list, size_t n, uint64_t *seed)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = random_next(seed) % i;
		struct stored t = list[i - 1];

		list[i - 1] = list[k];
		list[k] = t;
	}
}

/* The rank-th stored page of a chunk. */
static void
aim(struct touch *t, const struct image *img, const struct stored *s, uint32_t rank)
{
	uint32_t page = 0;

	while (!entry_is_stored(&s->entry, page) || entry_rank(&s->entry, page) != rank)
		page++;
	*t = (struct touch){
		.offset = s->chunk * img->g.chunk_size + (uint64_t)page * PAGE,
		.record = s->entry.offset,
		.length = s->entry.length,
		.stored = entry_stored(&s->entry, &img->g),
		.rank = rank,
	};
}

static void
choose(struct plan *p, const struct image *img, struct stored *list, size_t n, enum order order,
    uint64_t *seed)
{
	size_t at = 0;
	uint32_t rank = 0;

	if (order == ORDER_RANDOM)
		shuffle(list, n, seed);
	for (size_t i = 0; i < (size_t)p->nthreads * p->n; i++) {
		uint32_t stored = entry_stored(&list[at].entry, &img->g);
		bool next = order == ORDER_SEQUENTIAL ||
			    (order == ORDER_MIX && random_next(seed) % 1000 < 86);

		if (order == ORDER_SEQUENTIAL && i % p->n == 0) {
			at = i / p->n * (n / p->nthreads);
			rank = 0;
		} else if (order == ORDER_RANDOM) {
			at = i;
			rank = (uint32_t)(random_next(seed) %
					  entry_stored(&list[at].entry, &img->g));
		} else if (next && ++rank == stored) {
			at = (at + 1) % n;
			rank = 0;
		} else if (!next) {
			at = random_next(seed) % n;
			rank = (uint32_t)(random_next(seed) %
					  entry_stored(&list[at].entry, &img->g));
		}
		aim(&p->touches[i], img, &list[at], rank);
	}
}

size_t
plan_bytes(const struct plan *p)
{
	return sizeof(*p) + sizeof(p->touches[0]) * p->nthreads * p->n;
}

struct plan *
plan_make(const struct image *img, enum order order, unsigned nthreads, unsigned n,
    uint64_t seed, char path[32])
{
	const struct object *o = &img->manifest.regions[0];
	struct plan head = {
		.size = o->size, .chunk_size = img->g.chunk_size, .nthreads = nthreads, .n = n
	};
	struct image_reader *r;
	struct stored *list;
	struct plan *p;
	size_t chunks;
	int fd;

	must(image_reader_new(&r, img, &e));
	list = list_chunks(r, o, &chunks);
	if (order == ORDER_RANDOM && chunks < (size_t)nthreads * n)
		head.n = (uint32_t)(chunks / nthreads);
	if (head.n == 0)
		errx(1, "%s: too few chunks are stored", img->path);
	strcpy(path, "/tmp/gmem-bench-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd == -1 || ftruncate(fd, (off_t)plan_bytes(&head)) == -1 ||
	    pwrite(fd, &head, sizeof(head), 0) != sizeof(head))
		err(1, "%s", path);
	close(fd);
	p = plan_map(path);
	choose(p, img, list, chunks, order, &seed);
	for (size_t i = 0; i < (size_t)p->nthreads * p->n; i++)
		must(image_reader_read(r, o, p->touches[i].offset, &p->touches[i].want, 8, &e));
	image_reader_free(r);
	free(list);
	return p;
}

struct plan *
plan_map(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd == -1 || fstat(fd, &st) == -1)
		err(1, "%s", path);
	p = mmap(
	    NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		err(1, "%s", path);
	close(fd);
	return p;
}
