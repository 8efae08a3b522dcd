/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/stats.h"

#include <string.h>
#include <time.h>

#include "base/ckd.h"

_Thread_local uint64_t crossings_made;

uint64_t
serve_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t
microseconds(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * 1000000 + (uint64_t)t->tv_usec;
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

static void
add(struct histogram *h, uint64_t ns)
{
	stat_add(&h->count[bucket_of(ns)], 1);
	stat_add(&h->n, 1);
	stat_add(&h->sum, ns);
	if (ns > stat_get(&h->max))
		atomic_store_explicit(&h->max, ns, memory_order_relaxed);
}

static void
merge(struct histogram *to, const struct histogram *from)
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
serve_stats_answer(struct serve_stats *s, enum fault_answer how, uint64_t began)
{
	add(&s->latency[how], serve_now() - began);
}

void
serve_stats_latency(const struct serve_stats *s, struct histogram *h)
{
	memset(h, 0, sizeof(*h));
	for (int i = 0; i < ANSWERS; i++)
		if (i != ANSWER_PRESENT)
			merge(h, &s->latency[i]);
}

void
serve_stats_count(struct serve_stats *to, const struct serve_stats *from)
{
#define ADD(name) stat_add(&to->name, stat_get(&from->name))
	ADD(faults_stored);
	ADD(faults_hot);
	ADD(faults_zero);
	ADD(faults_present);
	ADD(faults_waited);
	ADD(faults_outside);
	ADD(faults_write);
	ADD(faults_vcpu);
	ADD(pages_demand);
	ADD(pages_around);
	ADD(pages_prefetched);
	ADD(pages_background);
	ADD(pages_zero);
	ADD(pages_poisoned);
	ADD(pages_left);
	ADD(crossings);
	ADD(bytes_read);
	ADD(bytes_decoded);
	ADD(bytes_prefetched);
	ADD(prefetch_listed);
	ADD(prefetch_late);
	ADD(prefetch_us);
#undef ADD
}

void
serve_stats_merge(struct serve_stats *to, const struct serve_stats *from)
{
	serve_stats_count(to, from);
	for (int i = 0; i < ANSWERS; i++)
		merge(&to->latency[i], &from->latency[i]);
}
