/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>

#include "base/ckd.h"
#include "serve/internal.h"

/*
 * Engine copy: pages are copied into memory of the VMM's own.
 *
 * Who has taken a page looks, behind the gate (events.c), whether it was discarded meanwhile:
 * then it is marked given, and nobody copies it any more.  Else it is copied and marked before
 * the gate is left.  A page that is given and asked for was discarded, or the question is
 * older than the answer: zeros do for both, for they never take the place of a page.
 */

/* Of the image's pages that lie together; they are taken.  At most this is copied at once. */
#define SPAN_BYTES (UINT64_C(256) << 10)

/* Around a page of zeros that was asked for, others are given: they take no memory. */
#define ZEROS_BYTES (UINT64_C(256) << 10)

struct piece {
	const struct mapping *m;
	uint64_t off; /* in the object */
	uint64_t len;
	const uint8_t *from;
	uint64_t span; /* bytes of one call */
	unsigned tries;
};

/* Copies whole pages, as they are behind the object; else its owner has told us wrongly. */
static enum uffd_result
copy_whole(const struct served_object *o, const struct served_process *p, uint64_t hva,
    const uint8_t *from, uint64_t len, uint64_t *done, struct err *e)
{
	enum uffd_result r = uffd_copy(p->uffd, hva, from, len, done, e);

	if (r != UFFD_DONE || *done % o->page_size == 0)
		return r;
	*done = 0;
	err_set(e, ERR_CORRUPT,
	    "hand-off: the VMM's pages at %#llx are not of %llu KiB, as it has said",
	    (unsigned long long)hva, (unsigned long long)(o->page_size >> 10));
	return UFFD_FAILED;
}

static void
give_pages(struct served_object *o, uint64_t off, uint64_t len)
{
	for (uint64_t page = off / o->page_size; page < (off + len) / o->page_size; page++)
		object_give(o, page);
}

/* Pages from the first on that nobody has discarded, as bytes; with the gate. */
static uint64_t
wanted_bytes(const struct served_object *o, const struct piece *c)
{
	uint64_t page = c->off / o->page_size, max = MIN(c->span, c->len) / o->page_size;
	uint64_t n = 0;

	while (n < max && !claims_given(&o->claims, page + n))
		n++;
	return n * o->page_size;
}

/* One step: *done bytes are done with. */
static enum uffd_result
copy_some(struct served_object *o, struct served_process *p, const struct piece *c,
    uint64_t *done, struct err *e)
{
	uint64_t hva = c->m->hva + (c->off - c->m->offset), n;
	enum uffd_result r = UFFD_PRESENT;

	events_begin_copy(p);
	n = wanted_bytes(o, c);
	if (n > 0)
		r = copy_whole(o, p, hva, c->from, n, done, e);
	if (r == UFFD_DEAD)
		*done = c->len;
	/* One call stays in one VMA, and there may be many. */
	else if (r == UFFD_PRESENT || (r == UFFD_GONE && n <= o->page_size))
		*done = o->page_size;
	else if (r != UFFD_DONE)
		*done = 0;
	give_pages(o, c->off, *done);
	events_end_copy(p);
	return r;
}

static int
no_page(const struct served_object *o, uint64_t off, struct err *e)
{
	if (e->sysno == ENOMEM && o->page_size > PAGE_GRANULE)
		return err_set(e, ERR_FAILED,
		    "guest memory %s: no free page of %llu KiB for the one at %llu: raise "
		    "vm.nr_hugepages",
		    o->object->name, (unsigned long long)(o->page_size >> 10),
		    (unsigned long long)off);
	if (e->sysno == ENOMEM)
		return err_set(e, ERR_FAILED,
		    "guest memory %s: no memory left for the page at %llu (of the machine, or "
		    "of the VMM's cgroup)",
		    o->object->name, (unsigned long long)off);
	return err_wrap(e, "guest memory %s", o->object->name);
}

/* What to do about a step, but for going on. */
static int
follow(struct filler *f, const struct served_object *o, struct served_process *p,
    struct piece *c, enum uffd_result r, uint64_t done, struct err *e)
{
	switch (r) {
	case UFFD_DONE:
		break;
	case UFFD_BUSY:
		return events_yield(f, p, &c->tries, e);
	case UFFD_DEAD:
		atomic_store(&p->dead, true);
		break;
	case UFFD_GONE:
		c->span = o->page_size;
		__attribute__((fallthrough));
	case UFFD_PRESENT:
		/* Whoever waits for a page that is not copied has to ask again. */
		if (done > 0 && uffd_wake(p->uffd, c->m->hva + (c->off - c->m->offset), done,
				    e) == UFFD_FAILED)
			return -1;
		break;
	case UFFD_HOLE:
	case UFFD_FAILED:
		return no_page(o, c->off, e);
	}
	return 0;
}

static int
copy_piece(struct filler *f, struct piece *c, struct err *e)
{
	struct served_object *o = &f->server->objects[c->m->object];
	struct served_process *p = f->server->processes[c->m->process];
	uint64_t done;

	c->span = MAX(SPAN_BYTES, o->page_size);
	while (c->len > 0 && !atomic_load(&p->dead)) {
		enum uffd_result r = copy_some(o, p, c, &done, e);

		if (follow(f, o, p, c, r, done, e) == -1)
			return -1;
		c->off += done;
		c->from += done;
		c->len -= done;
	}
	give_pages(o, c->off, c->len);
	return 0;
}

/* The mapping that shows the page of the object, or else the next one, or NULL. */
static const struct mapping *
mapping_of(const struct server *s, size_t object, uint64_t off)
{
	const struct mapping_table *t = atomic_load(&s->mappings);
	const struct mapping *next = NULL;

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->object == object && off < m->offset + m->len &&
		    (next == NULL || m->offset < next->offset))
			next = m;
	}
	return next;
}

