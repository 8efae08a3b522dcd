/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_HOT_H
#define GMEM_SNAP_HOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/manifest.h"
#include "format/trace.h"
#include "image/hot.h"

/*
 * Which pages are hot: those of recordings (--hot), in the order of their first touch.
 */
struct hot_traces {
	struct trace *v; /* owned */
	const char *const *paths; /* borrowed */
	size_t n;
};

/* The pages of one image, and what became of those of the traces. */
struct hot_choice {
	struct hot_page *pages; /* owned; `at` is not known yet */
	size_t n;
	uint64_t dropped; /* pages of traces that have no place in this memory */
	uint64_t over; /* pages behind the first HOT_PAGES_MAX */
	uint32_t nstored; /* set by hot_pack: those that are not zero */
};

/* Reads the files, before anything happens to a VM. */
int hot_traces_read(struct hot_traces *t, const char *const *paths, size_t n, struct err *e);
void hot_traces_free(struct hot_traces *t);

/*
 * The pages of all traces in these regions, each once: those of the first trace first.  root
 * is that of the image they are of, all zeros if there is none.  A trace none of whose pages
 * is there is an error: it is of another VM.
 */
int hot_choose(struct hot_choice *c, const struct hot_traces *t, const struct manifest *m,
    const uint8_t root[DIGEST_SIZE], struct err *e);
void hot_choice_free(struct hot_choice *c);

#endif
