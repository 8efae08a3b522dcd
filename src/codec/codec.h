/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CODEC_CODEC_H
#define GMEM_CODEC_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * zstd frames.  An encoder or decoder belongs to one thread at a time and
 * keeps its context: making one costs more than decoding a page.
 */
struct encoder;
struct decoder;

/*
 * level as zstd's, for frames of at most `largest` bytes of content.  The frame of
 * the same bytes is the same for every encoder of the same two numbers.
 */
int encoder_new(struct encoder **out, int level, size_t largest, struct err *e);
void encoder_free(struct encoder *enc);

/* The largest frame that len bytes can become. */
size_t encoder_bound(size_t len);

/* Makes one standard frame with content size; *len is set to its length. */
int encoder_frame(struct encoder *enc, void *dst, size_t cap, const void *src, size_t srclen,
    size_t *len, struct err *e);

/* Whether codec_level_ok(level): what `--level` takes. */
int codec_level_min(void);
int codec_level_max(void);

int decoder_new(struct decoder **out, struct err *e);
void decoder_free(struct decoder *dec);

/*
 * Decoding in steps: begin borrows the frame and the place for its content
 * until the next begin.  decoder_until then decodes until at least `want`
 * bytes of content are there (or all of it), never less, and says how many
 * are.  A frame that is not exactly len bytes of content is ERR_CORRUPT.
 */
int decoder_begin(struct decoder *dec, const void *frame, size_t framelen, void *dst,
    size_t len, struct err *e);
int decoder_until(struct decoder *dec, size_t want, size_t *have, struct err *e);

/* The length of the standard frame at the start of buf, or 0 if there is none. */
size_t codec_frame_length(const void *buf, size_t len);

/* Version of the library found at run time, "1.5.4". */
const char *codec_version(void);

#endif
