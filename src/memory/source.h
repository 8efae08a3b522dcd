/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_SOURCE_H
#define GMEM_MEMORY_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/kind.h"

/* Granularity, in bytes, of what a source tells and serves. */
#define MEMORY_SOURCE_BLOCK 4096

/*
 * Reading a memory object, a raw file or a block device (both MEMORY_FILE).
 * Nothing here changes the object, allocates holes in it or takes a lock.
 */
struct memory_source;

/*
 * Takes fd, also on failure.  size is in bytes: the part [0, size) of the object is
 * served; 0 means all that is there.  A size beyond the object's is ERR_FAILED.
 */
int memory_source_open(
    struct memory_source **out, int fd, enum memory_kind kind, uint64_t size, struct err *e);

/*
 * Memory whose pages lie in a file at base, page i at base + i * page_size, where bit i of
 * the bitmap (little endian) is set; the others are zeros, whatever the file has
 * there.  Takes fd and the bitmap (malloc'd), also on failure.  size and page_size are
 * multiples of 4 KiB; ERR_CORRUPT if the file is too short.
 */
int memory_source_open_pages(struct memory_source **out, int fd, uint64_t base, uint64_t size,
    uint8_t *bitmap, uint32_t page_size, struct err *e);

/*
 * Puts a sparse file of the same length on top, a diff snapshot: its data takes the place of
 * what is below, byte for byte, and its holes leave it.  Takes fd, also on failure; before the
 * first use of the source.  ERR_UNSUPPORTED if the file is where holes can't be told from
 * data.  *holes: how many bytes it leaves as they are.
 */
int memory_source_add_layer(struct memory_source *src, int fd, uint64_t *holes, struct err *e);

/* NULL is fine. */
void memory_source_free(struct memory_source *src);

/* Bytes served; reads may go on to the next multiple of 4 KiB. */
uint64_t memory_source_size(const struct memory_source *src);

/*
 * The next range [*start, *end) at or after from that may hold something else
 * than zeros: 1, 0 if there is none up to the size, -1.  from, *start and *end
 * are multiples of 4 KiB; *end may lie beyond an odd size.  The next search
 * starts at *end: a long range may come in pieces.  One thread at a time, and
 * it moves the file offset of the descriptor.
 *
 * Holes are known of memfds, guest_memfds and files on tmpfs, ext4, XFS and btrfs.  Of others
 * all is given.  hugetlbfs does not tell its holes either (mincore there sees
 * page tables, not the file): all or, when nothing at all is allocated, nothing.
 */
int memory_source_next(
    struct memory_source *src, uint64_t from, uint64_t *start, uint64_t *end, struct err *e);

/*
 * Reads [off, off + len) whole; zeros from the size on up to the next multiple of
 * 4 KiB, ERR_FAILED beyond that, or if the object shrank.  Any number of threads.
 */
int memory_source_read(
    struct memory_source *src, void *buf, size_t len, uint64_t off, struct err *e);

/* Whether some of [off, off + len) is being filled still (filling.h). */
bool memory_source_is_filling(const struct memory_source *src, uint64_t off, uint64_t len);

/*
 * How many bytes are allocated, also by pages of zeros; a block device counts whole, layers
 * do not count.
 */
int memory_source_resident(struct memory_source *src, uint64_t *bytes, struct err *e);

#endif
