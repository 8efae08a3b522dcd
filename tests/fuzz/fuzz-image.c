/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "image/hot.h"
#include "image/image.h"
#include "image/reader.h"
#include "image/verify.h"
#include "fuzz.h"
#include "reseal.h"

/*
 * Opens an image, verifies it, reads everything.  An input that does not begin
 * like an image has a byte in front that says how it is sealed again (reseal.h).
 * What verifies can be read, in any order, and the same.
 */

static int scratch_fd = -1;

static int
to_memfd(const uint8_t *image, size_t size)
{
	if (scratch_fd == -1)
		scratch_fd = memfd_create("fuzz", MFD_CLOEXEC);
	must(scratch_fd != -1 && ftruncate(scratch_fd, (off_t)size) == 0);
	must(pwrite(scratch_fd, image, size, 0) == (ssize_t)size);
	return dup(scratch_fd);
}

/* The pages of a chunk, last one first, then all of them; they are the same. */
static void
read_chunk(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, bool good)
{
	uint32_t n = image_reader_stored(r, en);
	const uint8_t *page = NULL, *pages = NULL;
	uint8_t copy[64];
	struct err e = ERR_INIT;
	int last, all;

	must(n > 0);
	if (image_reader_load(r, o, chunk, en, &e) == -1) {
		must(!good);
		return;
	}
	last = image_reader_page(r, n - 1, &page, &e);
	if (last == 0)
		memcpy(copy, page, sizeof(copy));
	if (n > 1)
		image_reader_page(r, 0, &page, &e);
	must(image_reader_load(r, o, chunk, en, &e) == 0);
	all = image_reader_pages(r, n, &pages, &e);
	must(!good || (last == 0 && all == 0));
	if (last == 0 && all == 0)
		must(memcmp(copy, pages + (size_t)(n - 1) * PAGE_GRANULE, sizeof(copy)) == 0);
}

/* Its hot pages, from where they are, and as bytes of the object. */
static void
read_hot(struct image_reader *r, const struct object *o, uint64_t chunk, const struct entry *en,
    bool good)
{
	const struct geometry *g = &image_reader_image(r)->g;
	struct err e = ERR_INIT;
	uint8_t copy[64];

	for (uint32_t i = 0; i < g->pages; i++) {
		uint64_t page = chunk * g->pages + i;
		const uint8_t *bytes;
		struct place p;
		int there;

		if (!entry_is_hot(en, i))
			continue;
		there = image_reader_place(r, o, page, &p, &e);
		must(there != 0 && (there == 1 || !good));
		if (there != 1 || image_reader_get(r, &p, &bytes, &e) == -1) {
			must(!good);
			continue;
		}
		memcpy(copy, bytes, 1);
		if (image_reader_read(r, o, page * PAGE_GRANULE, copy + 1, 1, &e) == 0)
			must(copy[0] == copy[1]);
		else
			must(!good);
	}
}

/* What the hot list says agrees with itself. */
static void
read_list(const struct image *img, bool good)
{
	const struct hot_list *list;
	struct err e = ERR_INIT;
	uint32_t at = 0;

	if (image_hot(img, &list, &e) == -1) {
		must(!good && e.kind == ERR_CORRUPT);
		return;
	}
	must((list != NULL) == (img->manifest.hot != NULL));
	for (size_t i = 0; list != NULL && i < list->n; i++) {
		const struct hot_page *p = &list->pages[i];

		must(p->region < img->manifest.nregions);
		must(p->page * PAGE_GRANULE < img->manifest.regions[p->region].size);
		must(p->at == HOT_ZERO || p->at == at++);
		must(hot_find(list, p->region, p->page) == p->at);
	}
	must(list == NULL || at == list->nstored);
}

static void
read_object(struct image_reader *r, const struct object *o, bool good)
{
	uint64_t chunk = 0, pages = 0, bytes = 0, nodes;
	struct err e = ERR_INIT;
	struct entry en;
	const struct geometry *g = &image_reader_image(r)->g;
	uint8_t buf[100];
	int more;

	while ((more = image_reader_next(r, o, chunk, &chunk, &en, &e)) == 1) {
		pages += image_reader_stored(r, &en) + entry_hot(&en, g);
		bytes += en.length;
		must(bytes <= o->top.bytes);
		if (en.length != 0)
			read_chunk(r, o, chunk, &en, good);
		read_hot(r, o, chunk, &en, good);
		chunk++;
	}
	must(more == -1 || (pages == o->top.stored && bytes == o->top.bytes));
	must(!good || more == 0);
	must(image_reader_nodes(r, o, NULL, NULL, &nodes, &e) == 0 || !good);
	must(image_reader_read(r, o, 0, buf, MIN(o->size, sizeof(buf)), &e) == 0 || !good);
	must(image_reader_read(r, o, o->size - 1, buf, 1, &e) == 0 || !good);
	must(image_reader_read(r, o, o->size, buf, 1, &e) == -1);
	must(image_reader_entry(r, o, (o->size - 1) / 4096 / 512, &en, &e) == 0 || !good);
}

static void
read_all(const struct image *img)
{
	const struct manifest *m = &img->manifest;
	struct verify_result result;
	struct image_reader *r;
	struct err e = ERR_INIT;
	bool good = image_verify(img, 1, NULL, NULL, &result, &e) == 0;

	must(good || e.kind == ERR_CORRUPT);
	must(image_reader_new(&r, img, &e) == 0);
	read_list(img, good);
	if (m->hot != NULL) {
		if (m->hot->pages.size != 0)
			read_object(r, &m->hot->pages, good);
		read_object(r, &m->hot->table, good);
	}
	for (size_t i = 0; i < m->nregions; i++)
		read_object(r, &m->regions[i], good);
	for (size_t i = 0; i < m->nstates; i++)
		read_object(r, &m->states[i], good);
	image_reader_free(r);
}

/* No content has a SHA-256 of zeros: what is wrong is found there, if not before. */
static void
read_deep(struct image *img)
{
	struct manifest *m = &img->manifest;
	struct verify_result result;
	struct err e = ERR_INIT;

	for (size_t i = 0; i < m->nregions; i++)
		m->regions[i].has_digest = true;
	for (size_t i = 0; i < m->nstates; i++)
		m->states[i].has_digest = true;
	if (image_verify_with(img, VERIFY_DEEP, 2, NULL, NULL, &result, &e) == -1)
		must(e.kind == ERR_CORRUPT);
	else
		must(m->nregions + m->nstates == 0);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	enum reseal how = RESEAL_NOTHING;
	struct err e = ERR_INIT;
	struct image *img;
	uint8_t *copy;

	if (size > 0 && data[0] != 0x50) {
		how = (enum reseal)(data[0] % RESEAL_LEVELS);
		data++;
		size--;
	}
	if (size == 0 || size > 1 << 20)
		return 0;
	copy = malloc(size);
	must(copy != NULL);
	memcpy(copy, data, size);
	reseal(copy, size, how);
	if (image_open_fd(&img, to_memfd(copy, size), "fuzz", &e) == 0) {
		read_all(img);
		read_deep(img);
		image_close(img);
	} else {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_INCOMPLETE ||
		     e.kind == ERR_UNSUPPORTED);
	}
	free(copy);
	return 0;
}
