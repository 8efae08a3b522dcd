/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PROTECT_INTERNAL_H
#define GMEM_SERVE_PROTECT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "format/layout.h"
#include "serve/page-pool.h"
#include "serve/protect.h"
#include "serve/uffd-protect.h"

/* What protect.c, for those who read, and protect-writes.c, for those who write, share. */

/*
 * What became of a page; from PAGE_IN_POOL on: its place in the pool.  The only ways are
 * from PROTECTED to one of the others, and from there to DONE.  Who takes a page out of
 * PROTECTED had read it before, and lets writers in after: so its bytes are those of the
 * moment, and so are those that a reader has read if he finds PROTECTED after that.
 */
enum {
	PAGE_PROTECTED,
	PAGE_ZERO, /* somebody wanted to write, it was a page of zeros */
	PAGE_DONE, /* read, or skipped */
	PAGE_IN_POOL,
};

#define PAGE ((uint64_t)PAGE_GRANULE)
#define PENDING_MAX 4096

struct guarded {
	struct protect_region r;
	uint64_t npages; /* of 4 KiB */
	uint64_t unit; /* pages of 4 KiB in one of the memory */
	_Atomic uint32_t *state; /* one a page */
	_Atomic uint32_t *undone; /* pages left of each unit; NULL if a unit is a page */
};

struct protect {
	int uffd; /* owned */
	int wake; /* an eventfd: the thread has something to do */
	struct guarded *regions;
	size_t nregions;
	struct protect_mapping *mappings;
	size_t nmappings;

	struct page_pool pool; /* the thread takes, readers give back */

	/* Of the thread: writes that wait for room in the pool, addresses. */
	uint64_t pending[PENDING_MAX];
	size_t npending;

	/*
	 * Odd while events are read, until what they say of discarded memory was taken: whoever
	 * discards goes on in between, so no page may become DONE that was read since.
	 */
	_Atomic uint64_t window;

	pthread_t thread;
	bool started;
	atomic_bool stop, spoilt;
	atomic_bool armed; /* the moment has come: what is discarded since is missed */
	pthread_mutex_t lock; /* of why */
	struct err why;
	_Atomic uint64_t saved, stalls;
};

/* What was read from now on is not of the moment any more; the first reason counts. */
void protect_spoil(struct protect *p, const struct err *e);

/* The thread has something to do. */
void protect_poke(const struct protect *p);

/* Gives a slot of the pool back; who waits for one is told. */
void protect_put_slot(struct protect *p, uint32_t slot);

/*
 * False: events have to be read first.  A process that has ended writes nothing, and neither
 * does a mapping that is gone: the thread hears of that by an event, and knows whether it
 * matters.
 */
bool protect_lift(struct protect *p, uint64_t hva, uint64_t len);

/* The thread that answers writes: arg is the struct protect. */
void *protect_main(void *arg);

#endif
