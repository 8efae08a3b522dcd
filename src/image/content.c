/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/content.h"

#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "image/pack.h"

static const char prefix[] = "gmem content 1"; /* with the NUL */
static const uint8_t zeros[PAGE_GRANULE];

static uint8_t *
put_item(uint8_t *item, uint64_t page, const uint8_t digest[DIGEST_SIZE])
{
	le64enc(item, page);
	memcpy(item + 8, digest, DIGEST_SIZE);
	return item + CONTENT_ITEM_SIZE;
}

/* Of `len` bytes of a page that are not all zero; what is behind them is. */
static uint8_t *
put_page(uint8_t *item, uint64_t page, const uint8_t *bytes, size_t len)
{
	const struct hash_piece pieces[] = { { bytes, len }, { zeros, PAGE_GRANULE - len } };

	le64enc(item, page);
	hash_digest_pieces(item + 8, pieces, len < PAGE_GRANULE ? 2 : 1);
	return item + CONTENT_ITEM_SIZE;
}

size_t
content_of_chunk(uint8_t *items, const struct geometry *g, uint64_t chunk, const void *bytes,
    size_t len, const struct entry *en)
{
	uint8_t *item = items;

	for (uint32_t i = 0; (size_t)i * PAGE_GRANULE < len; i++) {
		const uint8_t *page = (const uint8_t *)bytes + (size_t)i * PAGE_GRANULE;
		size_t have = MIN(len - (size_t)i * PAGE_GRANULE, (size_t)PAGE_GRANULE);

		if (!entry_is_zero(en, i) && !memory_is_zero(page, have))
			item = put_page(item, chunk * g->pages + i, page, have);
	}
	return (size_t)(item - items);
}

size_t
content_of_record(uint8_t *items, const struct geometry *g, uint64_t chunk,
    const uint8_t *pages, const struct entry *en, const uint8_t (*hot)[DIGEST_SIZE])
{
	uint8_t *item = items;

	for (uint32_t i = 0; i < g->pages; i++) {
		uint64_t page = chunk * g->pages + i;

		if (entry_is_stored(en, i)) {
			if (!memory_is_zero(pages, PAGE_GRANULE))
				item = put_page(item, page, pages, PAGE_GRANULE);
			pages += PAGE_GRANULE;
		} else if (entry_is_hot(en, i)) {
			if (!memory_is_zero(*hot, DIGEST_SIZE))
				item = put_item(item, page, *hot);
			hot++;
		}
	}
	return (size_t)(item - items);
}

void
content_of_page(uint8_t digest[DIGEST_SIZE], const uint8_t *page)
{
	if (memory_is_zero(page, PAGE_GRANULE))
		memset(digest, 0, DIGEST_SIZE);
	else
		hash_digest(digest, page, PAGE_GRANULE);
}

void
content_begin(struct hash_stream *sum)
{
	hash_stream_begin(sum);
	hash_stream_add(sum, prefix, sizeof(prefix));
}

void
content_end(struct hash_stream *sum, uint64_t size, uint8_t digest[DIGEST_SIZE])
{
	uint8_t buf[8];

	le64enc(buf, size);
	hash_stream_add(sum, buf, sizeof(buf));
	hash_stream_end(sum, digest);
}
