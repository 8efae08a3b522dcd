/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_HOT_H
#define GMEM_IMAGE_HOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/*
 * The hot section of an image: pages that a guest needs first, in the order of
 * their first touch.  Their bytes are the content of one object, side by side.
 */
#define HOT_ZERO UINT32_MAX /* touched, but a page of zeros: it is nowhere */

struct hot_page {
	uint64_t page; /* of 4096 bytes, in its region */
	uint32_t region; /* its number in the manifest */
	uint32_t at; /* number among the pages of the hot object, or HOT_ZERO */
};

struct hot_list {
	const struct hot_page *pages; /* in the order of first touch, each page once */
	size_t n; /* at most HOT_PAGES_MAX */
	const struct object *object; /* whose page `at` it is; NULL: all are zero */
	uint32_t nstored; /* pages of that object */
	/* For hot_find: numbers in `pages`, by open addressing; nslots is a power of two. */
	const uint32_t *slots;
	uint32_t nslots;
};

/*
 * The list, which lives as long as the image; NULL if the image has no hot
 * section.  Read and checked when it is first asked for; any thread may ask.
 * Checked are ranges, counts, and that no page is there twice; that the index
 * says the same of each page is what image_verify proves, and image_reader_place
 * of the page it looks up.
 */
int image_hot(const struct image *img, const struct hot_list **list, struct err *e);

/* The number of a page among those of the hot object; UINT32_MAX: it is not there. */
uint32_t hot_find(const struct hot_list *l, uint32_t region, uint64_t page);

/*
 * The table itself, as it is read: entries of HOT_ENTRY_SIZE bytes that nobody vouches for.
 * Each is checked; more than n are not looked at.
 */
struct hot_table {
	const struct object *regions; /* borrowed */
	size_t nregions, room;
	struct hot_list list; /* of the pages that came */
	struct hot_page *pages; /* owned */
	uint32_t *slots; /* owned; HOT_ZERO: free */
};

int hot_table_new(struct hot_table *t, const struct object *regions, size_t nregions, size_t n,
    struct err *e);
int hot_table_add(struct hot_table *t, const uint8_t *entries, size_t n, struct err *e);
void hot_table_free(struct hot_table *t);

/* Used by image.c: frees what image_hot has made. */
struct hot_cache;
struct hot_cache *hot_cache_new(void);
void hot_cache_free(struct hot_cache *c);

/* An entry of the table in the file; of `at` only whether it is HOT_ZERO. */
uint64_t hot_encode(const struct hot_page *p);

#endif
