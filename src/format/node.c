/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/node.h"

#include <string.h>
#include <sys/endian.h>

#include "format/header.h"

/*
 * link:	0 u64 offset	8 u64 stored	16 u64 bytes	24 u64 hot
 *		32 SHA-256 of the child
 * entry:	0 u64 offset	8 u32 length	12 u32 flags (reserved)
 *		16 u64 checksum	24 mask of stored pages	24+m mask of hot pages, stored too
 *		zeros to the entry size
 */
void
link_encode(uint8_t *buf, const struct link *l)
{
	le64enc(buf, l->offset);
	le64enc(buf + 8, l->stored);
	le64enc(buf + 16, l->bytes);
	le64enc(buf + 24, l->hot);
	memcpy(buf + 32, l->digest, DIGEST_SIZE);
}

void
link_decode(struct link *l, const uint8_t *buf)
{
	l->offset = le64dec(buf);
	l->stored = le64dec(buf + 8);
	l->bytes = le64dec(buf + 16);
	l->hot = le64dec(buf + 24);
	memcpy(l->digest, buf + 32, DIGEST_SIZE);
}

int
link_check(const struct link *l, struct err *e)
{
	static const struct link none;

	if (l->offset == 0 && memcmp(l, &none, sizeof(none)) != 0)
		return err_set(e, ERR_CORRUPT, "a link to nothing is not all zeros");
	if (l->offset != 0 && (l->offset < HEADER_SIZE || l->offset > IMAGE_SIZE_MAX))
		return err_set(e, ERR_CORRUPT, "a link points at byte %llu",
		    (unsigned long long)l->offset);
	if (l->offset != 0 && l->stored == 0)
		return err_set(e, ERR_CORRUPT, "a link to a node that stores nothing");
	if (l->hot > l->stored)
		return err_set(e, ERR_CORRUPT, "a link inherits pages without a parent");
	if ((l->bytes == 0) != (l->hot == l->stored))
		return err_set(e, ERR_CORRUPT,
		    "a link with %llu bytes of records for %llu pages of them",
		    (unsigned long long)l->bytes, (unsigned long long)(l->stored - l->hot));
	return 0;
}

static void
mask_encode(uint8_t *buf, const uint64_t *mask, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		buf[i] |= (uint8_t)(mask[i / 8] >> (i % 8 * 8));
}

static void
mask_decode(uint64_t *mask, const uint8_t *buf, uint32_t size)
{
	for (uint32_t i = 0; i < size; i += 4)
		mask[i / 8] |= (uint64_t)le32dec(buf + i) << (i % 8 * 8);
}

void
entry_encode(uint8_t *buf, const struct entry *en, const struct geometry *g)
{
	memset(buf, 0, g->entry_size);
	le64enc(buf, en->offset);
	le32enc(buf + 8, en->length);
	le64enc(buf + 16, en->checksum);
	mask_encode(buf + 24, en->stored, g->mask_size);
	mask_encode(buf + 24, en->hot, g->mask_size);
	mask_encode(buf + 24 + g->mask_size, en->hot, g->mask_size);
}

uint32_t
entry_stored(const struct entry *en, const struct geometry *g)
{
	return entry_rank(en, g->pages);
}

uint32_t
entry_hot(const struct entry *en, const struct geometry *g)
{
	return entry_hot_rank(en, g->pages);
}

static uint32_t
mask_rank(const uint64_t *mask, uint32_t page)
{
	uint32_t n = 0, i;

	for (i = 0; i < page / 64; i++)
		n += (uint32_t)__builtin_popcountll(mask[i]);
	if (page % 64 != 0)
		n += (uint32_t)__builtin_popcountll(
		    mask[i] & ((UINT64_C(1) << (page % 64)) - 1));
	return n;
}

uint32_t
entry_rank(const struct entry *en, uint32_t page)
{
	return mask_rank(en->stored, page);
}

uint32_t
entry_hot_rank(const struct entry *en, uint32_t page)
{
	return mask_rank(en->hot, page);
}

unsigned
index_height(const struct geometry *g, uint64_t size)
{
	uint64_t chunks = geometry_chunks(g, size);
	uint64_t nodes = chunks / g->leaf_fanout + (chunks % g->leaf_fanout != 0);
	unsigned height = 0;

	for (; nodes > 1; height++)
		nodes = nodes / NODE_FANOUT + (nodes % NODE_FANOUT != 0);
	return height;
}

uint32_t
record_length_max(uint32_t pages)
{
	uint32_t content = pages * PAGE_GRANULE;

	/* page sums, and a frame as long as zstd ever makes it (ZSTD_compressBound) */
	return SKIP_SIZE + 4 * pages + content + (content >> 8) + 64 + 64;
}

