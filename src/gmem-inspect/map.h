/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_MAP_H
#define GMEM_INSPECT_MAP_H

#include "base/err.h"
#include "format/manifest.h"
#include "image/image.h"
#include "image/out.h"

/* What a map is drawn of. */
struct map {
	const struct image *img; /* borrowed */
	const struct object *regions; /* borrowed: one, or all of the image */
	size_t nregions;
	unsigned width; /* cells of a row at most; 0: choose */
	struct out *out; /* where map_svg writes */
};

int map_text(const struct map *map, struct err *e);
int map_list(const struct map *map, struct err *e);
int map_json(const struct map *map, struct err *e);
int map_svg(const struct map *map, struct err *e);

#endif
