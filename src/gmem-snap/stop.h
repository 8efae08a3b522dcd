/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_STOP_H
#define GMEM_SNAP_STOP_H

#include <stdbool.h>

#include "base/err.h"

/*
 * SIGINT, SIGTERM and SIGHUP ask us to stop at the next safe point.  Who asks
 * a second time gets the default action, and so does who asked while we are stuck
 * (writing to a pipe that nobody reads, say) for STOP_GRACE_S: the guardian then
 * does what is left to do.  Signals that were ignored stay ignored.
 */
#define STOP_GRACE_S 20

/* Takes the signals, and ignores SIGPIPE and SIGXFSZ: write(2) tells as well. */
int stop_init(struct err *e);

/* Readable once somebody asked. */
int stop_fd(void);

/* -1 with ERR_INTERRUPTED once somebody asked. */
int stop_check(struct err *e);

/* We have noticed: from here on there is no hurry. */
void stop_noticed(void);

#endif