int
copy_pages(struct filler *f, size_t object, uint64_t off, const uint8_t *from, uint64_t len,
    struct err *e)
{
	while (len > 0) {
		const struct mapping *m = mapping_of(f->server, object, off);
		uint64_t n = len;

		if (m != NULL && off < m->offset)
			n = MIN(n, m->offset - off);
		if (m == NULL || off < m->offset) {
			/* The VMM has it no more. */
			give_pages(&f->server->objects[object], off, n);
		} else {
			struct piece c = { .m = m, .off = off, .from = from };

			c.len = n = MIN(n, m->offset + m->len - off);
			if (copy_piece(f, &c, e) == -1)
				return -1;
		}
		off += n;
		from += n;
		len -= n;
	}
	return 0;
}

/* ---- zeros ---- */

int
copy_zeros(struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	const struct served_object *o = &f->server->objects[m->object];
	struct served_process *p = f->server->processes[m->process];
	uint64_t hva = m->hva + (off - m->offset), done;
	unsigned tries = 0;
	enum uffd_result r;

	/* There is no UFFDIO_ZEROPAGE for huge pages. */
	while (!atomic_load(&p->dead)) {
		r = o->page_size > PAGE_GRANULE
			? copy_whole(o, p, hva, f->zeros, o->page_size, &done, e)
			: uffd_zeropage(p->uffd, hva, PAGE_GRANULE, e);
		switch (r) {
		case UFFD_BUSY:
			if (events_yield(f, p, &tries, e) == -1)
				return -1;
			break;
		case UFFD_DEAD:
			atomic_store(&p->dead, true);
			break;
		case UFFD_PRESENT:
		case UFFD_GONE:
			return uffd_wake(p->uffd, hva, o->page_size, e) == UFFD_FAILED ? -1 : 0;
		case UFFD_DONE:
			return 0;
		case UFFD_HOLE:
		case UFFD_FAILED:
			return no_page(o, off, e);
		}
	}
	return 0;
}

/* Pages of zeros that were taken.  One that cannot be put there now is asked for then. */
static int
put_zeros(struct filler *f, const struct mapping *m, uint64_t off, uint64_t len, struct err *e)
{
	struct served_process *p = f->server->processes[m->process];
	enum uffd_result r;

	if (len == 0)
		return 0;
	r = uffd_zeropage(p->uffd, m->hva + (off - m->offset), len, e);
	give_pages(&f->server->objects[m->object], off, len);
	if (r == UFFD_DEAD)
		atomic_store(&p->dead, true);
	/* Whoever came upon a page that was taken waits for it. */
	if (r != UFFD_DONE && r != UFFD_DEAD)
		r = uffd_wake(p->uffd, m->hva + (off - m->offset), len, e);
	return r == UFFD_FAILED ? -1 : 0;
}

/* The same of those around a page that was asked for. */
static int
put_around(struct filler *f, const struct mapping *m, uint64_t off, uint64_t len, struct err *e)
{
	stat_add(&f->stats.pages_around, len / PAGE_GRANULE);
	stat_add(&f->stats.pages_zero, len / PAGE_GRANULE);
	return put_zeros(f, m, off, len, e);
}

/* Those of one chunk, from *at on up to its end or the window's. */
static int
zeros_of_chunk(
    struct filler *f, const struct mapping *m, uint64_t *at, uint64_t window_end, struct err *e)
{
	const struct geometry *g = &f->server->img->g;
	struct served_object *o = &f->server->objects[m->object];
	uint64_t chunk = *at / g->chunk_size,
		 end = MIN((chunk + 1) * g->chunk_size, window_end);
	uint64_t from = *at;
	struct entry en;

	if (image_reader_entry(f->reader, o->object, chunk, &en, e) == -1) {
		*at = end;
		return damage_bear(f->server, m->object, e);
	}
	for (; *at < end; *at += PAGE_GRANULE) {
		uint32_t page = (uint32_t)(*at % g->chunk_size / PAGE_GRANULE);

		if (entry_is_zero(&en, page) && claims_take(&o->claims, *at / PAGE_GRANULE))
			continue;
		if (put_around(f, m, from, *at - from, e) == -1)
			return -1;
		from = *at + PAGE_GRANULE;
	}
	return put_around(f, m, from, end - MIN(from, end), e);
}

int
copy_zeros_around(struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	const struct served_object *o = &f->server->objects[m->object];
	uint64_t window = align_down(off, ZEROS_BYTES), at = MAX(window, m->offset);
	uint64_t end = MIN(MIN(window + ZEROS_BYTES, m->offset + m->len),
	    align_up(o->object->size, PAGE_GRANULE));

	while (at < end && !recording(f->server))
		if (zeros_of_chunk(f, m, &at, end, e) == -1)
			return -1;
	return 0;
}

int
copy_zero_pages(struct filler *f, size_t object, uint64_t off, uint64_t len, struct err *e)
{
	while (len > 0) {
		const struct mapping *m = mapping_of(f->server, object, off);
		uint64_t n = len;

		if (m != NULL && off < m->offset)
			n = MIN(n, m->offset - off);
		if (m == NULL || off < m->offset) {
			/* The VMM has it no more. */
			give_pages(&f->server->objects[object], off, n);
		} else {
			n = MIN(n, m->offset + m->len - off);
			if (put_zeros(f, m, off, n, e) == -1)
				return -1;
		}
		off += n;
		len -= n;
	}
	return 0;
}
