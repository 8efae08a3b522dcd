/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_STATS_H
#define GMEM_SERVE_STATS_H

#include <stdatomic.h>
#include <stdint.h>

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

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *to, const struct histogram *from);

/* The upper end of the bucket where the p-th of 1000 lies, ns; 0 when empty. */
uint64_t histogram_permille(const struct histogram *h, unsigned p);

/* The upper end of bucket i, ns. */
uint64_t histogram_bound(unsigned i);

/*
 * What a server did.  Each thread counts for itself; sums are taken while they
 * run and are as exact as that allows.
 */
struct serve_stats {
	/* Demand faults, by what they met. */
	stat_counter faults_stored; /* a page of the image, decoded for it */
	stat_counter faults_zero; /* a page of zeros */
	stat_counter faults_present; /* a page given before, only mapped */
	stat_counter faults_waited; /* a page that somebody was giving just then */
	stat_counter faults_outside; /* a place that is not served any more */
	stat_counter faults_write; /* of all these: the access was a write */
	stat_counter faults_vcpu; /* of all these: a vCPU has left the guest, KVM userfault */
	/* Pages (4 KiB) given. */
	stat_counter pages_demand; /* that a fault asked for, zeros included */
	stat_counter pages_around; /* neighbours in its chunk */
	stat_counter pages_background; /* by the background fill, or eagerly */
	stat_counter bytes_read, bytes_decoded;
	struct histogram latency; /* from reading the event to the wake-up, first answers */
};

void serve_stats_merge(struct serve_stats *to, const struct serve_stats *from);

/* CLOCK_MONOTONIC, ns. */
uint64_t serve_now(void);

#endif
