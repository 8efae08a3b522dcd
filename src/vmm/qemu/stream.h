/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QEMU_STREAM_H
#define GMEM_VMM_QEMU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Takes QEMU's migration stream as its bytes come, and gives it again without the pages of
 * RAM blocks that are in an image anyway: what a QEMU that has x-ignore-shared on and these
 * blocks in shared files loads.  Pure, and the input is not trusted: ERR_CORRUPT,
 * or ERR_UNSUPPORTED for what QEMU can do and this does not know.
 *
 * Two kinds are taken: a plain stream that was written with x-ignore-shared, whose
 * pages are left out or passed on; and a mapped-ram file, which becomes such a
 * stream: pages that are to stay in it are asked for.
 *
 * What follows the RAM, the state of devices, is passed on as it is.
 */
struct qemu_stream;

/* A RAM block, as the stream lists it. */
struct qemu_stream_block {
	char name[256];
	uint64_t size; /* bytes */
	uint64_t gpa; /* in its container; of the stream, or 0 until `block` sets it */
	bool has_gpa; /* the stream tells it */
	bool ours; /* set by `block`: its pages are left out */
	uint64_t records; /* pages of it that came in the stream, zeros too */
	/* Of a mapped-ram file; offsets in bytes from its beginning. */
	uint64_t bitmap; /* bit i, little endian, is page i */
	uint64_t pages; /* page i is at pages + i * page size */
};

struct qemu_stream_hooks {
	void *arg; /* for all of them */
	uint64_t base; /* where in its file the stream begins: offsets count from the file's
			  beginning */
	/* The stream as it is to be, in pieces. */
	int (*put)(void *arg, const void *buf, size_t len, struct err *e);
	/* A block of the list, before any page: says what becomes of it.  NULL: nothing. */
	int (*block)(void *arg, struct qemu_stream_block *b, struct err *e);
	/*
	 * Of a mapped-ram file, when the list is complete: qemu_stream_page for each page of
	 * the blocks that are not ours.  NULL: ERR_UNSUPPORTED.
	 */
	int (*pages)(void *arg, struct qemu_stream *s, struct err *e);
};

int qemu_stream_new(
    struct qemu_stream **out, const struct qemu_stream_hooks *hooks, struct err *e);

/* NULL is fine. */
void qemu_stream_free(struct qemu_stream *s);

/* The next bytes.  After a failure only qemu_stream_free is left. */
int qemu_stream_feed(struct qemu_stream *s, const void *buf, size_t len, struct err *e);

/*
 * How many of the next bytes are of no interest; they count as fed, and the next
 * to be fed are those behind them.  May be ignored: then they are passed over.
 */
uint64_t qemu_stream_jump(struct qemu_stream *s);

/* That was all: fails unless the RAM was complete and something came behind it. */
int qemu_stream_end(const struct qemu_stream *s, struct err *e);

/* Only from `pages`: the page at `offset` of a block; NULL is zeros. */
int qemu_stream_page(struct qemu_stream *s, const struct qemu_stream_block *b, uint64_t offset,
    const void *page, struct err *e);

/* What it is; valid as soon as the first block is there. */
bool qemu_stream_mapped(const struct qemu_stream *s);
uint32_t qemu_stream_page_size(const struct qemu_stream *s); /* of the target, bytes */
const char *qemu_stream_machine(const struct qemu_stream *s); /* "pc-q35-7.2", or "" */

/* All blocks that came so far; borrowed. */
const struct qemu_stream_block *qemu_stream_blocks(const struct qemu_stream *s, size_t *n);

#endif
