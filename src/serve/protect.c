/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/protect.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/thread.h"
#include "format/layout.h"
#include "serve/protect-internal.h"

#define ARM_STEP (UINT64_C(1) << 30)

void
protect_spoil(struct protect *p, const struct err *e)
{
	pthread_mutex_lock(&p->lock);
	if (!atomic_load(&p->spoilt))
		p->why = *e;
	pthread_mutex_unlock(&p->lock);
	atomic_store(&p->spoilt, true);
}

int
protect_check(struct protect *p, struct err *e)
{
	if (!atomic_load(&p->spoilt))
		return 0;
	pthread_mutex_lock(&p->lock);
	*e = p->why;
	pthread_mutex_unlock(&p->lock);
	return -1;
}

void
protect_poke(const struct protect *p)
{
	fd_poke(p->wake);
}

void
protect_put_slot(struct protect *p, uint32_t slot)
{
	if (page_pool_put(&p->pool, slot))
		protect_poke(p);
}

/* ---- letting writers in ---- */

bool
protect_lift(struct protect *p, uint64_t hva, uint64_t len)
{
	struct err e = ERR_INIT;
	enum uffd_result r = uffd_protect(p->uffd, hva, len, false, &e);

	if (r == UFFD_FAILED)
		protect_spoil(p, &e);
	return r != UFFD_BUSY;
}

/* Pages [first, first + n) of 4 KiB of a region, wherever they are mapped.  Not the thread. */
static void
unprotect(struct protect *p, size_t region, uint64_t first, uint64_t n)
{
	for (size_t i = 0; i < p->nmappings; i++) {
		const struct protect_mapping *m = &p->mappings[i];
		uint64_t start = MAX(first * PAGE, m->offset);
		uint64_t end = MIN((first + n) * PAGE, m->offset + m->len);

		if (m->region != region || start >= end)
			continue;
		while (!protect_lift(p, m->hva + (start - m->offset), end - start))
			sched_yield();
	}
}

/* These pages are DONE. */
static void
release(struct protect *p, size_t region, uint64_t first, uint64_t n)
{
	struct guarded *g = &p->regions[region];
	uint64_t end = first + n, next;

	if (g->undone == NULL) {
		unprotect(p, region, first, n);
		return;
	}
	/* A huge page is protected whole: until its last part is done. */
	for (; first < end; first = next) {
		uint64_t unit = first / g->unit;
		uint32_t part;

		next = MIN((unit + 1) * g->unit, end);
		part = (uint32_t)(next - first);
		if (atomic_fetch_sub(&g->undone[unit], part) == part)
			unprotect(p, region, unit * g->unit, g->unit);
	}
}

/* ---- reading ---- */

/* Memory was looked at: if it had been discarded just before, that is known after this. */
static void
await_window(const struct protect *p)
{
	uint64_t window = atomic_load(&p->window);

	while (window % 2 == 1 && atomic_load(&p->window) == window)
		sched_yield();
}

int
protect_next(struct protect *p, size_t region, uint64_t from, uint64_t *start, uint64_t *end,
    struct err *e)
{
	struct guarded *g = &p->regions[region];
	uint64_t page = (from - g->r.offset) / PAGE, last;
	int found = memory_source_next(g->r.source, from, start, end, e);

	if (found == -1)
		return -1;
	last = found == 1 ? MIN((*start - g->r.offset) / PAGE, g->npages) : g->npages;
	/* A page that was there at the moment, and discarded since: it was saved before. */
	while (page < last && atomic_load(&g->state[page]) < PAGE_IN_POOL)
		page++;
	if (page >= last)
		return found;
	*start = g->r.offset + page * PAGE;
	while (page < last && atomic_load(&g->state[page]) >= PAGE_IN_POOL)
		page++;
	*end = g->r.offset + page * PAGE;
	return 1;
}

int
protect_skip(struct protect *p, size_t region, uint64_t from, uint64_t to, struct err *e)
{
	struct guarded *g = &p->regions[region];
	uint64_t first = (from - g->r.offset) / PAGE, last = (to - g->r.offset) / PAGE;

	if (first == last)
		return 0;
	await_window(p);
	for (uint64_t i = first; i < last; i++)
		if (atomic_exchange(&g->state[i], PAGE_DONE) >= PAGE_IN_POOL)
			return err_set(e, ERR_FAILED,
			    "page %llu was a hole, and has been discarded with data in it",
			    (unsigned long long)i);
	release(p, region, first, last - first);
	return 0;
}

int
protect_read(
    struct protect *p, size_t region, void *buf, size_t len, uint64_t off, struct err *e)
{
	struct guarded *g = &p->regions[region];
	uint64_t first = (off - g->r.offset) / PAGE, n = len / PAGE;
	uint8_t *to = buf;

	if (protect_check(p, e) == -1 ||
	    memory_source_read(g->r.source, buf, len, off, e) == -1)
		return -1;
	await_window(p);
	for (uint64_t i = 0; i < n; i++, to += PAGE) {
		uint32_t state = atomic_exchange(&g->state[first + i], PAGE_DONE);

		if (state == PAGE_ZERO)
			memset(to, 0, PAGE);
		if (state < PAGE_IN_POOL)
			continue;
		memcpy(to, page_pool_at(&p->pool, state - PAGE_IN_POOL), PAGE);
		protect_put_slot(p, state - PAGE_IN_POOL);
	}
	release(p, region, first, n);
	return 0;
}

/* ---- the beginning and the end ---- */

