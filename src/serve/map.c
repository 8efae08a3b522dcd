/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <sched.h>

#include "base/ckd.h"
#include "serve/internal.h"

/* Mapping pages where processes have the memory, and waking whoever waits for them. */

static void
mark_dead(struct server *s, unsigned process)
{
	atomic_store(&s->processes[process]->dead, true);
}

/* There is no UFFDIO_ZEROPAGE for huge pages. */
static enum uffd_result
zero_huge(const struct served_process *p, const struct served_object *o, uint64_t off,
    uint64_t hva, struct err *e)
{
	uint64_t done;

	if (fallocate(o->fd, 0, (off_t)(o->base + off), (off_t)o->page_size) == -1) {
		err_sys(e, "guest memory %s: a huge page", o->object->name);
		return UFFD_FAILED;
	}
	return uffd_continue(p->uffd, hva, o->page_size, o->page_size, &done, e);
}

int
zero_at(struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	const struct served_object *o = &f->server->objects[m->object];
	struct served_process *p = f->server->processes[m->process];
	uint64_t hva = m->hva + (off - m->offset), done;
	enum uffd_result r;

	if (o->engine == SERVE_COPY)
		return copy_zeros(f, m, off, e);
	if (o->page_size > PAGE_GRANULE) {
		r = zero_huge(p, o, off, hva, e);
	} else if (o->guest_memfd) {
		/* It has no UFFDIO_ZEROPAGE; and who got there first is not overwritten. */
		if (object_touch(o, off, e) == -1)
			return -1;
		r = uffd_continue(p->uffd, hva, PAGE_GRANULE, PAGE_GRANULE, &done, e);
	} else {
		/* Its address space is changing right now. */
		while ((r = uffd_zeropage(p->uffd, hva, PAGE_GRANULE, e)) == UFFD_BUSY)
			sched_yield();
		if (r == UFFD_PRESENT)
			r = uffd_continue(p->uffd, hva, PAGE_GRANULE, PAGE_GRANULE, &done, e);
	}
	if (r == UFFD_DEAD)
		mark_dead(f->server, m->process);
	if (r == UFFD_GONE || r == UFFD_HOLE)
		r = uffd_wake(p->uffd, hva, o->page_size, e);
	return r == UFFD_FAILED ? -1 : 0;
}

int
map_at(struct filler *f, const struct mapping *m, uint64_t hva, uint64_t len, struct err *e)
{
	struct served_process *p = f->server->processes[m->process];
	uint64_t page_size = f->server->objects[m->object].page_size, span = len;

	while (len > 0 && !atomic_load(&p->dead)) {
		uint64_t done;

		switch (uffd_continue(p->uffd, hva, MIN(span, len), page_size, &done, e)) {
		case UFFD_DONE:
			break;
		case UFFD_DEAD:
			mark_dead(f->server, m->process);
			return 0;
		case UFFD_BUSY:
		case UFFD_PRESENT:
		case UFFD_FAILED:
			return -1;
		case UFFD_GONE:
			if (span > page_size) {
				/* One call stays in one VMA, and there may be many. */
				span = page_size;
				break;
			}
			__attribute__((fallthrough));
		case UFFD_HOLE:
			if (uffd_wake(p->uffd, hva + done, page_size, e) == UFFD_FAILED)
				return -1;
			done += page_size;
		}
		hva += done;
		len -= MIN(done, len);
	}
	return 0;
}

int
map_everywhere(struct filler *f, size_t object, uint64_t off, uint64_t len,
    const struct mapping *but, struct err *e)
{
	const struct mapping_table *t = atomic_load(&f->server->mappings);

	/* Copies are where they were asked for, and there is no other place. */
	if (f->server->objects[object].engine == SERVE_COPY)
		return 0;
	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];
		uint64_t start = MAX(off, m->offset), end = MIN(off + len, m->offset + m->len);

		if (m != but && m->object == object && start < end &&
		    map_at(f, m, m->hva + (start - m->offset), end - start, e) == -1)
			return -1;
	}
	return 0;
}

int
map_unasked(struct filler *f, size_t object, uint64_t off, uint64_t len, struct err *e)
{
	if (recording(f->server))
		return wake_everywhere(f->server, object, off, off + len, e);
	return map_everywhere(f, object, off, len, NULL, e);
}

int
map_given(struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	struct served_process *p = f->server->processes[m->process];
	uint64_t page_size = f->server->objects[m->object].page_size;
	uint64_t hva = m->hva + (off - m->offset), done;

	if (f->server->objects[m->object].engine == SERVE_COPY)
		return copy_zeros(f, m, off, e);
	switch (uffd_continue(p->uffd, hva, page_size, page_size, &done, e)) {
	case UFFD_DONE:
		return 0;
	case UFFD_GONE:
		return uffd_wake(p->uffd, hva, page_size, e) == UFFD_FAILED ? -1 : 0;
	case UFFD_DEAD:
		mark_dead(f->server, m->process);
		return 0;
	case UFFD_HOLE:
		return zero_at(f, m, off, e);
	case UFFD_BUSY:
	case UFFD_PRESENT:
	case UFFD_FAILED:
		break;
	}
	return -1;
}
