/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_CKD_H
#define GMEM_BASE_CKD_H

#include <stdbool.h>
#include <stdint.h>

/* Checked arithmetic in the manner of C23: true means that it did not fit. */
#define ckd_add(r, a, b) __builtin_add_overflow((a), (b), (r))
#define ckd_sub(r, a, b) __builtin_sub_overflow((a), (b), (r))
#define ckd_mul(r, a, b) __builtin_mul_overflow((a), (b), (r))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline bool
is_pow2(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

/* a / b rounded up; b is not 0. */
static inline uint64_t
div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* Rounding to a power of two; align_up may wrap for x near 2^64. */
static inline uint64_t
align_down(uint64_t x, uint64_t align)
{
	return x & ~(align - 1);
}

static inline uint64_t
align_up(uint64_t x, uint64_t align)
{
	return (x + align - 1) & ~(align - 1);
}

#endif
