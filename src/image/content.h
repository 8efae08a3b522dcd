/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_CONTENT_H
#define GMEM_IMAGE_CONTENT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/hash.h"
#include "format/node.h"

/*
 * The content digest of an object: SHA-256 over its pages, gmem-image(5).  It depends on the
 * bytes alone, not on chunks, compression or which pages are hot, and stays right when the
 * image is written anew.  What costs time is a digest for each page, which any number of
 * workers make as items; who has them in ascending order adds them up.
 */
#define CONTENT_ITEM_SIZE (8u + DIGEST_SIZE) /* number and SHA-256 of a page */

/* Room for the items of a chunk. */
static inline size_t
content_items_max(const struct geometry *g)
{
	return (size_t)g->pages * CONTENT_ITEM_SIZE;
}

/*
 * Items of the pages of a chunk of len bytes that are not zero, those that its entry calls
 * stored or hot: how many bytes of them.
 */
size_t content_of_chunk(uint8_t *items, const struct geometry *g, uint64_t chunk,
    const void *bytes, size_t len, const struct entry *en);

/*
 * The same of a chunk in an image: its stored pages side by side (NULL if there are none).
 * hot: the digest of each of its hot pages, in their order; a page of zeros has one of zeros.
 */
size_t content_of_record(uint8_t *items, const struct geometry *g, uint64_t chunk,
    const uint8_t *pages, const struct entry *en, const uint8_t (*hot)[DIGEST_SIZE]);

/* The digest of one page of 4096 bytes; zeros for a page of zeros. */
void content_of_page(uint8_t digest[DIGEST_SIZE], const uint8_t *page);

/*
 * The digest of an object: begin, hash_stream_add of all items in ascending order, and end
 * with its size in bytes.
 */
void content_begin(struct hash_stream *sum);
void content_end(struct hash_stream *sum, uint64_t size, uint8_t digest[DIGEST_SIZE]);

#endif
