/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_REGION_H
#define GMEM_SNAP_REGION_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/err.h"
#include "format/manifest.h"
#include "gmem-snap/capture.h"
#include "memory/process.h"
#include "memory/source.h"

/* A piece of memory that becomes a region of the image. */
struct region {
	struct object object; /* what the image says of it; borrowed from an arena */
	struct memory_source *source; /* owned */
	uint64_t offset; /* of its first byte in the source */
	struct capture_input input; /* instead of the source itself, or all NULL */
};

struct regions {
	struct region *v; /* owned */
	size_t n;
};

/* Room for n regions, all zero. */
int regions_alloc(struct regions *r, size_t n, struct err *e);
/*
 * One more: takes the source, also on failure.  The strings and segments of the object are
 * borrowed.
 */
int regions_add(struct regions *r, const struct object *o, struct memory_source *source,
    uint64_t offset, struct err *e);
void regions_fini(struct regions *r);

/* Bytes of all of them. */
uint64_t regions_size(const struct regions *r);

/*
 * Turns names of anything into names of regions, all different: the last part
 * of a path, '_' for what a name may not have, -1, -2… behind a name that was
 * there before.  The strings live in the arena.
 */
int region_names(const char **names, size_t n, struct arena *arena, struct err *e);

#endif
