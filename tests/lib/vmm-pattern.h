/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_VMM_PATTERN_H
#define GMEM_TESTS_VMM_PATTERN_H

/*
 * Memory that can be made again, page by page, from a number: vmm-image puts it
 * into an image, vmm-touch compares what a restored VMM sees with it.
 */

#include <stdint.h>
#include <string.h>

#define PATTERN_PAGE 4096u

struct pattern {
	uint64_t seed;
	unsigned
	    density; /* of 32 stretches of 32 pages: how many hold data, half of their pages */
};

static inline uint64_t
pattern_mix(uint64_t x)
{
	x += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
	return x ^ x >> 31;
}

static inline int
pattern_is_zero(const struct pattern *p, uint64_t page)
{
	uint64_t stretch = pattern_mix(p->seed ^ pattern_mix(page / 32));

	return stretch % 32 >= p->density || pattern_mix(stretch + page) % 4 == 0;
}

/* Fills one page; every page that is not zero differs from every other. */
static inline void
pattern_page(const struct pattern *p, uint64_t page, uint64_t *words)
{
	uint64_t state = pattern_mix(p->seed + page * 3 + 1), kind = state % 4;

	if (pattern_is_zero(p, page)) {
		memset(words, 0, PATTERN_PAGE);
		return;
	}
	for (unsigned i = 0; i < PATTERN_PAGE / 8; i++) {
		if (kind == 0 || i % 16 == 0)
			state = pattern_mix(state);
		words[i] = state + (kind == 1 ? i : 0);
	}
}

#endif