static int
reserved_is_zero(const uint8_t *buf, const struct geometry *g)
{
	uint8_t bits = 0;

	for (uint32_t i = 12; i < 16; i++)
		bits |= buf[i];
	for (uint32_t i = 24 + 2 * g->mask_size; i < g->entry_size; i++)
		bits |= buf[i];
	/* In the second mask only: pages of a parent. */
	for (uint32_t i = 0; i < g->mask_size; i++)
		bits |= buf[24 + g->mask_size + i] & (uint8_t)~buf[24 + i];
	return bits == 0;
}

/* What the masks say is told apart: in the record, or hot. */
static void
masks_decode(struct entry *en, const uint8_t *buf, const struct geometry *g)
{
	mask_decode(en->stored, buf, g->mask_size);
	mask_decode(en->hot, buf + g->mask_size, g->mask_size);
	for (uint32_t i = 0; i < CHUNK_PAGES_MAX / 64; i++)
		en->stored[i] &= ~en->hot[i];
}

int
entry_decode(struct entry *en, const uint8_t *buf, const struct geometry *g, struct err *e)
{
	uint32_t stored;

	memset(en, 0, sizeof(*en));
	en->offset = le64dec(buf);
	en->length = le32dec(buf + 8);
	en->checksum = le64dec(buf + 16);
	masks_decode(en, buf + 24, g);
	if (!reserved_is_zero(buf, g))
		return err_set(e, ERR_CORRUPT, "index entry uses reserved bits");
	if (g->pages < 64 && (en->stored[0] | en->hot[0]) >> g->pages != 0)
		return err_set(e, ERR_CORRUPT, "index entry stores pages beyond its chunk");
	stored = entry_stored(en, g);
	if (stored == 0 && (en->offset | en->length | en->checksum) != 0)
		return err_set(e, ERR_CORRUPT, "index entry has a record but no pages");
	if (stored != 0 && (en->offset < HEADER_SIZE || en->offset > IMAGE_SIZE_MAX))
		return err_set(e, ERR_CORRUPT, "index entry points at byte %llu",
		    (unsigned long long)en->offset);
	if (stored != 0 &&
	    (en->length <= SKIP_SIZE + 4 * stored || en->length > record_length_max(stored)))
		return err_set(
		    e, ERR_CORRUPT, "record of %u bytes for %u pages", en->length, stored);
	return 0;
}

static int
count_entry(struct link *sum, const uint8_t *buf, const struct geometry *g, struct err *e)
{
	struct entry en;

	if (entry_decode(&en, buf, g, e) == -1)
		return -1;
	sum->stored += entry_stored(&en, g) + entry_hot(&en, g);
	sum->hot += entry_hot(&en, g);
	sum->bytes += en.length;
	return 0;
}

static int
count_link(struct link *sum, const uint8_t *buf, const struct link *parent, struct err *e)
{
	struct link l;

	link_decode(&l, buf);
	if (link_check(&l, e) == -1)
		return -1;
	/* Also keeps the sums from wrapping. */
	if (l.stored > parent->stored || l.bytes > parent->bytes || l.hot > parent->hot)
		return err_set(e, ERR_CORRUPT, "a child counts more than its parent");
	sum->stored += l.stored;
	sum->bytes += l.bytes;
	sum->hot += l.hot;
	return 0;
}

int
node_check(const uint8_t *node, unsigned level, unsigned children, const struct link *link,
    const struct geometry *g, struct err *e)
{
	uint32_t size = level == 0 ? g->entry_size : LINK_SIZE;
	struct link sum = { 0 };
	uint8_t behind = 0;
	int rc = 0;

	for (uint32_t i = 0; i < children && rc == 0; i++)
		rc = level == 0 ? count_entry(&sum, node + (size_t)i * size, g, e)
				: count_link(&sum, node + (size_t)i * size, link, e);
	if (rc == -1)
		return -1;
	for (uint32_t i = children * size; i < NODE_SIZE; i++)
		behind |= node[i];
	if (behind != 0)
		return err_set(e, ERR_CORRUPT, "it goes on behind the end of its object");
	if (sum.hot != link->hot)
		return err_set(e, ERR_CORRUPT, "it counts %llu hot pages, its link says %llu",
		    (unsigned long long)sum.hot, (unsigned long long)link->hot);
	if (sum.stored != link->stored || sum.bytes != link->bytes)
		return err_set(e, ERR_CORRUPT,
		    "it counts %llu pages in %llu bytes, its link says %llu in %llu",
		    (unsigned long long)sum.stored, (unsigned long long)sum.bytes,
		    (unsigned long long)link->stored, (unsigned long long)link->bytes);
	return 0;
}
