/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_NODE_H
#define GMEM_FORMAT_NODE_H

#include <stdint.h>

#include "base/err.h"
#include "codec/hash.h"
#include "format/layout.h"

/*
 * The index of an object is a tree of nodes of one size.  A leaf holds an
 * entry for each chunk, an inner node a link for each child.  A child that
 * holds nothing but zero pages is not stored: its link is all zeros.  Links
 * carry the SHA-256 of the child, so the hash of the top binds everything.
 *
 * Pages that are needed first may be hot: their bytes lie side by side in the hot
 * section of the image and not in the record of their chunk.
 */
#define NODE_SIZE 4096u
#define NODE_FRAME_SIZE (SKIP_SIZE + NODE_SIZE)
#define LINK_SIZE 64u
#define NODE_FANOUT (NODE_SIZE / LINK_SIZE)

struct link {
	uint64_t offset; /* of the child's frame in the file, 0: all zero */
	uint64_t stored; /* pages stored below, hot ones too */
	uint64_t bytes; /* bytes of the records below */
	uint64_t hot; /* pages below that lie in the hot section */
	uint8_t digest[DIGEST_SIZE];
};

/* A chunk.  Pages in neither mask are zero, and none is in both. */
struct entry {
	uint64_t offset; /* of its record in the file, 0: it has none */
	uint32_t length; /* of the record */
	uint64_t checksum; /* XXH3-64 of the record's page sums */
	uint64_t stored[CHUNK_PAGES_MAX / 64]; /* pages in the record */
	uint64_t hot[CHUNK_PAGES_MAX / 64]; /* pages in the hot section */
};

void link_encode(uint8_t *buf, const struct link *l);
void link_decode(struct link *l, const uint8_t *buf);

/* ERR_CORRUPT if the link contradicts itself: counts without a child, or a child without. */
int link_check(const struct link *l, struct err *e);

/* buf is g->entry_size bytes. */
void entry_encode(uint8_t *buf, const struct entry *en, const struct geometry *g);

/*
 * ERR_CORRUPT if the entry contradicts itself: a record without pages, pages
 * without a record, masks or lengths outside what the chunk allows.  Whether hot
 * pages are allowed at all is checked by the counts of links.
 */
int entry_decode(struct entry *en, const uint8_t *buf, const struct geometry *g, struct err *e);

/* Pages of the entry's record, and those among the first `page` of the chunk. */
uint32_t entry_stored(const struct entry *en, const struct geometry *g);
uint32_t entry_rank(const struct entry *en, uint32_t page);

/* Its pages that are hot, and those among the first `page` of the chunk. */
uint32_t entry_hot(const struct entry *en, const struct geometry *g);
uint32_t entry_hot_rank(const struct entry *en, uint32_t page);

/* The page is in the chunk's record. */
static inline bool
entry_is_stored(const struct entry *en, uint32_t page)
{
	return (en->stored[page / 64] >> (page % 64) & 1) != 0;
}

/* The page is in the hot section. */
static inline bool
entry_is_hot(const struct entry *en, uint32_t page)
{
	return (en->hot[page / 64] >> (page % 64) & 1) != 0;
}

/* The page is zero: it is nowhere. */
static inline bool
entry_is_zero(const struct entry *en, uint32_t page)
{
	return !entry_is_stored(en, page) && !entry_is_hot(en, page);
}

/*
 * ERR_CORRUPT unless a node, `level` levels above the leaves, is what its link
 * says: each child is sound, the counts are the sums of the children's, and
 * nothing is behind the first `children`.  So no tree, whatever it links to,
 * can have more leaves than its top has bytes of records and hot pages.
 */
int node_check(const uint8_t *node, unsigned level, unsigned children, const struct link *link,
    const struct geometry *g, struct err *e);

/* How many levels of inner nodes the index of an object of `size` bytes has. */
unsigned index_height(const struct geometry *g, uint64_t size);

/* The largest record of a chunk of n stored pages. */
uint32_t record_length_max(uint32_t pages);

#endif
