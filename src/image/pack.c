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
	if (encoder_new(&p->enc, level, e) == -1) {
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

/* Copies the pages that are not zero; their number. */
static uint32_t
gather(struct packer *p, const uint8_t *chunk, size_t len, struct entry *en)
{
	uint32_t n = 0;

	for (uint32_t i = 0; (size_t)i * PAGE_GRANULE < len; i++) {
		const uint8_t *page = chunk + (size_t)i * PAGE_GRANULE;
		size_t have = MIN(len - (size_t)i * PAGE_GRANULE, PAGE_GRANULE);
		uint8_t *to = p->pages + (size_t)n * PAGE_GRANULE;

		if (memory_is_zero(page, have))
			continue;
		memcpy(to, page, have);
		memset(to + have, 0, PAGE_GRANULE - have);
		en->stored[i / 64] |= UINT64_C(1) << (i % 64);
		n++;
	}
	return n;
}

/* The skippable frame in front of the data: a checksum for each page. */
static size_t
put_sums(const struct packer *p, uint32_t n, struct entry *en, uint8_t *record)
{
	uint8_t *sums = record + SKIP_SIZE;

	le32enc(record, SKIP_SUMS);
	le32enc(record + 4, 4 * n);
	for (uint32_t i = 0; i < n; i++)
		le32enc(sums + (size_t)4 * i,
		    hash_page_sum(p->pages + (size_t)i * PAGE_GRANULE, PAGE_GRANULE));
	en->checksum = hash_checksum(sums, 4 * (size_t)n);
	return SKIP_SIZE + 4 * (size_t)n;
}

int
packer_pack(struct packer *p, const void *chunk, size_t len, struct entry *en, void *record,
    struct err *e)
{
	uint32_t n;
	size_t head, frame;

	memset(en, 0, sizeof(*en));
	n = gather(p, chunk, len, en);
	if (n == 0)
		return 0;
	head = put_sums(p, n, en, record);
	if (encoder_frame(p->enc, (uint8_t *)record + head, packer_bound(&p->g) - head,
		p->pages, (size_t)n * PAGE_GRANULE, &frame, e) == -1)
		return -1;
	en->length = (uint32_t)(head + frame);
	return 0;
}
