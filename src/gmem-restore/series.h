/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_SERIES_H
#define GMEM_RESTORE_SERIES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "serve/pager.h"

/*
 * What was given by when: a thread looks at the server's counters, every millisecond at
 * first.  When there is no place left every second sample goes, and the time between two
 * doubles; while nothing happens there are none.  It ends when all memory is there.
 */
#define SERIES_MAX 512

struct sample {
	uint64_t at; /* serve_now */
	uint64_t demand, around, prefetched, background; /* pages given */
	uint64_t zero; /* of these */
	uint64_t faults; /* answered, in whatever way */
	uint64_t bytes_read;
};

struct series;

/* The server is borrowed. */
int series_start(struct series **out, struct pager *s, struct err *e);

/*
 * The server's statistics, and the samples up to just these: the last one has the same
 * numbers.  At most SERIES_MAX of them go to list.
 */
size_t series_take(struct series *t, struct serve_stats *stats, struct server_times *times,
    struct pager_self *self, struct sample list[SERIES_MAX]);

/* Stops the thread; NULL is fine. */
void series_free(struct series *t);

#endif
