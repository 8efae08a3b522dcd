/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/extents.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "image/reader.h"

/* At most every second block begins an extent. */
static uint64_t
block_size(uint64_t length, uint64_t page_size)
{
	uint64_t block = MAX(EXTENT_BLOCK, page_size);

	while (div_up(length, block) >= 2u * EXTENTS_MAX)
		block *= 2;
	return block;
}

/* Block boundaries are those of the file: huge pages of the kernel's own lie there. */
static void
add_block(struct extents *x, uint64_t base, uint64_t length, uint64_t block, uint64_t at)
{
	uint64_t first = align_down(base + at, block), end = MIN(first + block - base, length);
	struct extent *last = x->n > 0 ? &x->list[x->n - 1] : NULL;

	first = first > base ? first - base : 0;
	if (last != NULL && last->off + last->len >= first)
		last->len = MAX(last->len, end - last->off);
	else
		x->list[x->n++] = (struct extent){ first, end - first };
}

static int
find(struct extents *x, struct image_reader *r, const struct image *img, const struct object *o,
    uint64_t base, uint64_t length, uint64_t block, struct err *e)
{
	uint64_t chunk_size = img->g.chunk_size, chunk = 0, at, end;
	struct entry en;
	int more;

	while ((more = image_reader_next(r, o, chunk, &chunk, &en, e)) == 1) {
		at = chunk * chunk_size;
		end = MIN(at + chunk_size, length);
		/* A chunk may have several blocks. */
		while (at < end) {
			add_block(x, base, length, block, at);
			at = x->list[x->n - 1].off + x->list[x->n - 1].len;
		}
		/* The rest of the block need not be looked at. */
		chunk = at / chunk_size;
	}
	return more;
}

int
extents_find(struct extents *x, const struct image *img, const struct object *o, uint64_t base,
    uint64_t length, uint64_t page_size, struct err *e)
{
	struct image_reader *r = NULL;
	int rc = -1;

	*x = (struct extents){ .list = calloc(EXTENTS_MAX + 2, sizeof(*x->list)) };
	if (x->list == NULL)
		err_sys(e, "page server");
	else if (image_reader_new(&r, img, e) == 0) {
		image_reader_urgent(r, true); /* who adds the memory waits */
		rc = find(x, r, img, o, base, length, block_size(length, page_size), e);
	}
	image_reader_free(r);
	if (rc == -1)
		extents_fini(x);
	return rc;
}

void
extents_fini(struct extents *x)
{
	free(x->list);
	*x = (struct extents){ 0 };
}
