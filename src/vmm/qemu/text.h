/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QEMU_TEXT_H
#define GMEM_VMM_QEMU_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * What QEMU tells only through its human monitor, read from its text.  Pure.
 * The text is not trusted: what does not look as expected is ERR_CORRUPT or
 * passed over.  Formats as printed by QEMU 4.0 to 10.0 (softmmu/physmem.c,
 * softmmu/memory.c, monitor/misc.c).
 */

/* A RAM block of "info ramblock".  Blocks without a name are not migrated. */
struct qemu_block {
	char *name; /* owned; may be "" */
	uint64_t page_size; /* bytes, a power of two */
	uint64_t used; /* bytes */
};

struct qemu_blocks {
	struct qemu_block *v; /* owned */
	size_t n;
};

int qemu_text_blocks(const char *text, struct qemu_blocks *out, struct err *e);
void qemu_blocks_fini(struct qemu_blocks *b);

/* Borrowed, or NULL. */
const struct qemu_block *qemu_blocks_find(const struct qemu_blocks *b, const char *name);

/* Where a part of a RAM block is in the guest's memory: bytes all. */
struct qemu_segment {
	uint64_t gpa;
	uint64_t offset; /* in the block */
	uint64_t size;
	uint64_t probe; /* a gpa in it that shows the block at this moment */
};

/*
 * The segments of a block of `size` bytes, by offset, from "info mtree -f".
 * They cover the whole block: what devices, ROM shadows or SMRAM hide at the moment
 * is counted to the segment around or below it.  *out is malloc'd.
 */
int qemu_text_segments(const char *text, const char *block, uint64_t size,
    struct qemu_segment **out, size_t *n, struct err *e);

/* The answer to "gpa2hva": the address in QEMU if the block is what is there. */
int qemu_text_hva(const char *text, const char *block, uint64_t *hva, struct err *e);

#endif
