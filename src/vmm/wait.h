/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_WAIT_H
#define GMEM_VMM_WAIT_H

#include <stdint.h>

#include "base/err.h"

/* What those share who wait for a VMM with a limit, until somebody wants out. */

/* CLOCK_MONOTONIC, milliseconds. */
int64_t wait_now_ms(void);

/* Somebody wanted out while we waited for the reply to `what`: ERR_INTERRUPTED; -1. */
int wait_interrupted(const char *what, struct err *e);

/* How long somebody waits. */
struct wait_limit {
	int64_t end_ms; /* of wait_now_ms; -1: there is no limit */
	int ms; /* what it was at the beginning, for the message */
	int stop_fd; /* readable: somebody wants out; -1: nobody can; borrowed */
};

/* From now on, ms milliseconds; -1: for ever. */
struct wait_limit wait_at_most(int ms, int stop_fd);

/*
 * Until fd is ready for events (of poll(2)): 0; or -1: the time was over, or somebody wanted
 * out.
 */
int wait_ready(
    int fd, short events, const struct wait_limit *limit, const char *what, struct err *e);

#endif
