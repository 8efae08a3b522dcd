/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_INFO_H
#define GMEM_INSPECT_INFO_H

#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/* The amounts of an object, or of several. */
struct amount {
	uint64_t size; /* bytes */
	uint64_t pages; /* of 4 KiB */
	uint64_t stored; /* pages; the others are zero */
	uint64_t hot; /* of the stored ones */
	uint64_t packed; /* bytes of the stored ones in the image */
};

/* What `info` prints besides what the image holds by itself. */
struct info {
	const struct image *img; /* borrowed */
	struct amount memory; /* of all regions */
};

/*
 * Hot pages of a region count with it; of their bytes in the image a region has its part by
 * the number of pages.
 */
struct amount amount_of(const struct manifest *m, const struct object *o);

/* Bytes that the stored pages were. */
uint64_t amount_plain(const struct amount *a);

void info_text(const struct info *info);
int info_json(const struct info *info, struct err *e);

#endif
