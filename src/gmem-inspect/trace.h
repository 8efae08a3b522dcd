/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_TRACE_H
#define GMEM_INSPECT_TRACE_H

#include <stdint.h>

#include "base/err.h"
#include "format/trace.h"
#include "image/image.h"
#include "image/out.h"

/* Pages of 4 KiB. */
struct trace_count {
	uint64_t pages;
	uint64_t reads, writes; /* first touches of either kind; merged ones may be both */
};

/* What the pages are in the image that was given. */
struct trace_in_image {
	uint64_t stored, zero; /* stored: hot ones too */
	uint64_t hot;
	uint64_t elsewhere; /* they have no place there */
};

/* A trace that was named on the command line. */
struct trace_file {
	const char *path; /* borrowed */
	struct trace t;
	struct trace_count all, *regions; /* regions: owned, one for each */
	uint64_t next; /* pages that lie behind the one that was touched before */
	struct trace_in_image in_image;
};

/* Two traces, in the regions of the first. */
struct trace_pair {
	const struct trace_file *a, *b;
	uint64_t na, nb; /* pages of each; of b also those that a's guest has not */
	uint64_t common;
};

struct traces {
	struct trace_file *list;
	size_t n;
	const struct image *img; /* or NULL */
};

/* Counts all of a trace but what it is in an image. */
int trace_file_count(struct trace_file *f, struct err *e);
int trace_file_in_image(struct trace_file *f, const struct image *img, struct err *e);

/* When the first `part` of 100 pages had been touched, ms. */
uint32_t trace_file_time(const struct trace_file *f, unsigned part);

int trace_pair_count(struct trace_pair *p, const struct trace_file *a,
    const struct trace_file *b, struct err *e);

static inline uint64_t
trace_pair_either(const struct trace_pair *p)
{
	return p->na + p->nb - p->common;
}

int traces_text(const struct traces *all, struct err *e);
int traces_json(const struct traces *all, struct err *e);
int traces_list(const struct traces *all, struct err *e);

/*
 * A trace of the pages of any, or of all of them, for the image of the first.  Each page has
 * its earliest time.
 */
int traces_merge(const struct traces *all, bool intersection, struct trace *t, struct err *e);

#endif
