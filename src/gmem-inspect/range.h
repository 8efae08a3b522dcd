/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_RANGE_H
#define GMEM_INSPECT_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "gmem-inspect/span.h"
#include "image/image.h"

/* A run of pages of one class in one span of a region: as long as possible. */
struct range {
	const struct object *object;
	uint64_t offset, size; /* in the region, bytes */
	bool mapped;
	uint64_t gpa; /* if mapped */
	enum page_class {
		PAGE_ZERO,
		PAGE_STORED,
		PAGE_HOT, /* stored in the hot section */
	} class;
	uint64_t bytes; /* in the image; of a partly used record, a share of it */
};

typedef int range_visit(void *arg, const struct range *range, struct err *e);

/* Visits the ranges of a region in the order of offsets; together they are the region. */
int ranges_of(const struct image *img, const struct object *o, range_visit *visit, void *arg,
    struct err *e);

/* "stored", "hot" or "zero". */
const char *range_class(const struct range *range);

#endif
