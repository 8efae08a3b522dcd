/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_WALK_H
#define GMEM_INSPECT_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "format/manifest.h"
#include "image/image.h"

/*
 * A run of stored pages inside one chunk, [offset, offset + npages * 4096) of
 * the object, all of them hot or none, and its share of the bytes of the records
 * that they are in.  Shares of a record add up to its length.
 */
struct run {
	uint64_t offset, npages, bytes;
	bool hot;
};

typedef int walk_visit(void *arg, const struct run *run, struct err *e);

/* Visits every run of an object in ascending order; reads the index only. */
int walk_object(const struct image *img, const struct object *o, walk_visit *visit, void *arg,
    struct err *e);

/* The part of `bytes` that belongs to items [first, last) of n, so that parts add up. */
uint64_t share(uint64_t bytes, uint64_t first, uint64_t last, uint64_t n);

#endif
