/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/hot-write.h"

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "image/pack.h"

struct hot_set {
	size_t n;
	uint64_t keys[]; /* as in the table, ascending */
};

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int
hot_set_new(struct hot_set **out, const struct hot_page *pages, size_t n, struct err *e)
{
	struct hot_set *s = malloc(sizeof(*s) + n * sizeof(*s->keys));

	if (s == NULL)
		return err_sys(e, "hot pages");
	s->n = 0;
	for (size_t i = 0; i < n; i++)
		if (pages[i].at != HOT_ZERO)
			s->keys[s->n++] = hot_encode(&pages[i]);
	qsort(s->keys, s->n, sizeof(*s->keys), compare);
	*out = s;
	return 0;
}

void
hot_set_free(struct hot_set *s)
{
	free(s);
}

/* The number of keys below. */
static size_t
lower_bound(const struct hot_set *s, uint64_t key)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->keys[middle] < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint32_t
hot_set_mask(const struct hot_set *s, const struct geometry *g, uint32_t region, uint64_t chunk,
    uint64_t mask[CHUNK_PAGES_MAX / 64])
{
	const struct hot_page first = { .page = chunk * g->pages, .region = region };
	uint64_t key = hot_encode(&first);
	uint32_t n = 0;

	memset(mask, 0, CHUNK_PAGES_MAX / 8);
	if (s == NULL)
		return 0;
	for (size_t i = lower_bound(s, key); i < s->n && s->keys[i] - key < g->pages; i++) {
		uint64_t page = s->keys[i] - key;

		mask[page / 64] |= UINT64_C(1) << (page % 64);
		n++;
	}
	return n;
}

static int
write_chunks(struct image_writer *w, struct packer *p, const struct hot_page *pages, size_t n,
    uint8_t *chunk, uint8_t *record, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	size_t most = g->chunk_size / HOT_ENTRY_SIZE;
	struct entry en;

	for (size_t at = 0; at < n; at += most) {
		size_t have = MIN(n - at, most);

		for (size_t i = 0; i < have; i++)
			le64enc(chunk + i * HOT_ENTRY_SIZE, hot_encode(&pages[at + i]));
		if (packer_pack(p, chunk, have * HOT_ENTRY_SIZE, &en, record, e) == -1 ||
		    image_writer_chunk(w, at / most, &en, record, e) == -1)
			return -1;
	}
	return image_writer_end(w, 0, e);
}

int
hot_write_table(
    struct image_writer *w, const struct hot_page *pages, size_t n, int level, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *chunk = malloc(g->chunk_size), *record = malloc(packer_bound(g));
	struct packer *p = NULL;
	int rc = -1;

	if (chunk == NULL || record == NULL)
		err_sys(e, "hot table");
	else if (packer_new(&p, g, level, e) == 0 &&
		 image_writer_begin_hot(w, HOT_OBJECT_TABLE, n * HOT_ENTRY_SIZE, e) == 0)
		rc = write_chunks(w, p, pages, n, chunk, record, e);
	packer_free(p);
	free(record);
	free(chunk);
	return rc;
}
