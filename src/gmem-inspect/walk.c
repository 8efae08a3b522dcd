/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/walk.h"

#include "format/node.h"
#include "image/reader.h"

uint64_t
share(uint64_t bytes, uint64_t first, uint64_t last, uint64_t n)
{
	__extension__ typedef unsigned __int128 wide;

	return (uint64_t)((wide)bytes * last / n - (wide)bytes * first / n);
}

static int
visit_chunk(const struct geometry *g, uint64_t chunk, const struct entry *en, uint32_t stored,
    walk_visit *visit, void *arg, struct err *e)
{
	uint32_t rank = 0, page = 0;

	while (rank < stored) {
		struct run run;
		uint32_t first;

		while (!entry_is_stored(en, page))
			page++;
		first = page;
		while (page < g->pages && entry_is_stored(en, page))
			page++;
		run.offset = chunk * g->chunk_size + (uint64_t)first * PAGE_GRANULE;
		run.npages = page - first;
		run.bytes = share(en->length, rank, rank + run.npages, stored);
		rank += (uint32_t)run.npages;
		if (visit(arg, &run, e) == -1)
			return -1;
	}
	return 0;
}

static int
walk(struct image_reader *r, const struct geometry *g, const struct object *o,
    walk_visit *visit, void *arg, struct err *e)
{
	uint64_t from = 0, chunk;
	struct entry en;
	int more;

	while ((more = image_reader_next(r, o, from, &chunk, &en, e)) == 1) {
		if (visit_chunk(g, chunk, &en, image_reader_stored(r, &en), visit, arg, e) ==
		    -1)
			return -1;
		from = chunk + 1;
	}
	return more;
}

int
walk_object(const struct image *img, const struct object *o, walk_visit *visit, void *arg,
    struct err *e)
{
	struct image_reader *r;
	int rc;

	if (image_reader_new(&r, img, e) == -1)
		return -1;
	rc = walk(r, &img->g, o, visit, arg, e);
	image_reader_free(r);
	return rc;
}
