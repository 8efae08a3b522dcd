/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_SOURCE_LAYERS_H
#define GMEM_MEMORY_SOURCE_LAYERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/source.h"

/*
 * What lies on top of a memory source: sparse files of its size, whose data takes the place of
 * what is below, and whose holes leave it.  For source.c alone, but for adding them
 * (memory_source_add_layer).
 */
struct source_layers {
	struct source_layer *v; /* owned; the topmost last */
	size_t n;
};

void source_layers_fini(struct source_layers *l);

/* One more, on top; takes fd, also on failure.  *holes: how many bytes it leaves as they are.
 */
int source_layers_add(
    struct source_layers *l, int fd, uint64_t size, uint64_t *holes, struct err *e);

/* The next data at or after from: 1, or 0.  Byte for byte; pieces of a run as they come. */
int source_layers_next(
    const struct source_layers *l, uint64_t from, uint64_t *start, uint64_t *end);

/* Puts what the layers have of [off, off + len) over what is in buf.  Any number of threads. */
int source_layers_read(
    const struct source_layers *l, void *buf, size_t len, uint64_t off, struct err *e);

#endif
