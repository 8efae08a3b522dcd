/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_COVER_H
#define GMEM_IMAGE_COVER_H

#include <stdint.h>

/*
 * The parts of a file lie one behind the other exactly if the places where they end are the
 * places where they begin, each as often, but for the first and the last.  As a sum of
 * what a key that nobody knows makes of these places, that takes no memory, and the parts
 * may come in any order.
 */
struct cover {
	uint64_t key, sum;
};

static inline uint64_t
cover_mix(const struct cover *c, uint64_t at)
{
	uint64_t x = at + c->key;

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline void
cover_add(struct cover *c, uint64_t at, uint64_t len)
{
	c->sum += cover_mix(c, at) - cover_mix(c, at + len);
}

#endif
