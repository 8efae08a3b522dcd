/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_HEADER_H
#define GMEM_FORMAT_HEADER_H

#include <stdint.h>

#include "base/err.h"
#include "format/layout.h"

#define HEADER_SIZE 128
#define HEADER_STATE_OFFSET 24 /* the four bytes that are written last */
#define HEADER_STATE_SIZE 4

enum image_state {
	IMAGE_PARTIAL, /* "PART": the writer has not finished */
	IMAGE_COMPLETE, /* "DONE" */
	IMAGE_STREAMED, /* "STRM": written to a pipe; the trailer proves that it is complete */
};

struct header {
	enum image_state state;
	uint32_t chunk_size;
	uint64_t incompat, compat;
};

/* The bytes of a header; its checksum does not cover the state. */
void header_encode(uint8_t buf[HEADER_SIZE], const struct header *h);
void header_encode_state(uint8_t buf[HEADER_STATE_SIZE], enum image_state state);

/*
 * ERR_CORRUPT when the bytes are damaged or no header at all, ERR_UNSUPPORTED
 * for a version or feature that is not known here.
 */
int header_decode(struct header *h, const uint8_t buf[HEADER_SIZE], struct err *e);

/* The header with its state blanked: what the root hash covers. */
void header_for_root(uint8_t out[HEADER_SIZE], const uint8_t buf[HEADER_SIZE]);

#endif
