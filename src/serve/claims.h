/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_CLAIMS_H
#define GMEM_SERVE_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/err.h"

/*
 * Who gives which page: two bits for each page of a memory object.  Whoever
 * takes a page must write it and then mark it given; nobody else ever writes it
 * again.  The bits lie in a memfd, so that another server can go on with them.
 */
struct claims {
	int fd; /* the memfd; owned */
	void *map;
	uint64_t npages;
	bitmap_word *taken, *given;
};

int claims_init(struct claims *c, uint64_t npages, struct err *e);
void claims_fini(struct claims *c);

/* Everything is given, and nobody looks any more: gives the memory back. */
void claims_shed(struct claims *c);

/* Nobody will go on with them: closes the memfd, which tells that memory is being filled. */
void claims_close(struct claims *c);

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
