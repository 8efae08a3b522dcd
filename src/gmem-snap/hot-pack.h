/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_HOT_PACK_H
#define GMEM_SNAP_HOT_PACK_H

#include "base/err.h"
#include "gmem-snap/hot.h"
#include "image/writer.h"

/* Where workers read hot pages from: each has a reader of its own. */
struct hot_input {
	int (*reader_new)(void **reader, void *arg, struct err *e);
	void (*reader_free)(void *reader);
	/* 1: the page's 4096 bytes are in buf, unless that is NULL; 0: it is zero; -1 */
	int (*page)(void *reader, const struct hot_page *p, uint8_t *buf, struct err *e);
	void *arg; /* for reader_new */
};

struct hot_pack_params {
	struct image_writer *writer;
	int level;
	unsigned nthreads;
	struct hot_input input;
	/* Called after each job; -1 ends it. */
	int (*step)(void *arg, uint64_t done, struct err *e);
	void *arg;
};

/*
 * Writes the hot section: the pages that are not zero, side by side in the order of the
 * list, and the table.  Sets `at` of each page, and c->nstored.  The pages are looked at
 * twice and must not change.  Threads are started, and end here; the image does not depend
 * on their number, memory is bounded by four jobs of 1 MiB for each.
 */
int hot_pack(struct hot_choice *c, const struct hot_pack_params *params, struct err *e);

#endif
