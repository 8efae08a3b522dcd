/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_BITMAP_H
#define GMEM_BASE_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Atomic bit sets over memory that the caller owns (it may be shared between
 * processes), of bitmap_bytes(n) zeroed bytes.  Setting releases, testing
 * acquires: what was written before a bit was set is seen by who sees the bit.
 */
typedef _Atomic uint64_t bitmap_word;

static inline size_t
bitmap_bytes(uint64_t nbits)
{
	return (size_t)((nbits + 63) / 64 * 8);
}

static inline bool
bitmap_test(const bitmap_word *map, uint64_t bit)
{
	uint64_t word = atomic_load_explicit(
	    (bitmap_word *)(uintptr_t)&map[bit / 64], memory_order_acquire);

	return (word >> (bit % 64) & 1) != 0;
}

/* Sets the bit; true if this call changed it: the caller owns it now. */
static inline bool
bitmap_claim(bitmap_word *map, uint64_t bit)
{
	uint64_t mask = UINT64_C(1) << (bit % 64);

	return (atomic_fetch_or_explicit(&map[bit / 64], mask, memory_order_acq_rel) & mask) ==
	       0;
}

/* Sets the bits [first, end). */
static inline void
bitmap_fill(bitmap_word *map, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t from = first % 64;
		uint64_t n = 64 - from < end - first ? 64 - from : end - first;

		/* A whole word need not be read: of 64 GiB there are many. */
		if (n == 64)
			atomic_store_explicit(
			    &map[first / 64], UINT64_MAX, memory_order_release);
		else
			atomic_fetch_or_explicit(&map[first / 64],
			    UINT64_MAX >> (64 - n) << from, memory_order_acq_rel);
		first += n;
	}
}

static inline void
bitmap_clear(bitmap_word *map, uint64_t bit)
{
	atomic_fetch_and_explicit(
	    &map[bit / 64], ~(UINT64_C(1) << (bit % 64)), memory_order_acq_rel);
}

#endif