static int
guarded_init(struct guarded *g, const struct protect_region *r, struct err *e)
{
	uint64_t units;

	g->r = *r;
	g->npages = r->size / PAGE;
	g->unit = MAX(r->page_size, PAGE_GRANULE) / PAGE;
	g->state = calloc(g->npages, sizeof(*g->state));
	if (g->state == NULL)
		return err_sys(e, "%llu pages", (unsigned long long)g->npages);
	if (g->unit == 1)
		return 0;
	units = g->npages / g->unit;
	if (r->offset % r->page_size != 0 || units * g->unit != g->npages)
		return err_set(e, ERR_UNSUPPORTED, "begins or ends within a huge page");
	g->undone = calloc(units, sizeof(*g->undone));
	if (g->undone == NULL)
		return err_sys(e, "%llu pages", (unsigned long long)g->npages);
	for (uint64_t i = 0; i < units; i++)
		atomic_init(&g->undone[i], (uint32_t)g->unit);
	return 0;
}

static int
check_mapping(const struct protect *p, const struct protect_mapping *m, struct err *e)
{
	uint64_t end, bytes;

	if (m->region < p->nregions) {
		bytes = p->regions[m->region].unit * PAGE;
		if (!ckd_add(&end, m->offset, m->len) && end <= p->regions[m->region].r.size &&
		    (m->hva | m->len | m->offset) % bytes == 0 && m->len != 0)
			return 0;
	}
	return err_set(e, ERR_CORRUPT,
	    "a mapping of %llu bytes at %#llx is not of whole pages of its region",
	    (unsigned long long)m->len, (unsigned long long)m->hva);
}

static int
copy_lists(struct protect *p, const struct protect_region *regions, size_t n,
    const struct protect_mapping *mappings, size_t nmappings, struct err *e)
{
	p->regions = calloc(n, sizeof(*p->regions));
	p->mappings = calloc(nmappings, sizeof(*p->mappings));
	if (p->regions == NULL || p->mappings == NULL)
		return err_sys(e, "write protection");
	p->nregions = n;
	for (size_t i = 0; i < n; i++)
		if (guarded_init(&p->regions[i], &regions[i], e) == -1)
			return -1;
	p->nmappings = nmappings;
	memcpy(p->mappings, mappings, nmappings * sizeof(*mappings));
	for (size_t i = 0; i < nmappings; i++)
		if (check_mapping(p, &mappings[i], e) == -1)
			return -1;
	return 0;
}

/* Signals are for others. */
static int
start_thread(struct protect *p, struct err *e)
{
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake == -1)
		return err_sys(e, "eventfd");
	if (quiet_thread(&p->thread, protect_main, p, NULL) == -1)
		return err_sys(e, "start a thread");
	p->started = true;
	return 0;
}

static int
register_all(struct protect *p, struct err *e)
{
	if (uffd_protect_handshake(p->uffd, e) == -1)
		return -1;
	for (size_t i = 0; i < p->nmappings; i++) {
		const struct protect_mapping *m = &p->mappings[i];

		if (uffd_protect_register(p->uffd, m->hva, m->len, e) == -1)
			return err_wrap(e, "memory at %#llx", (unsigned long long)m->hva);
	}
	return 0;
}

int
protect_new(struct protect **out, int uffd, const struct protect_region *regions, size_t n,
    const struct protect_mapping *mappings, size_t nmappings, size_t pool, struct err *e)
{
	struct protect *p = calloc(1, sizeof(*p));

	if (p == NULL) {
		err_sys(e, "write protection");
		fd_close(&uffd);
		return -1;
	}
	p->uffd = uffd;
	p->wake = -1;
	pthread_mutex_init(&p->lock, NULL);
	if (copy_lists(p, regions, n, mappings, nmappings, e) == -1 ||
	    register_all(p, e) == -1 || page_pool_init(&p->pool, pool, e) == -1 ||
	    start_thread(p, e) == -1) {
		protect_free(p);
		return -1;
	}
	*out = p;
	return 0;
}

static int
arm_range(struct protect *p, uint64_t hva, uint64_t len, struct err *e)
{
	enum uffd_result r;

	while ((r = uffd_protect(p->uffd, hva, len, true, e)) == UFFD_BUSY)
		sched_yield();
	if (r == UFFD_DONE)
		return 0;
	if (r == UFFD_GONE)
		return err_set(e, ERR_FAILED, "the VMM has unmapped memory at %#llx",
		    (unsigned long long)hva);
	if (r == UFFD_DEAD)
		return err_set(e, ERR_FAILED, "the VMM has ended");
	return -1;
}

int
protect_arm(struct protect *p, struct err *e)
{
	atomic_store(&p->armed, true);
	for (size_t i = 0; i < p->nmappings; i++) {
		const struct protect_mapping *m = &p->mappings[i];

		/* The address space is locked during a call: not for too long. */
		for (uint64_t at = 0; at < m->len; at += ARM_STEP)
			if (arm_range(p, m->hva + at, MIN(ARM_STEP, m->len - at), e) == -1)
				return -1;
	}
	return protect_check(p, e);
}

struct protect_stats
protect_stats(struct protect *p)
{
	return (struct protect_stats){ .saved = atomic_load(&p->saved),
		.stalls = atomic_load(&p->stalls) };
}

void
protect_free(struct protect *p)
{
	if (p == NULL)
		return;
	atomic_store(&p->stop, true);
	if (p->started) {
		protect_poke(p);
		pthread_join(p->thread, NULL);
	}
	fd_close(&p->uffd);
	fd_close(&p->wake);
	for (size_t i = 0; i < p->nregions; i++) {
		free(p->regions[i].state);
		free(p->regions[i].undone);
	}
	free(p->regions);
	free(p->mappings);
	page_pool_fini(&p->pool);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
