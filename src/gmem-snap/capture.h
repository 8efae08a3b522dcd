/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_CAPTURE_H
#define GMEM_SNAP_CAPTURE_H

#include <stdint.h>

#include "base/err.h"
#include "image/hot-write.h"
#include "image/writer.h"
#include "memory/source.h"

/*
 * Copies memory into an image with all cores: what may hold data is cut into
 * jobs of about 1 MiB that start where a chunk starts; workers read a job and
 * make its records; the calling thread puts them into the image in order.  So
 * the image does not depend on the number of threads.  Memory is bounded by
 * four jobs for each thread.
 */
struct capture;

struct capture_params {
	struct image_writer *writer; /* borrowed */
	int level;
	unsigned nthreads;
	/* Called after each job: bytes of the object that are behind us.  -1 ends the copy. */
	int (*step)(void *arg, uint64_t done, struct err *e);
	void *arg;
};

/* Starts threads. */
int capture_new(struct capture **out, const struct capture_params *params, struct err *e);

/* Waits for the threads.  NULL is fine. */
void capture_free(struct capture *c);

/* The pages of a region that are in the hot section already. */
struct hot_region {
	const struct hot_set *set; /* borrowed; NULL: none */
	uint32_t region;
};

/*
 * Where the bytes come from.  next and read are those of a memory source; skip (or NULL) is
 * told of each range that is not read, between next and the next next.  The calling thread does
 * next and skip.
 */
struct capture_input {
	void *arg;
	int (*next)(void *arg, uint64_t from, uint64_t *start, uint64_t *end, struct err *e);
	int (*skip)(void *arg, uint64_t from, uint64_t to, struct err *e);
	int (*read)(void *arg, void *buf, size_t len, uint64_t off, struct err *e);
};

/* That of a memory source, which is borrowed. */
struct capture_input capture_source(struct memory_source *src);

/*
 * Adds [offset, offset + size) of the input to the object that was begun;
 * offset is a multiple of 4 KiB.  After a failure only capture_free is left.
 */
int capture_memory(struct capture *c, const struct capture_input *in, uint64_t offset,
    uint64_t size, const struct hot_region *hot, struct err *e);

#endif
