/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PREFETCHER_H
#define GMEM_SERVE_PREFETCHER_H

#include "serve/batch.h"

/* What prefetch.c and premap.c share. */
#define THREADS_MAX 8u

struct new_mapping {
	struct new_mapping *next;
	struct mapping m;
};

struct prefetch_thread {
	struct prefetch *p;
	struct batch batch;
	pthread_t thread;
	bool leader, started;
};

struct prefetch {
	struct server *s;
	struct plan plan;
	struct cold cold;
	struct sweep *sweeps; /* PREFETCH_ALL: one for each object; else NULL */
	atomic_size_t sweep;
	_Atomic(bitmap_word **) wanted; /* of each object: pages (4 KiB) of the list; or NULL */
	uint64_t began;
	size_t bytes; /* of a batch */
	unsigned nthreads;
	struct prefetch_thread threads[THREADS_MAX];

	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned working; /* threads that may give something yet */
	struct new_mapping *mappings; /* that nobody has looked at */
	bool stop;
};

/* Maps what was given before in all mappings that are new. */
int premap(struct prefetch_thread *t, struct err *e);

#endif
