/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_SPAN_H
#define GMEM_INSPECT_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/manifest.h"

/* A piece of a region that lies in one piece in the guest physical address space, or nowhere.
 */
struct span {
	uint64_t offset, size; /* in the region */
	bool mapped;
	uint64_t gpa; /* if mapped */
};

/*
 * Cuts a region into spans, in the order of offsets, without gaps or overlaps.
 * Memory that the guest sees twice is shown where its first segment is.  *list
 * is malloc'd.
 */
int spans_new(struct span **list, size_t *n, const struct object *o, struct err *e);

/* The address that a span begins at, or its offset if it has none. */
uint64_t span_address(const struct span *s);

#endif
