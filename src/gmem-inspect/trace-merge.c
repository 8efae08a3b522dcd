/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "base/log.h"
#include "gmem-inspect/trace.h"

/* One page of one trace; the order of the merged trace is that of times, traces, places. */
struct touch {
	struct trace_run run;
	uint32_t trace, at;
	uint32_t traces; /* that have the page; of the first touch of it only */
};

struct touches {
	struct touch *list;
	size_t n;
};

static int
by_page(const void *a, const void *b)
{
	const struct touch *x = a, *y = b;

	if (x->run.region != y->run.region)
		return x->run.region < y->run.region ? -1 : 1;
	if (x->run.page != y->run.page)
		return x->run.page < y->run.page ? -1 : 1;
	if (x->run.time_ms != y->run.time_ms)
		return x->run.time_ms < y->run.time_ms ? -1 : 1;
	return (x->trace > y->trace) - (x->trace < y->trace);
}

static int
by_time(const void *a, const void *b)
{
	const struct touch *x = a, *y = b;

	if (x->run.time_ms != y->run.time_ms)
		return x->run.time_ms < y->run.time_ms ? -1 : 1;
	if (x->trace != y->trace)
		return x->trace < y->trace ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

static int
append(struct touches *all, const struct trace_run *list, size_t n, uint32_t trace)
{
	struct touch *bigger;

	bigger = reallocarray(all->list, all->n + n + 1, sizeof(*bigger));
	if (bigger == NULL)
		return -1;
	all->list = bigger;
	for (size_t i = 0; i < n; i++)
		all->list[all->n++] = (struct touch){ list[i], trace, (uint32_t)i, 1 };
	return 0;
}

static int
collect(struct touches *to, const struct traces *all, struct err *e)
{
	const struct trace *first = &all->list[0].t;

	for (size_t i = 0; i < all->n; i++) {
		const struct trace_file *f = &all->list[i];
		struct trace_run *list;
		uint64_t dropped;
		size_t n;
		int rc;

		if (trace_touches(&f->t, first->regions, first->nregions, first->root, &list,
			&n, &dropped, e) == -1)
			return err_wrap(e, "%s", f->path);
		rc = append(to, list, n, (uint32_t)i);
		free(list);
		if (rc == -1)
			return err_set(e, ERR_FAILED, "%s: out of memory", f->path);
		if (dropped != 0)
			log_warn("%s: %llu pages have no place in the guest of %s", f->path,
			    (unsigned long long)dropped, all->list[0].path);
	}
	return 0;
}

/* One of each page stays, the earliest. */
static void
unite(struct touches *all)
{
	size_t n = 0;

	qsort(all->list, all->n, sizeof(*all->list), by_page);
	for (size_t i = 0; i < all->n; i++) {
		struct touch *last = n > 0 ? &all->list[n - 1] : NULL;
		const struct touch *next = &all->list[i];

		if (last == NULL || last->run.region != next->run.region ||
		    last->run.page != next->run.page) {
			all->list[n++] = *next;
			continue;
		}
		last->run.access |= next->run.access;
		last->traces++;
	}
	all->n = n;
}

static void
intersect(struct touches *all, size_t ntraces)
{
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		if (all->list[i].traces == ntraces)
			all->list[n++] = all->list[i];
	all->n = n;
}

static int
finish(struct trace *t, const struct touches *from, const struct traces *all, struct err *e)
{
	const struct trace *first = &all->list[0].t;
	struct trace_run *runs = calloc(from->n + 1, sizeof(*runs));
	int rc;

	if (runs == NULL)
		return err_sys(e, "merge");
	for (size_t i = 0; i < from->n; i++)
		runs[i] = from->list[i].run;
	rc = trace_init(t, first->regions, first->nregions, first->root, e);
	if (rc == 0)
		rc = trace_set_runs(t, runs, from->n, e);
	free(runs);
	t->end = TRACE_END_MERGED;
	for (size_t i = 0; i < all->n; i++) {
		t->duration_ms = MAX(t->duration_ms, all->list[i].t.duration_ms);
		if (ckd_add(&t->lost, t->lost, all->list[i].t.lost))
			t->lost = UINT64_MAX;
	}
	return rc;
}

int
traces_merge(const struct traces *all, bool intersection, struct trace *t, struct err *e)
{
	struct touches touches = { .list = NULL };
	int rc;

	*t = (struct trace){ .runs = NULL };
	rc = collect(&touches, all, e);
	if (rc == 0) {
		unite(&touches);
		if (intersection)
			intersect(&touches, all->n);
		qsort(touches.list, touches.n, sizeof(*touches.list), by_time);
		rc = finish(t, &touches, all, e);
	}
	free(touches.list);
	return rc;
}
