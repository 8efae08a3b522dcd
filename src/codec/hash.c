/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "codec/hash.h"

#include <nettle/sha2.h>
#include <xxhash.h>

_Static_assert(DIGEST_SIZE == SHA256_DIGEST_SIZE, "digest size");

uint64_t
hash_checksum(const void *buf, size_t len)
{
	return XXH3_64bits(buf, len);
}

uint32_t
hash_page_sum(const void *page, size_t len)
{
	return (uint32_t)XXH3_64bits(page, len);
}

void
hash_digest(uint8_t digest[DIGEST_SIZE], const void *buf, size_t len)
{
	struct hash_piece piece = { buf, len };

	hash_digest_pieces(digest, &piece, 1);
}

void
hash_digest_pieces(uint8_t digest[DIGEST_SIZE], const struct hash_piece *pieces, size_t n)
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	for (size_t i = 0; i < n; i++)
		sha256_update(&ctx, pieces[i].len, pieces[i].buf);
	sha256_digest(&ctx, DIGEST_SIZE, digest);
}
