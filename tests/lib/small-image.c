/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "small-image.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "image/hot-write.h"
#include "image/pack.h"
#include "image/writer.h"

/* xorshift64* */
uint64_t
random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545F4914F6CDD1D);
}

static void
fill_page(uint8_t *page, size_t len, uint64_t *seed)
{
	static const char *const words[] = { "guest ", "memory ", "fault ", "page ", "\0\0\0\1",
		"userfaultfd ", "/usr/lib/", "0x7fff" };
	uint64_t kind = random_next(seed) % 4;

	for (size_t i = 0; i < len;) {
		uint64_t r = random_next(seed);
		const char *word = words[r % 8];
		size_t n = MIN(len - i, strlen(word) + 1);

		if (kind == 0)
			page[i++] = (uint8_t)(r >> 8);
		else if (kind == 1)
			page[i++] = 0x5a;
		else {
			memcpy(page + i, word, n);
			i += n;
		}
	}
}

void
fill_memory(uint8_t *mem, size_t len, unsigned density, uint64_t seed)
{
	uint64_t state = seed * 2 + 1;

	memset(mem, 0, len);
	for (size_t off = 0; off < len; off += 4096)
		if (random_next(&state) >> 32 << 32 >> 60 < density)
			fill_page(mem + off, MIN(len - off, (size_t)4096), &state);
}

static int
put_object(struct image_writer *w, const struct object *o, bool state, const uint8_t *mem,
    const struct hot_set *set, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *record = malloc(packer_bound(g));
	uint64_t hot[CHUNK_PAGES_MAX / 64];
	struct packer *p = NULL;
	struct entry en;
	int rc = -1;

	if (record == NULL || packer_new(&p, g, 1, e) == -1 ||
	    image_writer_begin(w, o, state, e) == -1)
		goto out;
	for (uint64_t off = 0; off < o->size; off += g->chunk_size) {
		size_t n = MIN(o->size - off, g->chunk_size);

		hot_set_mask(set, g, 0, off / g->chunk_size, hot);
		if (packer_pack_cold(p, mem + off, n, hot, &en, record, e) == -1 ||
		    image_writer_chunk(w, off / g->chunk_size, &en, record, e) == -1)
			goto out;
	}
	rc = image_writer_end(w, 0, e);
out:
	packer_free(p);
	free(record);
	return rc;
}

/* What is hot and no zeros, side by side; sets `at`. */
static int
put_hot_pages(struct image_writer *w, const uint8_t *mem, size_t len, struct hot_page *hot,
    size_t n, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *record = malloc(packer_bound(g)), *pages = calloc(n + 1, 4096);
	struct packer *p = NULL;
	uint32_t at = 0;
	int rc = -1;

	for (size_t i = 0; i < n; i++) {
		size_t off = hot[i].page * 4096, have = MIN(len - off, (size_t)4096);

		hot[i].at = memory_is_zero(mem + off, have) ? HOT_ZERO : at;
		if (hot[i].at != HOT_ZERO)
			memcpy(pages + (size_t)at++ * 4096, mem + off, have);
	}
	if (record == NULL || packer_new(&p, g, 1, e) == -1)
		goto out;
	rc = at == 0 ? 0 : image_writer_begin_hot(w, HOT_OBJECT_PAGES, at * UINT64_C(4096), e);
	for (size_t off = 0; off < (size_t)at * 4096 && rc == 0; off += g->chunk_size) {
		size_t have = MIN((size_t)at * 4096 - off, g->chunk_size);
		struct entry en;

		if (packer_pack(p, pages + off, have, &en, record, e) == -1 ||
		    image_writer_chunk(w, off / g->chunk_size, &en, record, e) == -1)
			rc = -1;
	}
	if (rc == 0 && at != 0)
		rc = image_writer_end(w, 0, e);
out:
	packer_free(p);
	free(pages);
	free(record);
	return rc;
}

int
small_image(
    const char *path, const uint8_t *mem, size_t len, uint32_t chunk_size, struct err *e)
{
	return small_hot_image(path, mem, len, chunk_size, NULL, 0, NULL, e);
}

int
small_hot_image(const char *path, const uint8_t *mem, size_t len, uint32_t chunk_size,
    struct hot_page *hot, size_t n, const struct hot_page *table, struct err *e)
{
	struct image_params params = {
		.chunk_size = chunk_size, .level = 1, .replace = true, .hot = n != 0
	};
	size_t low = (len / 8192 + 1) * 4096;
	struct segment segments[] = { { 0, 0, MIN(low, len) },
		{ UINT64_C(1) << 32, low, len - low } };
	struct object ram = { .name = "ram",
		.kind = "memfd",
		.size = len,
		.page_size = 4096,
		.segments = segments,
		.nsegments = low < len ? 2 : 1 };
	static const char text[] = "device state of nothing in particular";
	struct object device = { .name = "device", .kind = "test", .size = sizeof(text) };
	/* Of a version to come: who rewrites the image keeps them. */
	struct unknown key = { (const uint8_t *)"\x67unknown\x81\x07", 10, NULL };
	struct pair note = { "purpose", "test" };
	struct image_writer *w = NULL;
	struct hot_set *set = NULL;
	uint8_t root[DIGEST_SIZE];
	int rc = -1;

	if (image_writer_new(&w, path, &params, e) == -1)
		return -1;
	if (n != 0 && (put_hot_pages(w, mem, len, hot, n, e) == -1 ||
			  hot_write_table(w, table != NULL ? table : hot, n, 1, e) == -1 ||
			  hot_set_new(&set, hot, n, e) == -1))
		goto out;
	image_writer_manifest(w)->annotations = (struct pairs){ &note, 1 };
	image_writer_manifest(w)->unknown = &key;
	ram.unknown = &key;
	if (put_object(w, &device, true, (const uint8_t *)text, NULL, e) == 0 &&
	    put_object(w, &ram, false, mem, set, e) == 0)
		rc = image_writer_commit(w, root, e);
out:
	hot_set_free(set);
	image_writer_free(w);
	return rc;
}
