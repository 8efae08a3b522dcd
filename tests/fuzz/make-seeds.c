/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * make-seeds FOLDER: writes the seeds of the fuzz targets, as they are in
 * tests/data/seeds, apart from those that a fuzzer found.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/header.h"
#include "format/trace.h"
#include "format/trailer.h"
#include "image/hot-write.h"
#include "image/pack.h"
#include "image/writer.h"
#include "reseal.h"

static const char *folder;

static void __attribute__((noreturn)) fail(const char *what, const char *why)
{
	fprintf(stderr, "make-seeds: %s: %s\n", what, why);
	exit(1);
}

/* A seed with an optional byte in front. */
static void
put_seed(const char *target, const char *name, int front, const void *bytes, size_t len)
{
	char *path = NULL, *dir = NULL;
	FILE *f;

	if (asprintf(&dir, "%s/%s", folder, target) == -1 ||
	    asprintf(&path, "%s/%s", dir, name) == -1)
		fail(name, "out of memory");
	if (mkdir(dir, 0777) == -1 && errno != EEXIST)
		fail(dir, strerror(errno));
	f = fopen(path, "we");
	if (f == NULL || (front >= 0 && putc(front, f) == EOF) ||
	    fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
		fail(path, strerror(errno));
	free(path);
	free(dir);
}

static void
text_page(uint8_t page[PAGE_GRANULE], uint64_t n)
{
	for (size_t i = 0; i < PAGE_GRANULE; i += 16)
		snprintf((char *)page + i, 16, "page %9llu\n", (unsigned long long)n);
}

struct shape {
	const char *name;
	uint32_t chunk_size;
	uint64_t size; /* of the region */
	uint64_t pages[4]; /* that are not zero, ascending; after the first, 0 ends */
	unsigned npages;
	unsigned nhot; /* the last ones of them, backwards, and page 2, which is zero */
};

static const struct shape shapes[] = {
	{ "plain", 8192, 5 * 4096 + 100, { 0, 1, 4 }, 3, 0 },
	{ "tall", 4096, UINT64_C(33) << 20, { 0, 200, 8447 }, 3, 0 },
	{ "large-chunks", 2 << 20, UINT64_C(5) << 20, { 1, 511, 1279 }, 3, 0 },
	{ "zeros", 65536, 1 << 20, { 0 }, 0, 0 },
	{ "hot", 8192, 5 * 4096 + 100, { 0, 1, 4 }, 3, 2 },
	{ "hot-tall", 4096, UINT64_C(33) << 20, { 0, 200, 8447 }, 3, 3 },
};

#define NHOT 4
_Static_assert(sizeof(shapes[0].pages) / sizeof(shapes[0].pages[0]) == NHOT, "there is room");

/* The list of a shape's hot pages; their number. */
static size_t
list_hot(const struct shape *s, struct hot_page list[NHOT + 1])
{
	size_t n = 0;

	for (unsigned i = 0; i < s->nhot; i++, n++)
		list[n] =
		    (struct hot_page){ .page = s->pages[s->npages - 1 - i], .at = (uint32_t)n };
	if (n != 0)
		list[n++] = (struct hot_page){ .page = 2, .at = HOT_ZERO };
	return n;
}

/* One chunk with the shape's pages in it. */
static void
put_chunk(struct image_writer *w, struct packer *p, const struct shape *s, uint64_t chunk,
    const struct hot_set *set)
{
	const struct geometry *g = image_writer_geometry(w);
	uint64_t start = chunk * g->chunk_size;
	size_t len = (size_t)MIN(s->size - start, g->chunk_size);
	uint8_t *bytes = calloc(1, g->chunk_size + PAGE_GRANULE);
	uint8_t *record = malloc(packer_bound(g));
	uint64_t hot[CHUNK_PAGES_MAX / 64];
	struct err e;
	struct entry en;

	for (unsigned i = 0; i < s->npages; i++)
		if (s->pages[i] / g->pages == chunk)
			text_page(bytes + s->pages[i] * PAGE_GRANULE - start, s->pages[i]);
	hot_set_mask(set, g, 0, chunk, hot);
	if (packer_pack_cold(p, bytes, len, hot, &en, record, &e) == -1 ||
	    image_writer_chunk(w, chunk, &en, record, &e) == -1)
		fail(s->name, e.msg);
	free(bytes);
	free(record);
}

static void
put_region(
    struct image_writer *w, struct packer *p, const struct shape *s, const struct hot_set *set)
{
	struct segment segments[] = { { 0, 0, 4096 }, { UINT64_C(1) << 32, 4096, 4096 } };
	struct object o = { .name = "ram",
		.kind = "memfd",
		.size = s->size,
		.page_size = 4096,
		.segments = segments,
		.nsegments = 2 };
	uint64_t last = UINT64_MAX;
	struct err e;

	if (image_writer_begin(w, &o, false, &e) == -1)
		fail(s->name, e.msg);
	for (unsigned i = 0; i < s->npages; i++) {
		uint64_t chunk = s->pages[i] / image_writer_geometry(w)->pages;

		if (chunk != last)
			put_chunk(w, p, s, chunk, set);
		last = chunk;
	}
	if (image_writer_end(w, 0, &e) == -1)
		fail(s->name, e.msg);
}

/* The hot section, if the shape has one; the set of its pages. */
static struct hot_set *
put_hot(struct image_writer *w, struct packer *p, const struct shape *s)
{
	const struct geometry *g = image_writer_geometry(w);
	struct hot_page list[NHOT + 1];
	uint8_t *page = malloc(g->chunk_size), *record = malloc(packer_bound(g));
	struct hot_set *set = NULL;
	size_t n = list_hot(s, list);
	struct entry en;
	struct err e;

	if (n != 0 && image_writer_begin_hot(w, HOT_OBJECT_PAGES, s->nhot * 4096, &e) == -1)
		fail(s->name, e.msg);
	for (unsigned at = 0; at < s->nhot; at += g->pages) {
		unsigned have = MIN(s->nhot - at, g->pages);

		for (unsigned i = 0; i < have; i++)
			text_page(page + (size_t)i * 4096, list[at + i].page);
		if (packer_pack(p, page, have * 4096, &en, record, &e) == -1 ||
		    image_writer_chunk(w, at / g->pages, &en, record, &e) == -1)
			fail(s->name, e.msg);
	}
	if (n != 0 &&
	    (image_writer_end(w, 0, &e) == -1 || hot_write_table(w, list, n, 1, &e) == -1 ||
		hot_set_new(&set, list, n, &e) == -1))
		fail(s->name, e.msg);
	free(page);
	free(record);
	return set;
}

static void
put_state(struct image_writer *w, struct packer *p)
{
	struct object o = { .name = "device", .kind = "test", .size = 5 };
	uint8_t record[8192];
	struct entry en;
	struct err e;

	if (packer_bound(image_writer_geometry(w)) > sizeof(record) &&
	    image_writer_geometry(w)->chunk_size < 8192)
		fail("device", "record");
	if (image_writer_begin(w, &o, true, &e) == -1 ||
	    packer_pack(p, "state", 5, &en, record, &e) == -1 ||
	    image_writer_chunk(w, 0, &en, record, &e) == -1 || image_writer_end(w, 0, &e) == -1)
		fail("device", e.msg);
}

static char *
make_image(const struct shape *s, size_t *len)
{
	static struct pair facts[] = { { "kind", "qemu" }, { "version", "7.2" } };
	static struct pair notes[] = { { "purpose", "fuzzing" } };
	static const char *command[] = { "vmm", "-m", "16" };
	struct image_params params = {
		.chunk_size = s->chunk_size, .level = 1, .replace = true, .hot = s->nhot != 0
	};
	struct hot_set *set;
	struct image_writer *w;
	struct packer *p;
	struct manifest *m;
	uint8_t root[DIGEST_SIZE];
	char *path, *bytes;
	struct err e;

	if (asprintf(&path, "%s/make-seeds.tmp", folder) == -1 ||
	    image_writer_new(&w, path, &params, &e) == -1 ||
	    packer_new(&p, image_writer_geometry(w), 1, &e) == -1)
		fail(s->name, e.msg);
	m = image_writer_manifest(w);
	m->tool = "gmem seed";
	m->created = "2024-01-01T00:00:00Z";
	m->vmm = (struct pairs){ facts, 2 };
	m->annotations = (struct pairs){ notes, 1 };
	m->command = command;
	m->ncommand = 3;
	set = put_hot(w, p, s);
	put_state(w, p);
	put_region(w, p, s, set);
	hot_set_free(set);
	if (image_writer_commit(w, root, &e) == -1 ||
	    fd_slurp(path, SIZE_MAX, &bytes, len, &e) == -1)
		fail(s->name, e.msg);
	unlink(path);
	free(path);
	packer_free(p);
	image_writer_free(w);
	return bytes;
}

static void
with_state(const char *name, const char *image, size_t len, enum image_state state)
{
	uint8_t *copy = malloc(len);

	memcpy(copy, image, len);
	header_encode_state(copy + HEADER_STATE_OFFSET, state);
	put_seed("image", name, -1, copy, len);
	free(copy);
}

/* The parts of an image are seeds of the other targets. */
static void
put_parts(const char *name, const char *image, size_t len)
{
	const uint8_t *trailer = (const uint8_t *)image + len - TRAILER_SIZE;
	uint64_t off = le64dec(trailer + 24);

	put_seed("header", name, -1, image, HEADER_SIZE);
	put_seed("trailer", name, -1, trailer, TRAILER_SIZE);
	put_seed(
	    "cbor-manifest", name, -1, image + off + SKIP_SIZE, (size_t)le64dec(trailer + 32));
}

/* Every node of the image, as an input of entry-node. */
static void
put_nodes(const struct shape *s, const uint8_t *image, size_t len)
{
	uint8_t seed[3 + LINK_SIZE + NODE_SIZE] = { 0 };
	unsigned n = 0;
	char name[64];

	seed[0] = (uint8_t)__builtin_ctz(s->chunk_size / CHUNK_SIZE_MIN);
	for (size_t i = 0; i + NODE_FRAME_SIZE <= len; i++) {
		size_t used = NODE_SIZE;

		if (le32dec(image + i) != SKIP_NODE || le32dec(image + i + 4) != NODE_SIZE)
			continue;
		memcpy(seed + 3 + LINK_SIZE, image + i + SKIP_SIZE, NODE_SIZE);
		while (used > 0 && seed[2 + LINK_SIZE + used] == 0)
			used--;
		/* An inner node begins with a link, whose counts are small. */
		seed[1] = le64dec(image + i + SKIP_SIZE + 24) == 0 && used > 40 ? 1 : 0;
		seed[2] = 64;
		snprintf(name, sizeof(name), "%s-%u", s->name, n++);
		put_seed("entry-node", name, -1, seed, 3 + LINK_SIZE + used);
	}
}

/* ---- traces ---- */

static struct segment split[] = { { 0, 0, 1 << 20 }, { UINT64_C(1) << 32, 1 << 20, 1 << 20 } };
static struct segment shifted[] = { { 1 << 16, 0, 1 << 20 } };
static const struct object guest[] = {
	{ .name = "ram",
	    .size = 2 << 20,
	    .page_size = 4096,
	    .segments = split,
	    .nsegments = 2 },
	{ .name = "vga", .size = 100000, .page_size = 4096 },
};
static const struct object other_guest[] = {
	{ .name = "vga", .size = 8192, .page_size = 4096 },
	{ .name = "low",
	    .size = 1 << 20,
	    .page_size = 4096,
	    .segments = shifted,
	    .nsegments = 1 },
};

static const struct trace_run runs[] = {
	{ 7, 1, 0, 0, TRACE_READ },
	{ 100, 3, 0, 0, TRACE_WRITE },
	{ 300, 2, 0, 4, TRACE_READ },
	{ 0, 2, 1, 1000, TRACE_WRITE },
	{ 24, 1, 1, 1000, TRACE_READ },
};
static const struct trace_run other_runs[] = {
	{ 1, 1, 0, 2, TRACE_READ },
	{ 85, 2, 1, 3, TRACE_READ },
	{ 200, 4, 1, 3, TRACE_READ },
};

/* The worked example of gmem-trace(5). */
static struct segment whole = { 0, 0, 1 << 20 };
static const struct object small_guest[] = {
	{ .name = "ram",
	    .size = 1 << 20,
	    .page_size = 4096,
	    .segments = &whole,
	    .nsegments = 1 },
};
static const struct trace_run small_runs[] = {
	{ 16, 2, 0, 0, TRACE_READ },
	{ 3, 1, 0, 12, TRACE_WRITE },
};

static void
put_trace(const char *name, const struct object *regions, size_t nregions, const char *end,
    const struct trace_run *list, size_t n, struct unknown *unknown)
{
	static const uint8_t root[DIGEST_SIZE] = { 0x5e, 0xed };
	struct cbor_out bytes;
	struct trace t;
	struct err e;

	if (trace_init(&t, regions, nregions, root, &e) == -1 ||
	    trace_set_runs(&t, list, n, &e) == -1)
		fail(name, e.msg);
	t.tool = "gmem seed";
	t.end = end;
	t.duration_ms = 2345;
	t.unknown = unknown;
	if (unknown != NULL)
		t.root[0] = 1;
	if (trace_encode(&bytes, &t, &e) == -1)
		fail(name, e.msg);
	put_seed("trace", name, -1, bytes.buf, bytes.len);
	cbor_out_free(&bytes);
	trace_free(&t);
}

static void
put_traces(void)
{
	static const uint8_t key[] = { 0x64, 'w', 'h', 'e', 'n', 0x81, 0x07 };
	struct unknown unknown = { key, sizeof(key), NULL };

	put_trace("example", small_guest, 1, TRACE_END_READY, small_runs, 2, NULL);
	put_trace("plain", guest, 2, TRACE_END_SETTLED, runs, 5, NULL);
	put_trace("other", other_guest, 2, TRACE_END_READY, other_runs, 3, &unknown);
	put_trace("nothing", NULL, 0, TRACE_END_EXIT, NULL, 0, NULL);
	put_trace("part", guest, 2, "\033[31mred", runs + 1, 2, NULL);
}

int
main(int argc, char **argv)
{
	char name[64];

	if (argc != 2)
		fail("usage", "make-seeds FOLDER");
	folder = argv[1];
	put_traces();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		size_t len;
		char *image = make_image(&shapes[i], &len);

		put_seed("image", shapes[i].name, -1, image, len);
		snprintf(name, sizeof(name), "%s-resealed", shapes[i].name);
		put_seed("image", name, RESEAL_COUNTS, image, len);
		put_parts(shapes[i].name, image, len);
		put_nodes(&shapes[i], (const uint8_t *)image, len);
		if (i == 0) {
			with_state("streamed", image, len, IMAGE_STREAMED);
			with_state("partial", image, len, IMAGE_PARTIAL);
			put_seed("image", "cut", -1, image, len - 1);
			put_seed("image", "plain-index", RESEAL_INDEX, image, len);
			put_seed("image", "plain-ends", RESEAL_ENDS, image, len);
		}
		free(image);
	}
	return 0;
}
