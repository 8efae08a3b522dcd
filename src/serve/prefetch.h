/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PREFETCH_H
#define GMEM_SERVE_PREFETCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/err.h"
#include "image/cold.h"

/*
 * Giving pages before anybody asks for them: those that are known to be asked for soon.
 *
 * It begins as soon as all memory is there, while the VMM is still starting, and its threads
 * give way to demand faults.  Pages are put into the memory objects even before anybody has
 * mapped them; once somebody has, they are mapped there in long runs.  Memory of the VMM's own
 * is filled as soon as all of it is mapped.
 */
enum prefetch_kind {
	PREFETCH_NONE,
	PREFETCH_HOT, /* the image's hot pages; nothing if it has none */
	PREFETCH_LIST, /* those of a list */
	PREFETCH_ALL, /* everything that is stored, hot pages first */
};

struct page_ref; /* format/trace.h */

struct prefetch_options {
	enum prefetch_kind kind;
	/* PREFETCH_LIST: in the order of the first touches, each once; borrowed. */
	const struct page_ref *list;
	size_t nlist;
	unsigned nthreads; /* 0: as many as CPUs, at least 2 */
	enum cold_io io;
};

/* What is known of a page on the list. */
struct wanted {
	uint64_t page; /* 4 KiB, in its region */
	uint32_t region;
	uint32_t at; /* page of its chunk */
};

/* Pages that come from one place. */
struct page_group {
	enum {
		GROUP_CHUNK, /* a chunk of the region's */
		GROUP_HOT, /* a chunk of the hot pages' */
		GROUP_ZERO, /* nowhere: they are zeros */
		GROUP_UNIT, /* whole huge pages */
	} kind;
	uint32_t region; /* of the first page; but for GROUP_HOT of all */
	uint64_t chunk; /* or the number of the huge page */
	size_t first; /* in plan.pages, by page */
	uint32_t n;
	uint32_t order; /* of the first touch among them */
};

/* The pages of a list, by where they come from, in the order of the first touches. */
struct plan {
	struct wanted *pages;
	size_t npages;
	struct page_group *groups;
	size_t ngroups;
	pthread_mutex_t lock;
	size_t next; /* group that nobody has taken */
};

struct server;

#define PLAN_ALL_REGIONS SIZE_MAX

struct plan_options {
	bool hot; /* the hot pages, else those of the list */
	bool zeros; /* hot pages of zeros too */
	size_t region; /* of this one, or PLAN_ALL_REGIONS */
	const struct page_ref *list;
	size_t nlist;
};

/*
 * Where those pages come from, in the memory that the server has by now.  To be freed also on
 * failure.
 */
int plan_make(
    struct plan *p, const struct server *s, const struct plan_options *o, struct err *e);
void plan_free(struct plan *p);

/*
 * Takes groups [*first, *end) for one batch: of `chunks` chunks at most, and of PLAN_ZEROS
 * pages of GROUP_ZERO.  False when nothing is left.  Any thread.
 */
#define PLAN_ZEROS 1024u
bool plan_take(struct plan *p, unsigned chunks, size_t *first, size_t *end);

/* ---- for server.c ---- */

struct prefetch;

/* With s->lock, when all memory is there: starts the threads, if there is anything to do. */
int prefetch_start(struct server *s, struct err *e);

/*
 * With s->lock: there is a new mapping, where what was given before is to be mapped; or
 * (NULL) memory of the VMM's own is all mapped now.
 */
struct mapping;
void prefetch_mapping(struct server *s, const struct mapping *m);

/* The pages (4 KiB) of an object that are on the list, a bit for each; NULL: there is none. */
const bitmap_word *prefetch_wanted(const struct server *s, size_t object);

/* Until all of it is given; false: the server is being freed or has failed. */
bool prefetch_await(struct server *s);

/* Ends the threads, which use processes; s->stop is set. */
void prefetch_stop(struct server *s);

/* When nobody answers faults any more, either. */
void prefetch_free(struct server *s);

/* A fault asks for a page (4 KiB) that nobody has given yet. */
struct filler;
void prefetch_note_fault(struct filler *f, size_t object, uint64_t page);

#endif
