/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_GRID_H
#define GMEM_INSPECT_GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gmem-inspect/span.h"
#include "image/image.h"

/* What a region looks like from afar: cells of equal size, counted. */
struct cell {
	uint64_t pages; /* of 4 KiB, that it covers */
	uint64_t stored;
	uint64_t hot; /* of those */
	uint64_t bytes; /* of the stored ones in the image */
};

/* A span and its cells; rows of `columns` cells, the last one may be short. */
struct block {
	struct span span;
	struct cell *cells; /* borrowed from the grid */
	uint64_t ncells;
};

struct grid {
	const struct object *object; /* borrowed */
	uint64_t cell_size; /* bytes, a power of two */
	unsigned columns; /* cells of a row */
	struct block *blocks; /* owned */
	size_t nblocks;
	struct cell *cells; /* owned: of all blocks */
	struct cell total;
};

/* Chooses the smallest cells with which the region takes about `rows` rows. */
int grid_new(struct grid **out, const struct image *img, const struct object *o,
    unsigned columns, unsigned rows, struct err *e);
void grid_free(struct grid *g);

/* How much of a cell is stored: 0 nothing … GRID_LEVELS - 1 everything. */
#define GRID_LEVELS 5u
unsigned cell_level(const struct cell *c);

/* Half of what it stores, or more, is hot: that is told instead. */
bool cell_is_hot(const struct cell *c);

/* How well it is compressed: 0 to less than a tenth … GRID_RATIOS - 1 hardly. */
#define GRID_RATIOS 5u
unsigned cell_ratio(const struct cell *c);

/* What a level or ratio class means, for legends. */
const char *level_text(unsigned level);
const char *ratio_text(unsigned ratio);

#endif
