/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_REPACK_H
#define GMEM_SNAP_REPACK_H

#include "base/err.h"
#include "image/hot-write.h"
#include "image/image.h"
#include "image/writer.h"

/*
 * Copies objects of one image into another with all cores: what is packed alike in both
 * is checked and copied as it is, the rest is packed anew.  Memory is bounded by four
 * jobs for each thread.
 */
struct repack;

struct repack_params {
	const struct image *from; /* borrowed, as the rest */
	struct image_writer *writer;
	int level;
	bool same_level; /* as records of `from` were made, as far as is known */
	const struct hot_set *hot; /* pages that are left out of records, or NULL */
	unsigned nthreads;
	/* Called after each job: bytes of the object that are behind us.  -1 ends the copy. */
	int (*step)(void *arg, uint64_t done, struct err *e);
	void *arg;
};

/* Starts threads. */
int repack_new(struct repack **out, const struct repack_params *params, struct err *e);
void repack_free(struct repack *r);

/* Copies an object of `from`, whose number is `region` if it is one. */
int repack_object(
    struct repack *r, const struct object *o, bool state, uint32_t region, struct err *e);

#endif
