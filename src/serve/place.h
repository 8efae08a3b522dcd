/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PLACE_H
#define GMEM_SERVE_PLACE_H

#include <sched.h>
#include <stdbool.h>

#include "base/err.h"

/* Where the threads that answer faults run, and how urgently.  All zero: as any other thread.
 */
struct serve_place {
	enum {
		PLACE_FLOAT, /* where the scheduler puts them */
		PLACE_SAME, /* one on each CPU that this process may use */
		PLACE_LIST, /* one on each CPU of the list */
	} how;
	cpu_set_t cpus; /* of PLACE_LIST */
	enum {
		URGENT_NOT, /* like any other thread */
		URGENT_NICE, /* nice -20 */
		URGENT_FIFO, /* SCHED_FIFO, priority 1 */
	} urgency;
};

/* "float", "same", or CPUs ("0-3,6"); ERR_USAGE. */
int place_parse(struct serve_place *p, const char *text, struct err *e);

/* "other", "nice", "fifo"; ERR_USAGE. */
int place_parse_urgency(struct serve_place *p, const char *text, struct err *e);

/*
 * Whether threads may do this here, found by trying; before there are any.  *nthreads: how many
 * are of use, at most; 0 does not limit them.
 */
int place_check(const struct serve_place *p, unsigned *nthreads, struct err *e);

/* For the calling thread, the number-th of them. */
int place_take(const struct serve_place *p, unsigned number, struct err *e);

#endif
