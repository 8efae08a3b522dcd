/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_TRACE_FILE_H
#define GMEM_IMAGE_TRACE_FILE_H

#include "base/err.h"
#include "format/trace.h"
#include "image/out.h"

/*
 * Files of gmem-trace(5).  Errors begin with the path.
 */

/* t is zeroed first and is to be freed also after an error.  fd stays open; it is read to its
 * end, and may be a pipe. */
int trace_read_fd(struct trace *t, int fd, const char *path, struct err *e);
int trace_read_file(struct trace *t, const char *path, struct err *e);

/* Whether there is a file of that name that is no trace: nobody wants to lose that. */
int trace_check_replace(const char *path, struct err *e);

/* Writes and publishes (out_commit).  The out is still the caller's to free. */
int trace_write(struct out *out, const struct trace *t, struct err *e);

#endif
