/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_VERIFY_H
#define GMEM_IMAGE_VERIFY_H

#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

struct verify_result {
	uint64_t records, pages, nodes;
	uint64_t hot; /* pages of the hot section, which are among those */
	uint64_t bytes; /* of content that was decoded and compared */
};

/* Called now and then from the calling thread: bytes of records done, of all. */
typedef void verify_progress(void *arg, uint64_t done, uint64_t total);

/*
 * What is checked beyond that: each region's and state's SHA-256 of its content, which the
 * manifest has and so the root hash covers.  ERR_UNRECORDED, before anything is read, if one
 * has none.
 */
#define VERIFY_DEEP 1u

/*
 * Checks every byte of an open image: each index node and record, the counts
 * in the index, that the index and the hot table say the same, that nothing lies
 * between the parts, and that no two of them overlap.  The error is the first in
 * the order of objects and addresses, whatever the number of threads.
 */
int image_verify(const struct image *img, unsigned nthreads, verify_progress *progress,
    void *arg, struct verify_result *result, struct err *e);

/* The same with VERIFY_DEEP or 0. */
int image_verify_with(const struct image *img, unsigned flags, unsigned nthreads,
    verify_progress *progress, void *arg, struct verify_result *result, struct err *e);

#endif
