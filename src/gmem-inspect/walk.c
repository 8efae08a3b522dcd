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

/* What it takes to look at the pages of a chunk. */
struct walk {
	struct image_reader *reader;
	const struct object *object;
	uint64_t chunk;
	struct entry entry;
	walk_visit *visit;
	void *arg;
};

/* The bytes of hot pages [first, end) of the chunk: a share of one record for each. */
static int
hot_bytes(const struct walk *w, uint32_t first, uint32_t end, uint64_t *bytes, struct err *e)
{
	uint64_t base = w->chunk * image_reader_image(w->reader)->g.pages;
	struct place p;

	*bytes = 0;
	for (uint32_t page = first; page < end; page++) {
		if (image_reader_place(w->reader, w->object, base + page, &p, e) == -1)
			return -1;
		*bytes += share(p.entry.length, p.rank, p.rank + 1,
		    image_reader_stored(w->reader, &p.entry));
	}
	return 0;
}

static bool
same_class(const struct entry *en, uint32_t a, uint32_t b)
{
	return entry_is_hot(en, a) == entry_is_hot(en, b) &&
	       entry_is_stored(en, a) == entry_is_stored(en, b);
}

static int
visit_run(const struct walk *w, uint32_t first, uint32_t end, struct err *e)
{
	const struct geometry *g = &image_reader_image(w->reader)->g;
	struct run run = {
		.offset = w->chunk * g->chunk_size + (uint64_t)first * PAGE_GRANULE,
		.npages = end - first,
		.hot = entry_is_hot(&w->entry, first),
	};
	uint32_t rank = entry_rank(&w->entry, first);

	if (!run.hot)
		run.bytes = share(w->entry.length, rank, rank + run.npages,
		    image_reader_stored(w->reader, &w->entry));
	else if (hot_bytes(w, first, end, &run.bytes, e) == -1)
		return -1;
	return w->visit(w->arg, &run, e);
}

static int
visit_chunk(const struct walk *w, struct err *e)
{
	uint32_t npages = image_reader_image(w->reader)->g.pages, first = 0, end;

	for (; first < npages; first = end) {
		for (end = first + 1; end < npages && same_class(&w->entry, first, end); end++)
			;
		if (!entry_is_zero(&w->entry, first) && visit_run(w, first, end, e) == -1)
			return -1;
	}
	return 0;
}

static int
walk(struct walk *w, struct err *e)
{
	int more;

	while ((more = image_reader_next(
		    w->reader, w->object, w->chunk, &w->chunk, &w->entry, e)) == 1) {
		if (visit_chunk(w, e) == -1)
			return -1;
		w->chunk++;
	}
	return more;
}

int
walk_object(const struct image *img, const struct object *o, walk_visit *visit, void *arg,
    struct err *e)
{
	struct walk w = { .object = o, .visit = visit, .arg = arg };
	int rc;

	if (image_reader_new(&w.reader, img, e) == -1)
		return -1;
	rc = walk(&w, e);
	image_reader_free(w.reader);
	return rc;
}
