/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_NEAR_H
#define GMEM_SERVE_NEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"

/*
 * The chunks that lie near pages of a set, each once, upwards: what is touched by another
 * request lies most of all near what one request has touched.
 */
struct near {
	const bitmap_word *set; /* borrowed */
	uint64_t npages; /* bits of it */
	uint32_t chunk; /* pages of a chunk */
	uint64_t reach; /* pages to both sides */
	uint64_t at; /* chunks below are done */
};

/* How far, in bytes; the chunks that hold the pages themselves are the first. */
#define NEAR_STEPS 4u
extern const uint64_t near_reach[NEAR_STEPS];

/* The next chunks [*first, *end), about `most`; false: there are no more. */
bool near_next(struct near *n, uint64_t most, uint64_t *first, uint64_t *end);

#endif
