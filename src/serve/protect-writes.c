/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <poll.h>
#include <string.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "serve/protect-internal.h"

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
		protect_spoil(p, &e);
	}
	zero = is_zero(copy);
	/* A reader may have been faster: then ours is not of the moment, and not needed. */
	if (!atomic_compare_exchange_strong(
		&g->state[page], &expected, zero ? PAGE_ZERO : PAGE_IN_POOL + slot) ||
	    zero)
		protect_put_slot(p, slot);
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
	if (protect_lift(p, m->hva + (first * PAGE - m->offset), g->unit * PAGE))
		return true;
	protect_poke(p);
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
		protect_spoil(p, &e);
		return;
	}
	if (ev->kind == UFFD_EV_REMOVE && !atomic_load(&p->armed))
		return;
	for (size_t i = 0; i < p->nmappings; i++) {
		const struct protect_mapping *m = &p->mappings[i];
		uint64_t start = MAX(ev->start, m->hva), end = MIN(ev->end, m->hva + m->len);

		if (start >= end || is_done(p, m, start, end))
			continue;
		err_set(&e, ERR_FAILED,
		    "the VMM has %s %llu bytes of its memory at %#llx before they were saved",
		    ev->kind == UFFD_EV_REMOVE ? "discarded" : "unmapped",
		    (unsigned long long)(end - start), (unsigned long long)start);
		protect_spoil(p, &e);
	}
}

/* Changes are taken first: what a page was is not known any more once it may be discarded. */
static int
read_some(struct protect *p, struct uffd_event list[UFFD_EVENTS_MAX], struct err *e)
{
	int n;

	atomic_fetch_add(&p->window, 1);
	n = uffd_read_events(p->uffd, NULL, list, e);
	for (int i = 0; i < n; i++)
		if (list[i].kind != UFFD_EV_FAULT)
			on_change(p, &list[i]);
	atomic_fetch_add(&p->window, 1);
	return n;
}

static void
read_all(struct protect *p)
{
	struct uffd_event list[UFFD_EVENTS_MAX];
	struct err e = ERR_INIT;
	int n;

	while ((n = read_some(p, list, &e)) > 0)
		for (int i = 0; i < n; i++)
			if (list[i].kind == UFFD_EV_FAULT)
				on_write(p, list[i].fault.hva / PAGE * PAGE);
	if (n == -1)
		protect_spoil(p, &e);
}

void *
protect_main(void *arg)
{
	struct protect *p = arg;
	struct pollfd fds[2] = { { .fd = p->uffd, .events = POLLIN },
		{ .fd = p->wake, .events = POLLIN } };

	while (!atomic_load(&p->stop)) {
		if (poll(fds, 2, -1) == -1)
			continue;
		if (fds[1].revents != 0 && fd_poked(p->wake))
			retry(p);
		if (fds[0].revents != 0)
			read_all(p);
	}
	return NULL;
}
