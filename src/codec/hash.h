/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CODEC_HASH_H
#define GMEM_CODEC_HASH_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_SIZE 32

/* XXH3-64: finds damage, not malice. */
uint64_t hash_checksum(const void *buf, size_t len);

/* The checksum of one page: the low half of its XXH3-64. */
uint32_t hash_page_sum(const void *page, size_t len);

/* SHA-256, in one go or in pieces. */
void hash_digest(uint8_t digest[DIGEST_SIZE], const void *buf, size_t len);

struct hash_piece {
	const void *buf;
	size_t len;
};

void hash_digest_pieces(uint8_t digest[DIGEST_SIZE], const struct hash_piece *pieces, size_t n);

/* SHA-256 of what comes bit by bit; may begin anew after its end. */
struct hash_stream;

struct hash_stream *hash_stream_new(void); /* begun; NULL: out of memory */
void hash_stream_free(struct hash_stream *s); /* NULL is fine */
void hash_stream_begin(struct hash_stream *s);
void hash_stream_add(struct hash_stream *s, const void *buf, size_t len);
void hash_stream_end(struct hash_stream *s, uint8_t digest[DIGEST_SIZE]);

/* 64 digits, lower case, and a NUL. */
#define DIGEST_TEXT_SIZE (2 * DIGEST_SIZE + 1)

void digest_text(char text[DIGEST_TEXT_SIZE], const uint8_t digest[DIGEST_SIZE]);

/* Exactly 64 hexadecimal digits of either case: 0, else -1 and digest is as it was. */
int digest_parse(uint8_t digest[DIGEST_SIZE], const char *text);

#endif
