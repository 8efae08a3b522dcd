/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_HOT_WRITE_H
#define GMEM_IMAGE_HOT_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/hot.h"
#include "image/writer.h"

/*
 * What writers of a hot section need: the table, and which pages of a chunk are in
 * the section and so not in the chunk's record.  A set is read-only and shared by
 * threads.
 */
struct hot_set;

/* Those of n pages that are stored: `at` is not HOT_ZERO. */
int hot_set_new(struct hot_set **out, const struct hot_page *pages, size_t n, struct err *e);
void hot_set_free(struct hot_set *s);

/*
 * The pages of a chunk that are in the set, for packer_pack_cold; their number.  No set
 * has none.
 */
uint32_t hot_set_mask(const struct hot_set *s, const struct geometry *g, uint32_t region,
    uint64_t chunk, uint64_t mask[CHUNK_PAGES_MAX / 64]);

/* Writes the table: the object behind the hot pages.  n is 1 to HOT_PAGES_MAX. */
int hot_write_table(
    struct image_writer *w, const struct hot_page *pages, size_t n, int level, struct err *e);

#endif
