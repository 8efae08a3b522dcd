/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "serve/near.h"
#include "tap.h"

/* serve/near.c: what lies near which pages, against looking at every chunk. */

#define MOST 2048u

static uint64_t seed = 1;

static uint64_t
draw(uint64_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (seed >> 33) % n;
}

static bool
is_near(const struct near *n, uint64_t chunk)
{
	for (uint64_t page = 0; page < n->npages; page++)
		if (bitmap_test(n->set, page) && page + n->reach >= chunk * n->chunk &&
		    page < (chunk + 1) * n->chunk + n->reach)
			return true;
	return false;
}

/* Each near chunk comes once, upwards, no other comes, and none past the end. */
static bool
holds(struct near n, uint64_t most)
{
	uint64_t nchunks = (n.npages + n.chunk - 1) / n.chunk, at = 0, first, end;

	while (near_next(&n, most, &first, &end)) {
		if (first < at || end <= first || end > nchunks)
			return false;
		for (; at < first; at++)
			if (is_near(&n, at))
				return false;
		for (; at < end; at++)
			if (!is_near(&n, at))
				return false;
	}
	for (; at < nchunks; at++)
		if (is_near(&n, at))
			return false;
	return true;
}

static bool
one(void)
{
	static bitmap_word set[MOST / 64];
	struct near n = { .set = set, .npages = 1 + draw(MOST), .chunk = 1u << draw(6) };

	memset(set, 0, sizeof(set));
	for (uint64_t i = draw(12); i > 0; i--)
		bitmap_claim(set, draw(n.npages));
	n.reach = draw(3) == 0 ? 0 : draw(200);
	return holds(n, 1 + draw(40));
}

int
main(void)
{
	unsigned good = 0;

	for (unsigned i = 0; i < 3000; i++)
		good += one();
	ok(good == 3000, "chunks near pages come once, and no others");
	done();
}
