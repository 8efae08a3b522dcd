/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_START_H
#define GMEM_INSPECT_START_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Statistics of a start, as gmem-restore --stats wrote them: gmem-stats(5). */
#define START_FILE_MAX ((size_t)4 << 20) /* bytes */
#define START_SAMPLES_MAX 4096u
#define START_BUCKETS_MAX 1024u
#define START_NUMBER_MAX (UINT64_C(1) << 53)

/* What happened, in the order in which it does most often. */
enum start_mark {
	MARK_LAUNCHED,
	MARK_FIRST_MAPPING,
	MARK_FIRST_FAULT,
	MARK_CONNECTED,
	MARK_LOADED,
	MARK_PREFETCHED,
	MARK_RUNNING,
	MARK_COMPLETE,
	MARK_ENDED,
	MARKS
};

/* How pages came. */
enum start_class { CLASS_PREFETCHED, CLASS_DEMAND, CLASS_AROUND, CLASS_BACKGROUND, CLASSES };

struct start_latency {
	uint64_t count, p50, p90, p99, max; /* ns */
	size_t nbuckets;
	struct {
		uint64_t bound, count; /* the upper end, ns */
	} buckets[START_BUCKETS_MAX];
};

enum { BY_STORED, BY_HOT, BY_ZERO, BY_PRESENT, BYS };

struct start {
	const char *path; /* borrowed */
	char *image, *engine; /* owned; a stranger's text */
	double marks[MARKS]; /* ms; below 0: it has not happened */
	struct {
		uint64_t stored, hot, zero, present, waited, outside, write, vcpu;
	} faults;
	uint64_t pages[CLASSES], zero; /* given; of these zeros */
	uint64_t bytes_read, bytes_decoded;
	uint64_t crossings;
	struct {
		bool any;
		uint64_t listed, pages, bytes, late;
		double ms; /* below 0: it has not ended */
		double precision, recall; /* below 0: nobody knows */
	} prefetch;
	struct start_latency latency, by[BYS];
	double cpu_ms;
	uint64_t rss_max;
	size_t nsamples;
	double *ms; /* owned, nsamples; rising */
	uint64_t *series[CLASSES]; /* owned, nsamples each; never falling */
};

/* Reads a file that may be anybody's; fd stays open.  To be freed also on failure. */
int start_read(struct start *s, int fd, const char *path, struct err *e);
void start_free(struct start *s);

const char *start_mark_name(enum start_mark mark);
const char *start_class_name(enum start_class class);

/* All pages given, and all that a fault was answered with. */
uint64_t start_given(const struct start *s);

/* One page for people. */
int start_text(const struct start *s, struct err *e);

/* Draws them with one scale of time. */
struct out;
int starts_svg(const struct start *list, size_t n, struct out *out, struct err *e);

#endif
