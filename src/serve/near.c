/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/near.h"

#include "base/ckd.h"

const uint64_t near_reach[NEAR_STEPS] = { 0, 64u << 10, 256u << 10, 1024u << 10 };

/* The first page of the set from `page` on, or npages. */
static uint64_t
next_page(const struct near *n, uint64_t page)
{
	while (page < n->npages) {
		uint64_t word =
		    atomic_load_explicit(
			(bitmap_word *)(uintptr_t)&n->set[page / 64], memory_order_relaxed) >>
		    (page % 64);

		if (word != 0)
			return MIN(page + (uint64_t)__builtin_ctzll(word), n->npages);
		page = (page / 64 + 1) * 64;
	}
	return n->npages;
}

static uint64_t
chunk_before(const struct near *n, uint64_t page)
{
	return (page - MIN(page, n->reach)) / n->chunk;
}

static uint64_t
chunk_behind(const struct near *n, uint64_t page)
{
	return MIN(page + n->reach, n->npages - 1) / n->chunk + 1;
}

bool
near_next(struct near *n, uint64_t most, uint64_t *first, uint64_t *end)
{
	uint64_t from = n->at * n->chunk, page;

	page = next_page(n, from - MIN(from, n->reach));
	if (page == n->npages || from >= n->npages)
		return false;
	*first = MAX(n->at, chunk_before(n, page));
	*end = chunk_behind(n, page);
	while (*end - *first < most) {
		/* Those that reach no further than this chunk need not be looked at. */
		page = next_page(
		    n, MAX(page + 1, *end * n->chunk - MIN(*end * n->chunk, n->reach)));
		if (page == n->npages || chunk_before(n, page) > *end)
			break;
		*end = chunk_behind(n, page);
	}
	n->at = *end;
	return true;
}
