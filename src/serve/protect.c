/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/protect.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/layout.h"
#include "serve/page-pool.h"
#include "serve/uffd-protect.h"

/*
 * What became of a page; from PAGE_IN_POOL on: its place in the pool.  The only ways are
 * from PROTECTED to one of the others, and from there to DONE.  Who takes a page out of
 * PROTECTED had read it before, and lets writers in after: so its bytes are those of the
 * moment, and so are those that a reader has read if he finds PROTECTED after that.
 */
enum {
	PAGE_PROTECTED,
	PAGE_ZERO, /* somebody wanted to write, it was a page of zeros */
	PAGE_DONE, /* read, or skipped */
	PAGE_IN_POOL,
};

#define PAGE ((uint64_t)PAGE_GRANULE)
#define PENDING_MAX 4096
#define ARM_STEP (UINT64_C(1) << 30)

struct guarded {
	struct protect_region r;
	uint64_t npages; /* of 4 KiB */
	uint64_t unit; /* pages of 4 KiB in one of the memory */
	_Atomic uint32_t *state; /* one a page */
	_Atomic uint32_t *undone; /* pages left of each unit; NULL if a unit is a page */
};

struct protect {
	int uffd; /* owned */
	int wake; /* an eventfd: the thread has something to do */
	struct guarded *regions;
	size_t nregions;
	struct protect_mapping *mappings;
	size_t nmappings;

	struct page_pool pool; /* the thread takes, readers give back */

	/* Of the thread: writes that wait for room in the pool, addresses. */
	uint64_t pending[PENDING_MAX];
	size_t npending;

	pthread_t thread;
	bool started;
	atomic_bool stop, spoilt;
	pthread_mutex_t lock; /* of why */
	struct err why;
	_Atomic uint64_t saved, stalls;
};

/* What was read from now on is not of the moment any more; the first reason counts. */
static void
spoil(struct protect *p, const struct err *e)
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

static void
poke(const struct protect *p)
{
	const uint64_t one = 1;

	/* It cannot be full: that would be as good. */
	if (write(p->wake, &one, sizeof(one)) == -1)
		return;
}

static void
put_slot(struct protect *p, uint32_t slot)
{
	if (page_pool_put(&p->pool, slot))
		poke(p);
}

/* ---- letting writers in ---- */

/*
 * False: events have to be read first.  A process that has ended writes nothing, and neither
 * does a mapping that is gone: the thread hears of that by an event, and knows whether it
 * matters.
 */
