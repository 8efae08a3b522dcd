/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CLI_TIME_LIMIT_H
#define GMEM_CLI_TIME_LIMIT_H

#include "base/err.h"

/*
 * What may take for ever, since a file system hangs or nobody writes to a FIFO: whoever waits
 * there can't be interrupted, so the process says which file it is, and ends.
 */
struct time_limit;

/*
 * From now on `path` has so many seconds to be opened and read; 0: for ever, *out is NULL.
 * path is borrowed until time_limit_stop.
 */
int time_limit_start(
    struct time_limit **out, const char *path, unsigned seconds, struct err *e);

/* It was read, or has failed.  NULL is fine. */
void time_limit_stop(struct time_limit *l);

#endif
