/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/scatter.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ckd.h"

#define STAGE_SIZE ((size_t)SCATTER_RUN * PAGE_GRANULE)

int
scatter_init(struct scatter *c, struct filler *f, size_t max, bool demand, struct err *e)
{
	void *stage;

	*c = (struct scatter){ .f = f, .max = max, .demand = demand };
	c->list = calloc(max, sizeof(*c->list));
	stage =
	    mmap(NULL, STAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stage != MAP_FAILED)
		c->stage = stage;
	if (c->list == NULL || c->stage == NULL)
		return err_sys(e, "memory to fill with");
	return 0;
}

void
scatter_fini(struct scatter *c)
{
	if (c->stage != NULL)
		munmap(c->stage, STAGE_SIZE);
	free(c->list);
	*c = (struct scatter){ 0 };
}

static int
by_page(const void *a, const void *b)
{
	const struct placed *x = a, *y = b;

	if (x->region != y->region)
		return x->region < y->region ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

static void
sort_pages(struct placed *list, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (by_page(&list[i - 1], &list[i]) > 0) {
			qsort(list, n, sizeof(*list), by_page);
			return;
		}
}

/*
 * The next run of pages that nobody has taken, from *at on; takes them.  Where faults have to
 * wait for our write(2) it is short.
 */
static size_t
take_run(struct scatter *c, const struct placed *list, size_t n, size_t *at)
{
	struct served_object *objects = c->f->server->objects;
	size_t i = *at, len = 0, most;

	while (i < n && !claims_take(&objects[list[i].region].claims, list[i].page))
		i++;
	*at = i;
	most = i < n && c->demand && !(c->own && objects[list[i].region].own != NULL)
		   ? SCATTER_RUN_DEMAND
		   : SCATTER_RUN;
	while (i + len < n && len < most) {
		const struct placed *p = &list[i + len];

		if (len > 0 && (p->region != list[i].region || p->page != list[i].page + len ||
				   !claims_take(&objects[p->region].claims, p->page)))
			break;
		len++;
	}
	return len;
}

/* Pieces that lie together are one. */
static int
gather(struct scatter *c, const struct placed *run, size_t n)
{
	int k = -1;

	for (size_t i = 0; i < n; i++) {
		if (k >= 0 && (uint8_t *)c->iov[k].iov_base + c->iov[k].iov_len == run[i].from)
			c->iov[k].iov_len += PAGE_GRANULE;
		else
			c->iov[++k] =
			    (struct iovec){ (void *)(uintptr_t)run[i].from, PAGE_GRANULE };
	}
	return k + 1;
}

/* The run in one piece, for calls that take no more. */
static const uint8_t *
one_piece(struct scatter *c, int niov)
{
	size_t at = 0;

	if (niov == 1)
		return c->iov[0].iov_base;
	for (int i = 0; i < niov; i++) {
		memcpy(c->stage + at, c->iov[i].iov_base, c->iov[i].iov_len);
		at += c->iov[i].iov_len;
	}
	return c->stage;
}

static int
write_run(struct scatter *c, const struct placed *run, size_t n, struct err *e)
{
	struct served_object *o = &c->f->server->objects[run->region];
	uint64_t off = run->page * PAGE_GRANULE, len = n * PAGE_GRANULE;
	int niov = gather(c, run, n), rc;

	if (o->engine == SERVE_COPY)
		return copy_pages(c->f, run->region, off, one_piece(c, niov), len, e);
	if (c->own && o->own != NULL)
		rc = own_write(o, one_piece(c, niov), (size_t)len, off, e);
	else if (o->whole != -1)
		rc = object_write(o, one_piece(c, niov), (size_t)len, off, e);
	else
		rc = object_writev(o, c->iov, niov, off, e);
	if (rc == -1)
		return -1;
	for (size_t i = 0; i < n; i++)
		object_give(o, run->page + i);
	return 0;
}

static int
zero_run(struct scatter *c, const struct placed *run, size_t n, struct err *e)
{
	struct served_object *o = &c->f->server->objects[run->region];
	uint64_t off = run->page * PAGE_GRANULE, len = n * PAGE_GRANULE;

	stat_add(&c->f->stats.pages_zero, n);
	if (o->engine == SERVE_COPY)
		return copy_zero_pages(c->f, run->region, off, len, e);
	if (c->own && o->own != NULL) {
		if (own_zero(o, (size_t)len, off, e) == -1)
			return -1;
	} else if (o->scratch == -1) {
		if (object_allocate(o, off, len, e) == -1)
			return -1;
	} else {
		for (size_t i = 0; i < n; i++)
			if (object_touch(o, off + i * PAGE_GRANULE, e) == -1)
				return -1;
	}
	for (size_t i = 0; i < n; i++)
		object_give(o, run->page + i);
	return 0;
}

int
scatter_one(struct scatter *c, const struct placed *p, struct err *e)
{
	if (write_run(c, p, 1, e) == -1)
		return -1;
	return map_everywhere(c->f, p->region, p->page * PAGE_GRANULE, PAGE_GRANULE, NULL, e);
}

int
scatter_give(
    struct scatter *c, stat_counter *count, void (*between)(void *), void *arg, struct err *e)
{
	size_t at = 0, len;

	sort_pages(c->list, c->n);
	while ((len = take_run(c, c->list, c->n, &at)) > 0) {
		const struct placed *run = &c->list[at];

		if ((run->from != NULL ? write_run : zero_run)(c, run, len, e) == -1)
			return -1;
		if (map_unasked(c->f, run->region, run->page * PAGE_GRANULE, len * PAGE_GRANULE,
			e) == -1)
			return -1;
		stat_add(count, len);
		at += len;
		if (between != NULL)
			between(arg);
	}
	c->n = 0;
	return 0;
}
