/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_SMALL_IMAGE_H
#define GMEM_TESTS_SMALL_IMAGE_H

#include <stdint.h>
#include <stddef.h>

#include "base/err.h"

/* Repeatable pseudo-random numbers. */
uint64_t random_next(uint64_t *state);

/*
 * Fills memory page by page with what guests hold: zeros, text-like, repeated,
 * random.  `density` of 16 pages are not zero.
 */
void fill_memory(uint8_t *mem, size_t len, unsigned density, uint64_t seed);

/* One region "ram" of that memory, a state "device", an annotation. */
int small_image(
    const char *path, const uint8_t *mem, size_t len, uint32_t chunk_size, struct err *e);

#endif
