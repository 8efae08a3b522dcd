/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/layout.h"

#include "base/ckd.h"
#include "format/node.h"

#define ENTRY_FIXED 24u /* offset, length, flags, checksum */
#define ENTRY_SIZE_MIN 32u
#define MASK_SIZE_MIN 4u

int
geometry_init(struct geometry *g, uint32_t chunk_size, struct err *e)
{
	if (!is_pow2(chunk_size) || chunk_size < CHUNK_SIZE_MIN || chunk_size > CHUNK_SIZE_MAX)
		return err_set(e, ERR_UNSUPPORTED,
		    "chunk size %u is not a power of two from %u to %u", chunk_size,
		    CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
	g->chunk_size = chunk_size;
	g->pages = chunk_size / PAGE_GRANULE;
	g->mask_size = MAX(g->pages / 8, MASK_SIZE_MIN);
	g->entry_size = ENTRY_SIZE_MIN;
	while (g->entry_size < ENTRY_FIXED + 2 * g->mask_size)
		g->entry_size *= 2;
	g->leaf_fanout = NODE_SIZE / g->entry_size;
	return 0;
}
