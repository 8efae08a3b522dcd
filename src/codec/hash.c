/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "codec/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct hash_stream {
	struct sha256_ctx ctx;
};

struct hash_stream *
hash_stream_new(void)
{
	struct hash_stream *s = malloc(sizeof(*s));

	if (s != NULL)
		hash_stream_begin(s);
	return s;
}

void
hash_stream_free(struct hash_stream *s)
{
	free(s);
}

void
hash_stream_begin(struct hash_stream *s)
{
	sha256_init(&s->ctx);
}

void
hash_stream_add(struct hash_stream *s, const void *buf, size_t len)
{
	sha256_update(&s->ctx, len, buf);
}

void
hash_stream_end(struct hash_stream *s, uint8_t digest[DIGEST_SIZE])
{
	sha256_digest(&s->ctx, DIGEST_SIZE, digest);
}

void
digest_text(char text[DIGEST_TEXT_SIZE], const uint8_t digest[DIGEST_SIZE])
{
	for (unsigned i = 0; i < DIGEST_SIZE; i++)
		snprintf(text + (size_t)2 * i, 3, "%02x", digest[i]);
}

/* The value of a hexadecimal digit, or -1. */
static int
digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int
digest_parse(uint8_t digest[DIGEST_SIZE], const char *text)
{
	uint8_t bytes[DIGEST_SIZE];

	if (strlen(text) != (size_t)2 * DIGEST_SIZE)
		return -1;
	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

		if (high == -1 || low == -1)
			return -1;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(digest, bytes, DIGEST_SIZE);
	return 0;
}
