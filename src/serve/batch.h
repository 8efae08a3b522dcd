/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_BATCH_H
#define GMEM_SERVE_BATCH_H

#include <sys/uio.h>

#include "image/cold.h"
#include "serve/internal.h"
#include "serve/prefetch.h"

/*
 * Giving many pages at once, of one thread: some chunks are read together, decoded, and their
 * pages are put where they belong in runs as long as they come.
 */
#define BATCH_BYTES ((size_t)512 << 10) /* of pages, or one chunk */
#define BATCH_RUN 128u /* pages that are put there by one call */
#define BATCH_RUN_DEMAND 16u /* the same where faults have to wait for it */
#define LOCKED_BYTES ((size_t)4 << 20) /* of all threads together: RLIMIT_MEMLOCK is 8 MiB */

struct job; /* a chunk */
struct placed; /* a page that was decoded */

struct batch {
	struct filler filler;
	struct cold *cold; /* shared */
	stat_counter *count; /* of filler.stats: what its pages are called there */
	bool demand; /* others may ask meanwhile: they go first */
	uint64_t worked; /* since when nobody was let go first */
	unsigned max; /* chunks at once */
	struct job *jobs;
	unsigned njobs;
	struct placed *placed, *zeros;
	size_t nplaced, nzeros;
	uint8_t *in; /* records */
	size_t in_size;
	uint8_t *out; /* their pages; locked */
	size_t out_size, out_used;
	uint8_t *stage; /* pages of one run that are to be copied at once */
	struct iovec iov[BATCH_RUN];
};

/* For pages of `bytes` at once, or one chunk.  To be freed also on failure. */
int batch_init(struct batch *b, struct server *s, struct cold *cold, size_t bytes,
    bool demand, struct err *e);
void batch_fini(struct batch *b);

/* Gives groups [first, end) of the plan; at most b->max. */
int batch_groups(
    struct batch *b, const struct plan *p, size_t first, size_t end, struct err *e);

/*
 * Gives what an object stores in chunks [first, end).  *next is the first chunk behind them
 * that stores anything, or UINT64_MAX.
 */
int batch_chunks(struct batch *b, size_t object, uint64_t first, uint64_t end, uint64_t *next,
    struct err *e);

/* Lets demand faults go first, for as long as was worked since the last time at most. */
void batch_give_way(struct batch *b);

/* ---- eager.c ---- */

/* All of one object; many threads at once. */
struct sweep {
	size_t object;
	pthread_mutex_t lock;
	uint64_t next; /* chunk that nobody has taken */
};

void sweep_init(struct sweep *w, size_t object);
void sweep_fini(struct sweep *w);

/* Gives some more of it: 1; 0: all of it is given or being given; -1. */
int sweep_some(struct sweep *w, struct batch *b, struct err *e);

#endif
