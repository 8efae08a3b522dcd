/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "codec/codec.h"
#include "codec/hash.h"
#include "small-image.h"
#include "tap.h"

/* Frames that zstd makes, frames with many blocks, and frames that are wrong. */

#define CONTENT (16 * 4096)

static uint8_t content[CONTENT];
static uint8_t frame[2 * CONTENT];
static size_t frame_len;
static struct decoder *dec;

enum { SIZED = 1, TAIL = 2 }; /* with content size; with an empty block at the end */

/* A frame with a block for every `block` bytes. */
static size_t
blocks_frame(uint8_t *to, size_t cap, const uint8_t *from, size_t len, size_t block, int flags)
{
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	ZSTD_outBuffer out = { to, cap, 0 };

	ZSTD_CCtx_setParameter(ctx, ZSTD_c_contentSizeFlag, (flags & SIZED) != 0);
	if ((flags & SIZED) != 0)
		ZSTD_CCtx_setPledgedSrcSize(ctx, len);
	for (size_t off = 0; off < len; off += block) {
		ZSTD_inBuffer in = { from + off, len - off < block ? len - off : block, 0 };
		bool last = off + block >= len && (flags & TAIL) == 0;

		if (ZSTD_compressStream2(ctx, &out, &in, last ? ZSTD_e_end : ZSTD_e_flush) != 0)
			abort();
	}
	if ((len == 0 || (flags & TAIL) != 0) &&
	    ZSTD_compressStream2(ctx, &out, &(ZSTD_inBuffer){ NULL, 0, 0 }, ZSTD_e_end) != 0)
		abort();
	ZSTD_freeCCtx(ctx);
	return out.pos;
}

static void
test_encoder(void)
{
	struct encoder *a = NULL, *b = NULL;
	uint8_t other[2 * CONTENT];
	struct err e = ERR_INIT;
	size_t n = 0, m = 0;

	ok(encoder_new(&a, 1, 65536, &e) == 0 && encoder_new(&b, 1, 65536, &e) == 0,
	    "two encoders");
	ok(encoder_frame(a, frame, sizeof(frame), content, CONTENT, &n, &e) == 0 &&
		encoder_frame(b, other, sizeof(other), content, 4096, &m, &e) == 0 &&
		encoder_frame(b, other, sizeof(other), content, CONTENT, &m, &e) == 0,
	    "both make a frame");
	ok(n == m && memcmp(frame, other, n) == 0 && n <= encoder_bound(CONTENT),
	    "it is the same, whatever they made before");
	ok(codec_frame_length(frame, n) == n && codec_frame_length(frame, n - 1) == 0 &&
		codec_frame_length(frame, sizeof(frame)) == n,
	    "codec_frame_length");
	ok(encoder_frame(a, other, 8, content, CONTENT, &m, &e) == -1 && e.kind == ERR_FAILED,
	    "no room: %s", e.msg);
	encoder_free(a);
	encoder_free(b);
	encoder_free(NULL);
	ok(codec_level_min() < 0 && codec_level_max() >= 19, "levels");
	frame_len = n;
}

/* Asks for `step` bytes more each time; how many calls left something undecoded. */
static unsigned
decode_in_steps(size_t step, struct err *e)
{
	uint8_t *to = malloc(CONTENT);
	unsigned partial = 0;
	size_t have = 0;

	if (decoder_begin(dec, frame, frame_len, to, CONTENT, e) == -1)
		goto fail;
	for (size_t want = step; have < CONTENT; want += step) {
		if (want > CONTENT)
			want = CONTENT;
		if (decoder_until(dec, want, &have, e) == -1)
			goto fail;
		if (have < want || memcmp(to, content, have) != 0) {
			err_set(e, ERR_FAILED, "%zu bytes wanted, %zu there", want, have);
			goto fail;
		}
		partial += have < CONTENT;
	}
	free(to);
	return partial;
fail:
	free(to);
	return UINT32_MAX;
}

static void
test_steps(size_t block, int tail)
{
	static const size_t steps[] = { 1, 100, 4096, 5000, CONTENT - 1, CONTENT };

	frame_len = blocks_frame(frame, sizeof(frame), content, CONTENT, block, SIZED | tail);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct err e = ERR_INIT;
		unsigned partial = decode_in_steps(steps[i], &e);
		bool stepwise = block < CONTENT / 2 && steps[i] < CONTENT / 2;

		ok(partial != UINT32_MAX && (partial > 0 || !stepwise),
		    "blocks of %zu%s, steps of %zu: %u times a part%s%s", block,
		    tail != 0 ? " and an empty one" : "", steps[i], partial,
		    e.msg[0] != '\0' ? ": " : "", e.msg);
	}
}

/* A decoder that stopped half-way begins anew; all, then a part. */
static void
test_restart(void)
{
	struct err e = ERR_INIT;
	uint8_t *to = malloc(CONTENT);
	size_t have = 0;
	bool good;

	frame_len = blocks_frame(frame, sizeof(frame), content, CONTENT, 4096, SIZED);
	good = decoder_begin(dec, frame, frame_len, to, CONTENT, &e) == 0 &&
	       decoder_until(dec, 5000, &have, &e) == 0 && have < CONTENT;
	ok(good, "half-way: %zu bytes", have);
	memset(to, 0, CONTENT);
	ok(decoder_begin(dec, frame, frame_len, to, CONTENT, &e) == 0 &&
		decoder_until(dec, CONTENT, &have, &e) == 0 && have == CONTENT &&
		memcmp(to, content, CONTENT) == 0,
	    "all of it after half of it");
	ok(decoder_until(dec, 1, &have, &e) == 0 && have == CONTENT &&
		decoder_until(dec, CONTENT, &have, &e) == 0 && have == CONTENT &&
		memcmp(to, content, CONTENT) == 0,
	    "a part after all of it");
	free(to);
}