static bool
unprotect_at(struct protect *p, uint64_t hva, uint64_t len)
{
	struct err e = ERR_INIT;
	enum uffd_result r = uffd_protect(p->uffd, hva, len, false, &e);

	if (r == UFFD_FAILED)
		spoil(p, &e);
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
		while (!unprotect_at(p, m->hva + (start - m->offset), end - start))
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

/* ---- somebody wants to write ---- */

static bool
is_zero(const uint8_t *page)
{
	return *page == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

/* Copies a page before it changes.  False: there is no room. */
static bool
save_page(struct protect *p, struct guarded *g, uint64_t page)
{
	struct err e = ERR_INIT;
	uint32_t expected = PAGE_PROTECTED, slot;
	uint8_t *copy;
	bool zero;

	if (atomic_load(&g->state[page]) != PAGE_PROTECTED)
		return true;
	slot = page_pool_take(&p->pool);
	if (slot == PAGE_POOL_NONE)
		return false;
	copy = page_pool_at(&p->pool, slot);
	if (memory_source_read(g->r.source, copy, PAGE, g->r.offset + page * PAGE, &e) == -1) {
		err_wrap(&e, "a page that the VM writes");
		spoil(p, &e);
	}
	zero = is_zero(copy);
	/* A reader may have been faster: then ours is not of the moment, and not needed. */
	if (!atomic_compare_exchange_strong(
		&g->state[page], &expected, zero ? PAGE_ZERO : PAGE_IN_POOL + slot) ||
	    zero)
		put_slot(p, slot);
	atomic_fetch_add(&p->saved, 1);
	return true;
}

static const struct protect_mapping *
mapping_at(const struct protect *p, uint64_t hva)
{
	for (size_t i = 0; i < p->nmappings; i++)
		if (hva >= p->mappings[i].hva && hva - p->mappings[i].hva < p->mappings[i].len)
			return &p->mappings[i];
	return NULL;
}

/* False: it has to wait. */
static bool
let_write(struct protect *p, uint64_t hva)
{
	const struct protect_mapping *m = mapping_at(p, hva);
	struct guarded *g;
	uint64_t first;

	if (m == NULL)
		return true;
	g = &p->regions[m->region];
	first = (hva - m->hva + m->offset) / PAGE / g->unit * g->unit;
	for (uint64_t i = 0; i < g->unit; i++)
		if (!save_page(p, g, first + i))
			return false;
	if (unprotect_at(p, m->hva + (first * PAGE - m->offset), g->unit * PAGE))
		return true;
	poke(p);
	return false;
}

static void
on_write(struct protect *p, uint64_t hva)
{
	if (let_write(p, hva))
		return;
	atomic_fetch_add(&p->stalls, 1);
	/* Who finds no place in the list is woken by a reader when he comes to the page. */
	if (p->npending < PENDING_MAX)
		p->pending[p->npending++] = hva;
}

/* There is room again, in the order of arrival. */
static void
retry(struct protect *p)
{
	size_t i = 0;

	while (i < p->npending && let_write(p, p->pending[i]))
		i++;
	p->npending -= i;
	memmove(p->pending, p->pending + i, p->npending * sizeof(*p->pending));
}

/* ---- the memory itself changes ---- */

static bool
is_done(const struct protect *p, const struct protect_mapping *m, uint64_t start, uint64_t end)
{
	const struct guarded *g = &p->regions[m->region];

	for (uint64_t hva = start; hva < end; hva += PAGE)
		if (atomic_load(&g->state[(hva - m->hva + m->offset) / PAGE]) == PAGE_PROTECTED)
			return false;
	return true;
}

/* Whoever does that goes on as soon as the event is read: too late to save anything. */
static void
on_change(struct protect *p, const struct uffd_event *ev)
{
	struct err e = ERR_INIT;

	if (ev->kind == UFFD_EV_OTHER) {
		err_set(&e, ERR_FAILED, "the VMM %s while its memory is saved", ev->name);
		spoil(p, &e);
		return;
	}
	for (size_t i = 0; i < p->nmappings; i++) {
		const struct protect_mapping *m = &p->mappings[i];
		uint64_t start = MAX(ev->start, m->hva), end = MIN(ev->end, m->hva + m->len);

		if (start >= end || is_done(p, m, start, end))
			continue;
		err_set(&e, ERR_FAILED,
		    "the VMM has %s %llu bytes of its memory at %#llx before they were saved",
		    ev->kind == UFFD_EV_REMOVE ? "discarded" : "unmapped",
		    (unsigned long long)(end - start), (unsigned long long)start);
		spoil(p, &e);
	}
}

static void
read_all(struct protect *p)
{
	struct uffd_event list[UFFD_EVENTS_MAX];
	struct err e = ERR_INIT;
	int n;

	while ((n = uffd_read_events(p->uffd, list, &e)) > 0)
		for (int i = 0; i < n; i++) {
			if (list[i].kind == UFFD_EV_FAULT)
				on_write(p, list[i].fault.hva / PAGE * PAGE);
			else
				on_change(p, &list[i]);
		}
	if (n == -1)
		spoil(p, &e);
}

static void *
protect_main(void *arg)
{
	struct protect *p = arg;
	struct pollfd fds[2] = { { .fd = p->uffd, .events = POLLIN },
		{ .fd = p->wake, .events = POLLIN } };
	uint64_t count;

	while (!atomic_load(&p->stop)) {
		if (poll(fds, 2, -1) == -1)
			continue;
		if (fds[1].revents != 0 && read(p->wake, &count, sizeof(count)) > 0)
			retry(p);
		if (fds[0].revents != 0)
			read_all(p);
	}
	return NULL;
}

/* ---- reading ---- */

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
	for (uint64_t i = 0; i < n; i++, to += PAGE) {
		uint32_t state = atomic_exchange(&g->state[first + i], PAGE_DONE);

		if (state == PAGE_ZERO)
			memset(to, 0, PAGE);
		if (state < PAGE_IN_POOL)
			continue;
		memcpy(to, page_pool_at(&p->pool, state - PAGE_IN_POOL), PAGE);
		put_slot(p, state - PAGE_IN_POOL);
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
	sigset_t all, old;

	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake == -1)
		return err_sys(e, "eventfd");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	errno = pthread_create(&p->thread, NULL, protect_main, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (errno != 0)
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
		poke(p);
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
