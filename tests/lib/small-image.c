/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "small-image.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
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
    struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *record = malloc(packer_bound(g));
	struct packer *p = NULL;
	struct entry en;
	int rc = -1;

	if (record == NULL || packer_new(&p, g, 1, e) == -1 ||
	    image_writer_begin(w, o, state, e) == -1)
		goto out;
	for (uint64_t off = 0; off < o->size; off += g->chunk_size) {
		size_t n = MIN(o->size - off, g->chunk_size);

		if (packer_pack(p, mem + off, n, &en, record, e) == -1 ||
		    image_writer_chunk(w, off / g->chunk_size, &en, record, e) == -1)
			goto out;
	}
	rc = image_writer_end(w, 0, e);
out:
	packer_free(p);
	free(record);
	return rc;
}

int
small_image(
    const char *path, const uint8_t *mem, size_t len, uint32_t chunk_size, struct err *e)
{
	struct image_params params = { .chunk_size = chunk_size, .level = 1, .replace = true };
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
	struct pair note = { "purpose", "test" };
	struct image_writer *w = NULL;
	uint8_t root[DIGEST_SIZE];
	int rc = -1;

	if (image_writer_new(&w, path, &params, e) == -1)
		return -1;
	image_writer_manifest(w)->annotations = (struct pairs){ &note, 1 };
	if (put_object(w, &device, true, (const uint8_t *)text, e) == 0 &&
	    put_object(w, &ram, false, mem, e) == 0)
		rc = image_writer_commit(w, root, e);
	image_writer_free(w);
	return rc;
}