/* Both ways to decode; 0, or -1 and each said ERR_CORRUPT, or 1: they do not agree. */
static int
decode_both(const uint8_t *bytes, size_t len, size_t want)
{
	uint8_t *copy = malloc(len), *to = malloc(want);
	struct err e = ERR_INIT;
	int all = -1, steps = -1;
	size_t have = 0;

	/* In memory of just their size, for the sanitizers. */
	memcpy(copy, bytes, len);
	if (decoder_begin(dec, copy, len, to, want, &e) == 0)
		all = decoder_until(dec, want, &have, &e);
	if (all == -1 && e.kind != ERR_CORRUPT)
		all = 1;
	e.kind = ERR_NONE;
	if (decoder_begin(dec, copy, len, to, want, &e) == 0) {
		steps = 0;
		for (size_t n = 1000; steps == 0 && n < want; n += 1000)
			steps = decoder_until(dec, n, &have, &e);
		if (steps == 0)
			steps = decoder_until(dec, want, &have, &e);
	}
	if (steps == -1 && e.kind != ERR_CORRUPT)
		steps = 1;
	free(copy);
	free(to);
	return all == steps ? all : 1;
}

static void
test_wrong(void)
{
	uint8_t two[2 * sizeof(frame)];
	size_t small, n;
	unsigned noticed = 0;

	frame_len = blocks_frame(frame, sizeof(frame), content, CONTENT, 8192, SIZED | TAIL);
	ok(decode_both(frame, frame_len, CONTENT) == 0, "right both ways");
	ok(decode_both(frame, frame_len, CONTENT + 1) == -1 &&
		decode_both(frame, frame_len, CONTENT - 1) == -1 &&
		decode_both(frame, frame_len, 4096) == -1,
	    "another content size");
	n = blocks_frame(two, sizeof(two), content, CONTENT, 8192, 0);
	ok(decode_both(two, n, CONTENT) == -1, "no content size");
	memcpy(two, frame, frame_len);
	two[frame_len] = 0;
	ok(decode_both(two, frame_len + 1, CONTENT) == -1, "a byte behind it");
	small = blocks_frame(two + frame_len, sizeof(frame), content, 0, 1, SIZED);
	ok(decode_both(two, frame_len + small, CONTENT) == -1, "an empty frame behind it");
	memcpy(two + frame_len, "\x50\x2a\x4d\x18\0\0\0\0", 8);
	ok(decode_both(two, frame_len + 8, CONTENT) == -1, "a skippable frame behind it");
	ok(decode_both((const uint8_t *)"\x50\x2a\x4d\x18\0\0\0\0", 8, CONTENT) == -1,
	    "a skippable frame instead");
	memset(two, 0, 100);
	ok(decode_both(two, 100, CONTENT) == -1, "zeros instead");
	for (n = 0; n < frame_len; n++)
		noticed += decode_both(frame, n, CONTENT) == -1;
	ok(noticed == frame_len, "%u of %zu truncations are noticed", noticed, frame_len);
}

/* Damage may give other bytes (checksums are for that) but nothing worse. */
static void
test_flips(void)
{
	unsigned errors = 0, other = 0;

	frame_len = blocks_frame(frame, sizeof(frame), content + 4096, 4096, 512, SIZED);
	for (size_t bit = 0; bit < frame_len * 8; bit++) {
		int rc;

		frame[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		rc = decode_both(frame, frame_len, 4096);
		frame[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		errors += rc == -1;
		other += rc == 0;
	}
	ok(errors + other == frame_len * 8 && errors > 0,
	    "%zu bit flips: %u errors, %u other bytes, the same both ways", frame_len * 8,
	    errors, other);
}

static void
test_hash(void)
{
	static const uint8_t abc[] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41,
		0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
		0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	struct hash_piece pieces[] = { { "a", 1 }, { "", 0 }, { "bc", 2 } };
	uint8_t digest[DIGEST_SIZE];

	ok(hash_checksum("", 0) == UINT64_C(0x2D06800538D394C2), "XXH3-64 of nothing");
	ok(hash_page_sum("", 0) == 0x38D394C2, "a page sum is its low half");
	hash_digest(digest, "abc", 3);
	ok(memcmp(digest, abc, sizeof(abc)) == 0, "SHA-256 of abc");
	hash_digest_pieces(digest, pieces, 3);
	ok(memcmp(digest, abc, sizeof(abc)) == 0, "and in pieces");
}

int
main(void)
{
	struct err e = ERR_INIT;

	fill_memory(content, CONTENT, 14, 5);
	if (decoder_new(&dec, &e) == -1)
		abort();
	test_encoder();
	test_steps(1000, 0);
	test_steps(1000, TAIL);
	test_steps(4096, 0);
	test_steps(4096, TAIL);
	test_steps(CONTENT, 0);
	test_steps(CONTENT, TAIL);
	test_restart();
	test_wrong();
	test_flips();
	test_hash();
	decoder_free(dec);
	decoder_free(NULL);
	return done();
}
