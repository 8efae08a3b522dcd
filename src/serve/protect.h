/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PROTECT_H
#define GMEM_SERVE_PROTECT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/source.h"

/*
 * Memory of a running VM as it was at one moment.
 *
 * While the VM stands still all its mappings are write-protected by userfaultfd; then it runs
 * on.  Whoever writes to a page that was not read yet waits until a thread of ours has
 * copied it into a pool; then the page is writable again.  Whoever reads through protect_read
 * gets the page as it was, from the pool or from memory, and unprotects behind himself.
 * When the pool is full a writer waits until a reader has made room or has come to his page.
 *
 * Nobody else has the userfaultfd: when it is closed, by protect_free or by our death, the
 * kernel removes the protection and wakes who waits.
 *
 * It needs the pool and 4 bytes for each page of 4 KiB.  Pages without a mapping change
 * unseen, and so does what is written past the mappings or discarded by fallocate(2):
 * the caller has to know that this does not happen.
 */
struct protect;

/* A memory object, or a part of it. */
struct protect_region {
	struct memory_source *source; /* borrowed */
	uint64_t offset, size; /* in the source; bytes, multiples of 4 KiB */
	uint32_t page_size; /* of the memory; offset and size are multiples of it */
};

/* Where it is mapped. */
struct protect_mapping {
	uint64_t hva, len; /* in the process of the userfaultfd; whole pages of the region */
	uint64_t offset; /* in the region */
	size_t region; /* its place in the list */
};

struct protect_stats {
	uint64_t saved; /* pages of 4 KiB that were copied because somebody wanted to write */
	uint64_t stalls; /* writes that found the pool full, and waited for readers */
};

/*
 * Takes the userfaultfd (also when it fails), which had no handshake, and registers the
 * mappings; nothing is protected yet.  ERR_UNSUPPORTED, with the reason, if this memory cannot
 * be protected.  Starts a thread.  pool: bytes.
 */
int protect_new(struct protect **out, int uffd, const struct protect_region *regions, size_t n,
    const struct protect_mapping *mappings, size_t nmappings, size_t pool, struct err *e);

/* Protects it all.  Nobody writes to it meanwhile: this is the moment. */
int protect_arm(struct protect *p, struct err *e);

/*
 * The next range at or after from that may hold something else than zeros, as
 * memory_source_next; from and the range are in the region's source.
 */
int protect_next(struct protect *p, size_t region, uint64_t from, uint64_t *start,
    uint64_t *end, struct err *e);

/*
 * [from, to) will not be read, for protect_next has said that it holds zeros.  Every page
 * is either skipped or read, once.  The thread that calls protect_next.
 */
int protect_skip(struct protect *p, size_t region, uint64_t from, uint64_t to, struct err *e);

/* Reads [off, off + len) of the region's source.  Any number of threads. */
int protect_read(
    struct protect *p, size_t region, void *buf, size_t len, uint64_t off, struct err *e);

/* Whether all that was read is of that moment: -1 with the reason if not. */
int protect_check(struct protect *p, struct err *e);

/* At any time. */
struct protect_stats protect_stats(struct protect *p);

/* Removes what is left of the protection.  NULL is fine. */
void protect_free(struct protect *p);

#endif
