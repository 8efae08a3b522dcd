/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_BATCH_H
#define GMEM_SERVE_BATCH_H

#include "image/cold.h"
#include "serve/hot.h"
#include "serve/prefetch.h"
#include "serve/scatter.h"

/*
 * Giving many pages at once, of one thread: some chunks are read together, decoded, and their
 * pages are put where they belong in runs as long as they come.
 */
#define BATCH_BYTES ((size_t)512 << 10) /* of pages, or one chunk */
#define LOCKED_BYTES ((size_t)4 << 20) /* of all threads together: RLIMIT_MEMLOCK is 8 MiB */

struct job; /* a chunk */

struct batch {
	struct filler filler;
	struct cold *cold; /* shared */
	stat_counter *count; /* of filler.stats: what its pages are called there */
	bool demand; /* others may ask meanwhile: they go first */
	unsigned share; /* for so many times as long as was worked, at most */
	struct aside *aside; /* where it is decoded; NULL: here */
	bool only_at_hand; /* what would have to come from the disk is left alone, and then … */
	bool away; /* … this is set */
	uint64_t worked; /* since when nobody was let go first */
	unsigned max; /* chunks at once */
	struct job *jobs;
	unsigned njobs;
	struct scatter pages, zeros;
	uint8_t *in; /* records */
	size_t in_size;
	uint8_t *out; /* their pages; locked */
	size_t out_size, out_used;
};

/* For pages of `bytes` at once, or one chunk.  To be freed also on failure. */
int batch_init(struct batch *b, struct server *s, struct cold *cold, size_t bytes, bool demand,
    struct err *e);
void batch_fini(struct batch *b);

/* Gives groups [first, end), as plan_take has given them for b->max. */
int batch_groups(
    struct batch *b, const struct plan *p, size_t first, size_t end, struct err *e);

/*
 * Gives what an object stores in chunks [first, end).  *next is the first chunk behind them
 * that stores anything, or UINT64_MAX.
 */
int batch_chunks(struct batch *b, size_t object, uint64_t first, uint64_t end, uint64_t *next,
    struct err *e);

/* Lets demand faults go first, b->share times as long as was worked since the last time at
 * most. */
void batch_give_way(struct batch *b);

/* ---- eager.c ---- */

/* All of one object; many threads at once. */
struct sweep {
	struct plan hot; /* its hot pages: these first */
	size_t object;
	pthread_mutex_t lock;
	uint64_t next; /* chunk that nobody has taken */
};

/* `hot`: its hot pages too.  To be freed also on failure. */
int sweep_init(struct sweep *w, const struct server *s, size_t object, bool hot, struct err *e);
void sweep_fini(struct sweep *w);

/* Gives some more of it: 1; 0: all of it is given or being given; -1. */
int sweep_some(struct sweep *w, struct batch *b, struct err *e);

#endif
