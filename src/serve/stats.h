/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_STATS_H
#define GMEM_SERVE_STATS_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/time.h>

/* A histogram of durations: 8 buckets for each power of two nanoseconds. */
#define HISTOGRAM_BUCKETS (40 * 8)

/* One thread counts, any may look. */
typedef _Atomic uint64_t stat_counter;

static inline void
stat_add(stat_counter *c, uint64_t n)
{
	atomic_store_explicit(
	    c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t
stat_get(const stat_counter *c)
{
	return atomic_load_explicit((stat_counter *)(uintptr_t)c, memory_order_relaxed);
}

struct histogram {
	stat_counter count[HISTOGRAM_BUCKETS];
	stat_counter n, sum, max; /* ns */
};

/* The upper end of the bucket where the p-th of 1000 lies, ns; 0 when empty. */
uint64_t histogram_permille(const struct histogram *h, unsigned p);

/* The upper end of bucket i, ns. */
uint64_t histogram_bound(unsigned i);

/* How a demand fault was answered, for its latency. */
enum fault_answer {
	ANSWER_STORED, /* a page of the image, decoded for it */
	ANSWER_HOT, /* the same, of the hot section */
	ANSWER_ZERO, /* a page of zeros */
	ANSWER_PRESENT, /* a page given before, only mapped */
	ANSWERS
};

/*
 * What a server did.  Each thread counts for itself; sums are taken while they
 * run and are as exact as that allows.
 */
struct serve_stats {
	/* Demand faults, by what they met. */
	stat_counter faults_stored; /* a page of the image, decoded for it */
	stat_counter faults_hot; /* of these: of the hot section */
	stat_counter faults_zero; /* a page of zeros */
	stat_counter faults_present; /* a page given before, only mapped */
	stat_counter faults_waited; /* a page that somebody was giving just then */
	stat_counter faults_outside; /* a place that is not served any more */
	stat_counter faults_write; /* of all these: the access was a write */
	stat_counter faults_vcpu; /* of all these: a vCPU has left the guest, KVM userfault */
	/* Pages (4 KiB) given, each counted once: their sum is what was given. */
	stat_counter pages_demand; /* that a fault asked for, zeros included */
	stat_counter pages_around; /* neighbours in its chunk */
	stat_counter pages_prefetched; /* of a list: hot pages, a trace */
	stat_counter pages_background; /* by the background fill, or eagerly */
	stat_counter pages_zero; /* of all these: zeros that were put there */
	stat_counter pages_poisoned; /* that could not be had, and were asked for */
	stat_counter pages_left; /* that could not be had when all others were there */
	/* System calls made for giving pages: reads, writes, ioctls, yields. */
	stat_counter crossings;
	stat_counter bytes_read, bytes_decoded; /* of the image; its pages, plain */
	stat_counter bytes_prefetched; /* of bytes_read: for pages_prefetched */
	stat_counter prefetch_listed; /* pages on the list */
	stat_counter prefetch_late; /* faults on pages of the list that were not there yet */
	stat_counter prefetch_us; /* from its begin to its end; 0: not ended */
	/* From reading the event to the wake-up; whoever has waited for others is in none. */
	struct histogram latency[ANSWERS];
};

void serve_stats_merge(struct serve_stats *to, const struct serve_stats *from);

/* The same without the histograms: cheap. */
void serve_stats_count(struct serve_stats *to, const struct serve_stats *from);

/* A fault that was read at `began` (serve_now) is answered now. */
void serve_stats_answer(struct serve_stats *s, enum fault_answer how, uint64_t began);

/* Those of first answers: all but ANSWER_PRESENT.  *h is zeroed before. */
void serve_stats_latency(const struct serve_stats *s, struct histogram *h);

/* System calls that this thread has made for giving pages, since they were last taken. */
extern _Thread_local uint64_t crossings_made;

static inline void
crossing(void)
{
	crossings_made++;
}

static inline uint64_t
crossings_take(void)
{
	uint64_t n = crossings_made;

	crossings_made = 0;
	return n;
}

/* CLOCK_MONOTONIC, ns. */
uint64_t serve_now(void);

/* What the kernel tells of CPU time, in µs. */
uint64_t microseconds(const struct timeval *t);

#endif
