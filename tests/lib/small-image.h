/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_SMALL_IMAGE_H
#define GMEM_TESTS_SMALL_IMAGE_H

#include <stdint.h>
#include <stddef.h>

#include "base/err.h"
#include "image/hot.h"

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

/*
 * The same with these n pages hot; `at` is set here.  table: what the table says they are, if
 * that is a lie.
 */
int small_hot_image(const char *path, const uint8_t *mem, size_t len, uint32_t chunk_size,
    struct hot_page *hot, size_t n, const struct hot_page *table, struct err *e);

#endif
