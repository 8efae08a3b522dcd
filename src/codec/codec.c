/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "codec/codec.h"

#include <stdbool.h>
#include <stdlib.h>

/* For ZSTD_d_stableOutBuffer: decode into the caller's buffer without a copy. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

struct encoder {
	ZSTD_CCtx *ctx;
};

struct decoder {
	ZSTD_DCtx *ctx;
	ZSTD_inBuffer in;
	ZSTD_outBuffer out;
	size_t step; /* bytes of input that complete the next block */
	bool started; /* some of the frame was decoded in steps */
};

/*
 * What zstd takes for level 1 is meant for long inputs.  Frames of guest pages come
 * out smaller when shorter matches count: of four bytes up to 32 KiB (2 to 3 %, no
 * slower), of five above (1 to 2 %; four would cost a quarter of the speed on program code).
 */
#define SMALL_FRAME ((size_t)32 << 10)
#define SMALL_FRAME_MIN_MATCH 4
#define SMALL_FRAME_HASH_LOG 15
#define LARGE_FRAME_MIN_MATCH 5

static size_t
set_parameters(ZSTD_CCtx *ctx, int level, size_t largest)
{
	size_t rc = ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level);

	if (ZSTD_isError(rc) || level != 1)
		return rc;
	if (largest > SMALL_FRAME)
		return ZSTD_CCtx_setParameter(ctx, ZSTD_c_minMatch, LARGE_FRAME_MIN_MATCH);
	rc = ZSTD_CCtx_setParameter(ctx, ZSTD_c_minMatch, SMALL_FRAME_MIN_MATCH);
	if (ZSTD_isError(rc))
		return rc;
	return ZSTD_CCtx_setParameter(ctx, ZSTD_c_hashLog, SMALL_FRAME_HASH_LOG);
}

int
encoder_new(struct encoder **out, int level, size_t largest, struct err *e)
{
	struct encoder *enc;
	size_t rc;

	enc = calloc(1, sizeof(*enc));
	if (enc == NULL)
		return err_sys(e, "zstd encoder");
	enc->ctx = ZSTD_createCCtx();
	if (enc->ctx == NULL) {
		free(enc);
		return err_set(e, ERR_FAILED, "zstd encoder: out of memory");
	}
	rc = set_parameters(enc->ctx, level, largest);
	if (ZSTD_isError(rc)) {
		encoder_free(enc);
		return err_set(
		    e, ERR_FAILED, "zstd level %d: %s", level, ZSTD_getErrorName(rc));
	}
	*out = enc;
	return 0;
}

void
encoder_free(struct encoder *enc)
{
	if (enc == NULL)
		return;
	ZSTD_freeCCtx(enc->ctx);
	free(enc);
}

size_t
encoder_bound(size_t len)
{
	return ZSTD_compressBound(len);
}

int
encoder_frame(struct encoder *enc, void *dst, size_t cap, const void *src, size_t srclen,
    size_t *len, struct err *e)
{
	size_t n;

	n = ZSTD_compress2(enc->ctx, dst, cap, src, srclen);
	if (ZSTD_isError(n))
		return err_set(e, ERR_FAILED, "zstd: %s", ZSTD_getErrorName(n));
	*len = n;
	return 0;
}

int
codec_level_min(void)
{
	return -50;
}

int
codec_level_max(void)
{
	return ZSTD_maxCLevel();
}

int
decoder_new(struct decoder **out, struct err *e)
{
	struct decoder *dec;

	dec = calloc(1, sizeof(*dec));
	if (dec == NULL)
		return err_sys(e, "zstd decoder");
	dec->ctx = ZSTD_createDCtx();
	if (dec->ctx == NULL) {
		free(dec);
		return err_set(e, ERR_FAILED, "zstd decoder: out of memory");
	}
	*out = dec;
	return 0;
}

void
decoder_free(struct decoder *dec)
{
	if (dec == NULL)
		return;
	ZSTD_freeDCtx(dec->ctx);
	free(dec);
}

int
decoder_begin(struct decoder *dec, const void *frame, size_t framelen, void *dst, size_t len,
    struct err *e)
{
	unsigned long long content = ZSTD_getFrameContentSize(frame, framelen);

	if (content != len)
		return err_set(e, ERR_CORRUPT,
		    "zstd frame of %zu bytes does not hold %zu bytes", framelen, len);
	/* Nothing may follow: ZSTD_decompress would take a second frame. */
	if (codec_frame_length(frame, framelen) != framelen)
		return err_set(
		    e, ERR_CORRUPT, "zstd frame does not end at its %zu bytes", framelen);
	dec->in = (ZSTD_inBuffer){ frame, framelen, 0 };
	dec->out = (ZSTD_outBuffer){ dst, len, 0 };
	dec->started = false;
	return 0;
}

static int
decode_error(const struct decoder *dec, size_t rc, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "zstd frame: %s after %zu of %zu bytes",
	    ZSTD_isError(rc) ? ZSTD_getErrorName(rc) : "wrong length", dec->out.pos,
	    dec->out.size);
}

static int
decode_all(struct decoder *dec, struct err *e)
{
	size_t n;

	n = ZSTD_decompressDCtx(
	    dec->ctx, dec->out.dst, dec->out.size, dec->in.src, dec->in.size);
	if (n != dec->out.size)
		return decode_error(dec, n, e);
	dec->out.pos = n;
	return 0;
}

static int
decode_start(struct decoder *dec, struct err *e)
{
	size_t rc;

	ZSTD_DCtx_reset(dec->ctx, ZSTD_reset_session_only);
	rc = ZSTD_DCtx_setParameter(dec->ctx, ZSTD_d_stableOutBuffer, 1);
	if (ZSTD_isError(rc))
		return decode_error(dec, rc, e);
	dec->step = ZSTD_FRAMEHEADERSIZE_MIN(ZSTD_f_zstd1);
	dec->started = true;
	return 0;
}

/* One call of the streaming decoder: at most one block, since the input ends behind it. */
static int
decode_step(struct decoder *dec, struct err *e)
{
	size_t left = dec->in.size - dec->in.pos, rc;
	ZSTD_inBuffer in = { dec->in.src, dec->in.pos + (dec->step < left ? dec->step : left),
		dec->in.pos };
	bool last = in.size == dec->in.size;

	rc = ZSTD_decompressStream(dec->ctx, &dec->out, &in);
	if (ZSTD_isError(rc))
		return decode_error(dec, rc, e);
	dec->in.pos = in.pos;
	dec->step = rc;
	if ((rc == 0) != (last && dec->in.pos == dec->in.size) ||
	    (rc == 0 && dec->out.pos != dec->out.size))
		return decode_error(dec, rc, e);
	return 0;
}

int
decoder_until(struct decoder *dec, size_t want, size_t *have, struct err *e)
{
	if (!dec->started && dec->out.pos < dec->out.size &&
	    (want < dec->out.size ? decode_start(dec, e) : decode_all(dec, e)) == -1)
		return -1;
	/* Behind the content there may be an empty block: the frame is decoded to its end. */
	while (dec->started &&
	       (dec->out.pos < want || (dec->out.pos == dec->out.size && dec->step != 0)))
		if (decode_step(dec, e) == -1)
			return -1;
	*have = dec->out.pos;
	return 0;
}

size_t
codec_frame_length(const void *buf, size_t len)
{
	size_t n = ZSTD_findFrameCompressedSize(buf, len);

	return ZSTD_isError(n) ? 0 : n;
}

const char *
codec_version(void)
{
	return ZSTD_versionString();
}
