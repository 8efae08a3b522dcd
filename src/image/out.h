/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_OUT_H
#define GMEM_IMAGE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * A file that is published on purpose and vanishes by default.  It is written
 * without a name (O_TMPFILE, else under a temporary one) and gets its name
 * when it is whole and synced.  A pipe or device is written as it goes.
 */
struct out;

/*
 * path "-" is standard output.  An existing regular file is an error unless
 * replace.  New files have mode 0600.
 */
int out_open(struct out **out, const char *path, bool replace, struct err *e);

/* Appends. */
int out_write(struct out *o, const void *buf, size_t len, struct err *e);

/* Appends len zeros: a hole in a file, bytes in a pipe or device. */
int out_skip(struct out *o, uint64_t len, struct err *e);

/* Where the next byte goes. */
uint64_t out_offset(const struct out *o);

/* Whether out_patch works: not for a pipe. */
bool out_seekable(const struct out *o);

/* Writes over bytes that were written, after syncing what is before: the completeness mark. */
int out_patch(struct out *o, const void *buf, size_t len, uint64_t off, struct err *e);

/* Syncs, gives the file its name, syncs the folder.  Then only out_free is left to do. */
int out_commit(struct out *o, struct err *e);

/* The file is complete and has its name, whatever out_commit has returned. */
bool out_published(const struct out *o);

/* Without out_commit the file is gone.  NULL is fine. */
void out_free(struct out *o);

#endif
