/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/record.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bitmap.h"
#include "base/ckd.h"
#include "serve/stats.h"

/*
 * The order of touches is that in which they take their slots: a counter that all threads
 * share, which costs nothing beside a fault.  A slot is filled after it was taken; its
 * page count is stored last, and is never 0.
 */
struct slot {
	uint64_t page;
	uint32_t time_ms;
	uint16_t region;
	uint8_t access;
	_Atomic uint32_t npages;
};

struct touched {
	uint64_t npages;
	bitmap_word *map;
	/* Of VMMs that ask for all: up to where they have come, in turn. */
	uint64_t turn;
};

struct recorder {
	const struct image *img;
	struct touched *touched; /* a page for each bit, of each region */
	struct slot *slots; /* SLOTS_MAX */
	atomic_bool on;
	_Atomic uint64_t begun, ended; /* ns, 0: not yet */
	_Atomic uint64_t nslots; /* that were asked for: more than there are is full */
	_Atomic uint64_t pages, lost;
};

#define SLOTS_MAX TRACE_RUNS_MAX

static void *
reserve(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int
new_touched(struct recorder *r, struct err *e)
{
	const struct manifest *m = &r->img->manifest;

	r->touched = calloc(m->nregions + 1, sizeof(*r->touched));
	if (r->touched == NULL)
		return err_sys(e, "recording");
	for (size_t i = 0; i < m->nregions; i++) {
		struct touched *t = &r->touched[i];

		t->npages = div_up(m->regions[i].size, PAGE_GRANULE);
		t->map = reserve(bitmap_bytes(t->npages));
		if (t->map == NULL)
			return err_sys(e, "recording: %zu bytes", bitmap_bytes(t->npages));
	}
	return 0;
}

int
recorder_new(struct recorder **out, const struct image *img, struct err *e)
{
	struct recorder *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return err_sys(e, "recording");
	r->img = img;
	r->on = true;
	r->slots = reserve(SLOTS_MAX * sizeof(*r->slots));
	if (r->slots == NULL)
		err_sys(e, "recording: %zu bytes", SLOTS_MAX * sizeof(*r->slots));
	if (r->slots == NULL || new_touched(r, e) == -1) {
		recorder_free(r);
		return -1;
	}
	*out = r;
	return 0;
}

void
recorder_free(struct recorder *r)
{
	if (r == NULL)
		return;
	for (size_t i = 0; r->touched != NULL && i < r->img->manifest.nregions; i++)
		if (r->touched[i].map != NULL)
			munmap(r->touched[i].map, bitmap_bytes(r->touched[i].npages));
	free(r->touched);
	if (r->slots != NULL)
		munmap(r->slots, SLOTS_MAX * sizeof(*r->slots));
	free(r);
}

bool
recorder_is_on(const struct recorder *r)
{
	return atomic_load_explicit(&r->on, memory_order_relaxed);
}

uint64_t
recorder_pages(const struct recorder *r)
{
	return atomic_load(&r->pages);
}

uint64_t
recorder_hits(const struct recorder *r, size_t region, const bitmap_word *list)
{
	const struct touched *t = &r->touched[region];
	uint64_t n = 0;

	for (uint64_t i = 0; i < div_up(t->npages, 64); i++)
		n += (unsigned)__builtin_popcountll(
		    atomic_load(&t->map[i]) & atomic_load(&list[i]));
	return n;
}

bool
recorder_is_full(const struct recorder *r)
{
	return atomic_load(&r->lost) != 0;
}

/* ---- touches ---- */

/* The time is counted from the first touch. */
static uint32_t
time_ms(struct recorder *r)
{
	uint64_t now = serve_now(), begun = 0;

	if (atomic_compare_exchange_strong(&r->begun, &begun, now))
		return 0;
	return now > begun ? (uint32_t)MIN((now - begun) / 1000000, UINT32_MAX) : 0;
}

/* Pages [first, first + n) were not touched before. */
static void
keep(struct recorder *r, size_t region, uint64_t first, uint32_t n, uint8_t access)
{
	uint32_t at = time_ms(r);
	uint64_t i;

	if (atomic_fetch_add(&r->pages, n) + n > TRACE_PAGES_MAX) {
		atomic_fetch_sub(&r->pages, n);
		atomic_fetch_add(&r->lost, n);
		return;
	}
	/* A slot has a page at least: there are enough. */
	i = atomic_fetch_add(&r->nslots, 1);
	r->slots[i].page = first;
	r->slots[i].time_ms = at;
	r->slots[i].region = (uint16_t)region;
	r->slots[i].access = access;
	atomic_store_explicit(&r->slots[i].npages, n, memory_order_release);
}

/* Marks pages as touched, and keeps the runs of those that were not. */
void
recorder_touch(struct recorder *r, size_t region, uint64_t off, uint64_t len, bool write)
{
	struct touched *t = &r->touched[region];
	uint64_t page = off / PAGE_GRANULE, end = MIN((off + len) / PAGE_GRANULE, t->npages);
	uint8_t access = write ? TRACE_WRITE : TRACE_READ;

	if (!recorder_is_on(r))
		return;
	while (page < end) {
		uint32_t n = 0;

		while (page + n < end && n < UINT32_MAX && bitmap_claim(t->map, page + n))
			n++;
		if (n > 0)
			keep(r, region, page, n, access);
		page += n + 1;
	}
}

void
recorder_ask(struct recorder *r, size_t region, uint64_t off, uint64_t len)
{
	struct touched *t = &r->touched[region];
	uint64_t page = off / PAGE_GRANULE, end = MIN((off + len) / PAGE_GRANULE, t->npages);

	/* What was asked for out of turn is not asked for again. */
	while (t->turn < t->npages && bitmap_test(t->map, t->turn))
		t->turn++;
	if (page == t->turn)
		t->turn = end;
	else if (page > t->turn) /* else it asks once more */
		recorder_touch(r, region, off, len, false);
}

/* ---- the end ---- */

void
recorder_end(struct recorder *r)
{
	if (atomic_exchange(&r->on, false))
		atomic_store(&r->ended, serve_now());
}

static void
await_slot(const struct slot *slot)
{
	const struct timespec nap = { .tv_nsec = 20000 };

	while (atomic_load_explicit(&slot->npages, memory_order_acquire) == 0)
		nanosleep(&nap, NULL);
}

/* Who took a slot first may have looked at the clock last: time does not fall. */
static void
copy_slots(const struct recorder *r, struct trace_run *runs, size_t n)
{
	uint32_t time = 0;

	for (size_t i = 0; i < n; i++) {
		const struct slot *slot = &r->slots[i];

		await_slot(slot);
		time = MAX(time, slot->time_ms);
		runs[i] = (struct trace_run){ .page = slot->page,
			.npages = slot->npages,
			.region = slot->region,
			.time_ms = time,
			.access = slot->access };
	}
}

int
recorder_take(struct recorder *r, struct trace *t, struct err *e)
{
	const struct manifest *m = &r->img->manifest;
	uint64_t begun = atomic_load(&r->begun), ended = atomic_load(&r->ended);
	size_t n = atomic_load(&r->nslots);
	struct trace_run *runs;
	int rc;

	*t = (struct trace){ .runs = NULL };
	runs = calloc(n + 1, sizeof(*runs));
	if (runs == NULL)
		return err_sys(e, "recording: %zu runs", n);
	copy_slots(r, runs, n);
	rc = trace_init(t, m->regions, m->nregions, r->img->root, e);
	if (rc == 0)
		rc = trace_set_runs(t, runs, n, e);
	free(runs);
	t->duration_ms = begun != 0 && ended > begun ? (ended - begun) / 1000000 : 0;
	t->lost = atomic_load(&r->lost);
	return rc;
}
