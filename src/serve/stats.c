/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/stats.h"

#include <time.h>

#include "base/ckd.h"

uint64_t
serve_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Values below 8 have a bucket each; then the three bits below the top one decide. */
static unsigned
bucket_of(uint64_t ns)
{
	unsigned top, i;

	if (ns < 8)
		return (unsigned)ns;
	top = 63 - (unsigned)__builtin_clzll(ns);
	i = (top - 2) * 8 + (unsigned)(ns >> (top - 3) & 7);
	return MIN(i, HISTOGRAM_BUCKETS - 1);
}

uint64_t
histogram_bound(unsigned i)
{
	unsigned top = i / 8 + 2;

	if (i < 8)
		return i;
	return ((UINT64_C(8) | (i & 7)) + 1) << (top - 3);
}

void
histogram_add(struct histogram *h, uint64_t ns)
{
	stat_add(&h->count[bucket_of(ns)], 1);
	stat_add(&h->n, 1);
	stat_add(&h->sum, ns);
	if (ns > stat_get(&h->max))
		atomic_store_explicit(&h->max, ns, memory_order_relaxed);
}

void
histogram_merge(struct histogram *to, const struct histogram *from)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		stat_add(&to->count[i], stat_get(&from->count[i]));
	stat_add(&to->n, stat_get(&from->n));
	stat_add(&to->sum, stat_get(&from->sum));
	if (stat_get(&from->max) > stat_get(&to->max))
		atomic_store_explicit(&to->max, stat_get(&from->max), memory_order_relaxed);
}

uint64_t
histogram_permille(const struct histogram *h, unsigned p)
{
	uint64_t rank = (stat_get(&h->n) * p + 999) / 1000, seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += stat_get(&h->count[i]);
		if (seen >= rank && seen != 0)
			return MIN(histogram_bound(i), stat_get(&h->max));
	}
	return 0;
}

void
serve_stats_merge(struct serve_stats *to, const struct serve_stats *from)
{
	stat_add(&to->faults_stored, stat_get(&from->faults_stored));
	stat_add(&to->faults_zero, stat_get(&from->faults_zero));
	stat_add(&to->faults_present, stat_get(&from->faults_present));
	stat_add(&to->faults_waited, stat_get(&from->faults_waited));
	stat_add(&to->faults_outside, stat_get(&from->faults_outside));
	stat_add(&to->faults_write, stat_get(&from->faults_write));
	stat_add(&to->faults_vcpu, stat_get(&from->faults_vcpu));
	stat_add(&to->pages_demand, stat_get(&from->pages_demand));
	stat_add(&to->pages_around, stat_get(&from->pages_around));
	stat_add(&to->pages_background, stat_get(&from->pages_background));
	stat_add(&to->bytes_read, stat_get(&from->bytes_read));
	stat_add(&to->bytes_decoded, stat_get(&from->bytes_decoded));
	histogram_merge(&to->latency, &from->latency);
}
