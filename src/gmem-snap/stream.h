/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_STREAM_H
#define GMEM_SNAP_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/writer.h"

/*
 * Puts an object of unknown size into an image as its bytes come, in the
 * calling thread: VMM state is small.
 */
struct stream;

int stream_new(struct stream **out, struct image_writer *writer, int level, struct err *e);

/* NULL is fine. */
void stream_free(struct stream *s);

/* Starts a state; name and kind are borrowed until then only. */
int stream_begin(struct stream *s, const char *name, const char *kind, struct err *e);

/* More bytes of it. */
int stream_put(struct stream *s, const void *buf, size_t len, struct err *e);

/* That was all.  A state without a byte is an error. */
int stream_end(struct stream *s, struct err *e);

#endif
