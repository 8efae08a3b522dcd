/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_EXTENTS_H
#define GMEM_SERVE_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/*
 * Where an object has stored pages: stretches between which there are only zeros, long ones,
 * which the kernel makes itself when they are not registered.
 *
 * A block of at least 2 MiB is in an extent if anything of it is stored; huge pages, also
 * those that the kernel makes of its own accord, are in one as a whole or not at all.  There
 * are no more than EXTENTS_MAX, however large the object: its blocks are larger then.
 */
#define EXTENTS_MAX 512u
#define EXTENT_BLOCK (UINT64_C(2) << 20) /* the least */

struct extent {
	uint64_t off, len; /* bytes, whole blocks; the last may be shorter */
};

struct extents {
	struct extent *list; /* ascending */
	size_t n;
};

/*
 * `base`: where the object begins in its file; `length`: bytes of its memory, of pages of
 * page_size.
 */
int extents_find(struct extents *x, const struct image *img, const struct object *o,
    uint64_t base, uint64_t length, uint64_t page_size, struct err *e);

void extents_fini(struct extents *x);

#endif
