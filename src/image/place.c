/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "base/ckd.h"
#include "image/hot.h"
#include "image/reader.h"

/* Where the bytes of a page are, hot or not, and bytes at any place of an object. */

static int
in_object(const struct image *img, const struct object *o, struct err *e)
{
	err_wrap(e, "%s: %s", img->path, o->name);
	return err_damage(e);
}

static uint32_t
region_number(const struct image *img, const struct object *o)
{
	const struct manifest *m = &img->manifest;

	for (uint32_t i = 0; i < m->nregions; i++)
		if (&m->regions[i] == o)
			return i;
	return UINT32_MAX;
}

/* Where page `page` of region o is, which its index calls hot. */
static int
place_hot(struct image_reader *r, const struct object *o, uint64_t page, struct place *p,
    struct err *e)
{
	const struct image *img = image_reader_image(r);
	const struct hot_list *hot;
	uint32_t at, q;

	if (image_hot(img, &hot, e) == -1)
		return -1;
	/* There is one, and only regions have hot pages: the counts of the tops say so. */
	at = hot != NULL ? hot_find(hot, region_number(img, o), page) : UINT32_MAX;
	if (at == UINT32_MAX) {
		err_set(e, ERR_CORRUPT, "page at %#llx is not in the hot table",
		    (unsigned long long)(page * PAGE_GRANULE));
		return in_object(img, o, e);
	}
	p->object = hot->object;
	p->chunk = at / img->g.pages;
	q = at % img->g.pages;
	if (image_reader_entry(r, p->object, p->chunk, &p->entry, e) == -1)
		return -1;
	if (!entry_is_stored(&p->entry, q)) {
		err_set(e, ERR_CORRUPT, "page %u is not stored", at);
		return in_object(img, p->object, e);
	}
	p->rank = entry_rank(&p->entry, q);
	return 1;
}

/* The same with the entry of the page's own chunk at hand. */
static int
place_page(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, uint32_t page, struct place *p, struct err *e)
{
	if (entry_is_hot(en, page))
		return place_hot(r, o, chunk * image_reader_image(r)->g.pages + page, p, e);
	if (!entry_is_stored(en, page))
		return 0;
	*p = (struct place){ o, chunk, *en, entry_rank(en, page) };
	return 1;
}

int
image_reader_place(struct image_reader *r, const struct object *o, uint64_t page,
    struct place *p, struct err *e)
{
	const struct image *img = image_reader_image(r);
	uint64_t chunk = page / img->g.pages;
	struct entry en;

	if (chunk >= image_chunks(img, o))
		return err_set(e, ERR_FAILED, "%s: page %llu is behind its end", o->name,
		    (unsigned long long)page);
	if (image_reader_entry(r, o, chunk, &en, e) == -1)
		return -1;
	return place_page(r, o, chunk, &en, (uint32_t)(page % img->g.pages), p, e);
}

int
image_reader_get(
    struct image_reader *r, const struct place *p, const uint8_t **page, struct err *e)
{
	if (image_reader_ensure(r, p->object, p->chunk, &p->entry, e) == -1)
		return -1;
	return image_reader_page(r, p->rank, page, e);
}

/* ---- bytes ---- */

/* Bytes [off, off + len) of a page of a chunk. */
static int
copy_page(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, uint32_t off, uint8_t *buf, size_t len, struct err *e)
{
	const uint8_t *page;
	struct place p;
	int there;

	there = place_page(r, o, chunk, en, off / PAGE_GRANULE, &p, e);
	if (there == 0)
		memset(buf, 0, len);
	if (there != 1)
		return there;
	if (image_reader_get(r, &p, &page, e) == -1)
		return -1;
	memcpy(buf, page + off % PAGE_GRANULE, len);
	return 0;
}

/*
 * Bytes [off, off + len) of a chunk, those in its record or the hot ones: first all of the one
 * kind, then of the other, so that the record is decoded once.
 */
static int
copy_kind(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, bool hot, uint32_t off, uint8_t *buf, size_t len, struct err *e)
{
	while (len > 0) {
		size_t n = MIN(len, PAGE_GRANULE - off % PAGE_GRANULE);

		if (entry_is_hot(en, off / PAGE_GRANULE) == hot &&
		    copy_page(r, o, chunk, en, off, buf, n, e) == -1)
			return -1;
		buf += n;
		off += (uint32_t)n;
		len -= n;
	}
	return 0;
}

static int
read_piece(struct image_reader *r, const struct object *o, uint64_t off, uint8_t *buf,
    size_t len, struct err *e)
{
	const struct geometry *g = &image_reader_image(r)->g;
	uint64_t chunk = off / g->chunk_size;
	uint32_t within = (uint32_t)(off % g->chunk_size);
	const uint8_t *pages;
	struct entry en;

	if (image_reader_entry(r, o, chunk, &en, e) == -1)
		return -1;
	if (en.length == 0 && entry_hot(&en, g) == 0) {
		memset(buf, 0, len);
		return 0;
	}
	if (en.length != 0 &&
	    (image_reader_load(r, o, chunk, &en, e) == -1 ||
		image_reader_pages(r, image_reader_stored(r, &en), &pages, e) == -1))
		return -1;
	if (copy_kind(r, o, chunk, &en, false, within, buf, len, e) == -1)
		return -1;
	if (entry_hot(&en, g) == 0)
		return 0;
	return copy_kind(r, o, chunk, &en, true, within, buf, len, e);
}

int
image_reader_read(struct image_reader *r, const struct object *o, uint64_t off, void *buf,
    size_t len, struct err *e)
{
	uint32_t chunk_size = image_reader_image(r)->g.chunk_size;

	if (off > o->size || o->size - off < len)
		return err_set(e, ERR_FAILED,
		    "%s: %zu bytes at %#llx are not in its %llu bytes", o->name, len,
		    (unsigned long long)off, (unsigned long long)o->size);
	while (len > 0) {
		size_t n = MIN(len, (size_t)(chunk_size - off % chunk_size));

		if (read_piece(r, o, off, buf, n, e) == -1)
			return -1;
		buf = (uint8_t *)buf + n;
		off += n;
		len -= n;
	}
	return 0;
}
