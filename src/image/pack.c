/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/pack.h"

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "codec/codec.h"
#include "codec/hash.h"

struct packer {
	struct geometry g;
	struct encoder *enc;
	uint8_t *pages; /* stored pages of the chunk, side by side */
};

int
packer_new(struct packer **out, const struct geometry *g, int level, struct err *e)
{
	struct packer *p;

	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return err_sys(e, "packer");
	p->g = *g;
	p->pages = malloc(g->chunk_size);
	if (p->pages == NULL) {
		err_sys(e, "packer");
		packer_free(p);
		return -1;
	}
	if (encoder_new(&p->enc, level, g->chunk_size, e) == -1) {
		packer_free(p);
		return -1;
	}
	*out = p;
	return 0;
}

void
packer_free(struct packer *p)
{
	if (p == NULL)
		return;
	encoder_free(p->enc);
	free(p->pages);
	free(p);
}

size_t
packer_bound(const struct geometry *g)
{
	return SKIP_SIZE + 4 * (size_t)g->pages + encoder_bound(g->chunk_size);
}

bool
memory_is_zero(const void *p, size_t len)
{
	const unsigned char *b = p;

	/* The first bytes decide for most pages that are not zero. */
	for (size_t i = 0; i < MIN(len, 16); i++)
		if (b[i] != 0)
			return false;
	return len <= 16 || memcmp(b, b + 16, len - 16) == 0;
}

/* Marks the pages that are not zero, and not hot; their number. */
static uint32_t
classify(const uint8_t *chunk, size_t len, struct entry *en)
{
	uint32_t n = 0;

	for (uint32_t i = 0; (size_t)i * PAGE_GRANULE < len; i++) {
		size_t off = (size_t)i * PAGE_GRANULE;

		if (entry_is_hot(en, i) ||
		    memory_is_zero(chunk + off, MIN(len - off, PAGE_GRANULE)))
			continue;
		en->stored[i / 64] |= UINT64_C(1) << (i % 64);
		n++;
	}
	return n;
}

/* The marked pages side by side: where they are, if they lie so already, else copied. */
static const uint8_t *
gather(struct packer *p, const uint8_t *chunk, size_t len, const struct entry *en, uint32_t n)
{
	uint8_t *to = p->pages;

	if ((size_t)n * PAGE_GRANULE == len)
		return chunk;
	for (uint32_t i = 0; (size_t)i * PAGE_GRANULE < len; i++) {
		size_t off = (size_t)i * PAGE_GRANULE, have = MIN(len - off, PAGE_GRANULE);

		if (!entry_is_stored(en, i))
			continue;
		memcpy(to, chunk + off, have);
		memset(to + have, 0, PAGE_GRANULE - have);
		to += PAGE_GRANULE;
	}
	return p->pages;
}

/* The skippable frame in front of the data: a checksum for each page. */
static size_t
put_sums(const uint8_t *pages, uint32_t n, struct entry *en, uint8_t *record)
{
	uint8_t *sums = record + SKIP_SIZE;

	le32enc(record, SKIP_SUMS);
	le32enc(record + 4, 4 * n);
	for (uint32_t i = 0; i < n; i++)
		le32enc(sums + (size_t)4 * i,
		    hash_page_sum(pages + (size_t)i * PAGE_GRANULE, PAGE_GRANULE));
	en->checksum = hash_checksum(sums, 4 * (size_t)n);
	return SKIP_SIZE + 4 * (size_t)n;
}

int
packer_pack(struct packer *p, const void *chunk, size_t len, struct entry *en, void *record,
    struct err *e)
{
	return packer_pack_cold(p, chunk, len, NULL, en, record, e);
}

int
packer_pack_cold(struct packer *p, const void *chunk, size_t len, const uint64_t *hot,
    struct entry *en, void *record, struct err *e)
{
	const uint8_t *pages;
	size_t head, frame;
	uint32_t n;

	memset(en, 0, sizeof(*en));
	if (hot != NULL)
		memcpy(en->hot, hot, sizeof(en->hot));
	n = classify(chunk, len, en);
	if (n == 0)
		return 0;
	pages = gather(p, chunk, len, en, n);
	head = put_sums(pages, n, en, record);
	if (encoder_frame(p->enc, (uint8_t *)record + head, packer_bound(&p->g) - head, pages,
		(size_t)n * PAGE_GRANULE, &frame, e) == -1)
		return -1;
	en->length = (uint32_t)(head + frame);
	return 0;
}
