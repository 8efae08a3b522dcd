/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_SCATTER_H
#define GMEM_SERVE_SCATTER_H

#include <sys/uio.h>

#include "serve/internal.h"

/*
 * Putting pages where they belong, from wherever they were decoded to: sorted, and in runs as
 * long as they come.  Each page is taken first; who has taken it is left alone.
 */
#define SCATTER_RUN 128u /* pages that are put there by one call */
#define SCATTER_RUN_DEMAND 16u /* the same where faults have to wait for it */

/* A page of 4 KiB. */
struct placed {
	uint64_t page;
	const uint8_t *from; /* in locked memory; NULL: it is zero */
	uint32_t region;
};

struct scatter {
	struct filler *f;
	struct placed *list;
	size_t n, max;
	bool demand; /* others may ask meanwhile */
	bool own; /* own.c may be used: nobody closes it meanwhile */
	uint8_t *stage; /* pages of one run that are to be copied at once */
	struct iovec iov[SCATTER_RUN];
};

/* For at most `max` pages at once.  To be freed also on failure, or if it is all zeros. */
int scatter_init(struct scatter *c, struct filler *f, size_t max, bool demand, struct err *e);
void scatter_fini(struct scatter *c);

static inline void
scatter_put(struct scatter *c, uint32_t region, uint64_t page, const uint8_t *from)
{
	if (c->n < c->max)
		c->list[c->n++] = (struct placed){ page, from, region };
}

/* Gives one that the caller has taken. */
int scatter_one(struct scatter *c, const struct placed *p, struct err *e);

/*
 * Gives them all, but for what others have taken; the list is empty then.  Between two runs
 * `between` is called, unless it is NULL.
 */
int scatter_give(
    struct scatter *c, stat_counter *count, void (*between)(void *), void *arg, struct err *e);

#endif
