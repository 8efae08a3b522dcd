/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_CLAIMS_H
#define GMEM_SERVE_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/err.h"
#include "serve/engine.h"

/*
 * Who gives which page: four bits for each page of a memory object.  Whoever
 * takes a page must write it and then mark it given; nobody else ever writes it
 * again.
 *
 * A page that cannot be had (damage.c) stays taken and is marked bad instead: it is never
 * given, and never mapped.  Only its owner can end that, by discarding it: it is given then,
 * for it is zeros, and the mark means nothing any more.
 *
 * The bits lie in a memfd, behind what else has to be known of the memory.  If the memfd is
 * somebody else's, another server can go on with it when this one has died: resume.c.
 */
struct claims_head {
	uint64_t magic;
	uint64_t npages;
	atomic_bool checked; /* nobody had touched the memory when it came */
	atomic_bool known; /* engine and writes are */
	atomic_bool complete; /* all is there, nothing is registered: the bits are of no use */
	bool writes; /* struct served_object */
	uint32_t engine; /* enum serve_engine */
};

struct claims {
	int fd; /* the memfd; owned */
	void *map;
	uint64_t npages;
	struct claims_head *head; /* in the memfd, as are the bits */
	bitmap_word *taken, *given, *bad;
	/* Pages that some dead server had taken and not given: they may be there. */
	bitmap_word *doubted;
};

/*
 * A memfd with the claims of an object of `npages` pages (its size by the size of the pages
 * behind it, rounded up), for served_memory.claims.
 */
int claims_create(uint64_t npages, int *fd, struct err *e);

/* fd: of claims_create, which is duplicated; or 0 or less: claims of our own. */
int claims_init(struct claims *c, int fd, uint64_t npages, struct err *e);
void claims_fini(struct claims *c);

/* What was found out by trying, which cannot be tried again; it is looked at first. */
void claims_set_how(struct claims *c, enum serve_engine engine, bool writes);

/* Everything is given, and nobody looks any more: gives the memory back. */
void claims_shed(struct claims *c);

/* Nobody will go on with them: closes the memfd, which tells that memory is being filled. */
void claims_close(struct claims *c);

/*
 * After a server that has died, before anything is given: nobody is at a page that is taken and
 * not given, so it is free again, and doubted, unless it is bad; what is given is taken.
 */
void claims_settle(struct claims *c);

/* True: the page is the caller's to write. */
static inline bool
claims_take(struct claims *c, uint64_t page)
{
	return bitmap_claim(c->taken, page);
}

static inline bool
claims_taken(const struct claims *c, uint64_t page)
{
	return bitmap_test(c->taken, page);
}

/* The page's content is in the memory object. */
static inline void
claims_give(struct claims *c, uint64_t page)
{
	bitmap_claim(c->given, page);
}

static inline bool
claims_given(const struct claims *c, uint64_t page)
{
	return bitmap_test(c->given, page);
}

/* The page, which the caller has taken, cannot be had. */
static inline void
claims_spoil(struct claims *c, uint64_t page)
{
	bitmap_claim(c->bad, page);
}

static inline bool
claims_bad(const struct claims *c, uint64_t page)
{
	return bitmap_test(c->bad, page) && !claims_given(c, page);
}

/* Whether a dead server may have put it there: then it is no wonder if it is. */
static inline bool
claims_doubted(const struct claims *c, uint64_t page)
{
	return bitmap_test(c->doubted, page);
}

/*
 * Pages [first, end) are zeros from now on, whoever has taken them.  Given before taken: who
 * finds them taken finds them given too, and waits for nobody.
 */
static inline void
claims_remove(struct claims *c, uint64_t first, uint64_t end)
{
	bitmap_fill(c->given, first, end);
	bitmap_fill(c->taken, first, end);
}

#endif
