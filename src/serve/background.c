/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/hot.h"
#include "serve/internal.h"

/* Giving what nobody asks for, in the background behind the faults. */
#define NICE 10

static void
nap_us(long us)
{
	const struct timespec ts = { .tv_nsec = us * 1000 };

	nanosleep(&ts, NULL);
}

/* Gives all units of huge pages that chunk `chunk` lies in. */
static int
fill_units(struct filler *f, size_t object, uint64_t chunk, stat_counter *pages, struct err *e)
{
	const struct served_object *o = &f->server->objects[object];
	uint64_t off = chunk * f->server->img->g.chunk_size;
	uint64_t end = MIN(off + f->server->img->g.chunk_size, o->object->size);

	/* Units are larger than chunks, or (pages of 16 or 64 KiB) smaller. */
	for (uint64_t unit = off / o->page_size; unit * o->page_size < end; unit++)
		if (fill_unit(f, object, unit, pages, e) == -1)
			return -1;
	return 0;
}

int
fill_one(struct filler *f, size_t object, uint64_t chunk, const struct entry *en, struct err *e)
{
	stat_counter *pages = &f->stats.pages_background;
	int rc;

	if (f->server->objects[object].page_size > PAGE_GRANULE)
		rc = fill_units(f, object, chunk, pages, e);
	else
		rc = fill_chunk(f, object, chunk, en, pages, e);
	filler_account(f);
	return rc;
}

/* ---- in the background ---- */

/* Demand goes first.  True: the server is being freed or has failed. */
static bool
make_way(struct server *s)
{
	while (atomic_load(&s->busy) > 0 && !atomic_load(&s->stop))
		nap_us(20);
	return atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED;
}

/* What has no place in the VMM cannot be given; eagerly others do it.  False: the server is
 * stopped or has failed. */
static bool
await_mapped(struct server *s)
{
	while (!atomic_load(s->options.engine == SERVE_EAGER ? &s->filled : &s->mapped)) {
		if (make_way(s))
			return false;
		nap_us(1000);
	}
	return true;
}

/* 1: all is given or being given; 0: stopped; -1 */
static int
fill_object(struct server *s, size_t object, struct err *e)
{
	struct filler *f = &s->background_filler;
	const struct served_object *o = &s->objects[object];
	uint64_t chunk = 0;
	struct entry en;
	int more = 1;

	if (atomic_load(&o->complete))
		return 1;
	if (o->engine == SERVE_COPY && !await_mapped(s))
		return 0;
	while ((more = image_reader_next(f->reader, o->object, chunk, &chunk, &en, e)) == 1) {
		if (make_way(s))
			return 0;
		if (source_ahead(s, f, e) == -1)
			return -1;
		if (fill_one(f, object, chunk, &en, e) == -1)
			return -1;
		chunk++;
	}
	return more == -1 ? -1 : 1;
}

/* What lies in the hot section, of all objects.  The same. */
static int
fill_hot(struct server *s, struct err *e)
{
	struct filler *f = &s->background_filler;
	uint64_t chunk = 0;
	struct entry en;
	int more;

	if (s->hot == NULL)
		return 1;
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY && !await_mapped(s))
			return 0;
	while ((more = image_reader_next(
		    f->reader, s->hot->list->object, chunk, &chunk, &en, e)) == 1) {
		if (make_way(s))
			return 0;
		if (hot_fill(f, chunk, &en, &f->stats.pages_background, e) == -1)
			return -1;
		chunk++;
	}
	return more == -1 ? -1 : 1;
}

/* Naps until the page is given: 1, 0 when the server has stopped or failed. */
static int
await_page(struct server *s, const struct claims *c, uint64_t page)
{
	while (!claims_given(c, page)) {
		if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
			return 0;
		nap_us(100);
	}
	return 1;
}

/*
 * Huge pages of zeros are written too, whole.  None may be on its way when the mappings are
 * released: what the guest writes from then on would be lost.
 */
static int
await_units(struct server *s, struct served_object *o)
{
	for (uint64_t unit = 0; unit < o->claims.npages; unit++) {
		/* Whoever asks for those of zeros later is to be told no lies. */
		if (o->source && !claims_taken(&o->claims, unit))
			continue;
		if (claims_take(&o->claims, unit))
			object_give(o, unit);
		else if (await_page(s, &o->claims, unit) == 0)
			return 0;
	}
	return 1;
}

/* Everything is taken; waits until it is given. */
static int
await_object(struct server *s, size_t object, struct err *e)
{
	struct served_object *o = &s->objects[object];
	uint32_t npages = s->img->g.pages;
	uint64_t chunk = 0;
	struct entry en;
	int more = 1;

	if (atomic_load(&o->complete))
		return 1;
	if (o->page_size > PAGE_GRANULE)
		return await_units(s, o);
	while ((more = image_reader_next(
		    s->background_filler.reader, o->object, chunk, &chunk, &en, e)) == 1) {
		for (uint32_t i = 0; i < npages; i++)
			if (!entry_is_zero(&en, i) &&
			    await_page(s, &o->claims, chunk * npages + i) == 0)
				return 0;
		chunk++;
	}
	return more == -1 ? -1 : 1;
}

/*
 * Nothing but zeros is missing now.  Unregistering wakes whoever waits, and
 * the kernel makes zeros where there is nothing.  A fault that is on its way
 * while that happens may begin to wait too late to be woken; hence the second
 * wake-up.
 */
static void
release_mappings(struct server *s)
{
	const struct mapping_table *t;
	struct err e;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->nobjects; i++)
		object_complete(&s->objects[i]);
	t = atomic_load(&s->mappings);
	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		/* What was unmapped meanwhile cannot be unregistered, and need not. */
		if (uffd_unregister(s->processes[m->process]->uffd, m->hva, m->len, &e) == -1)
			log_debug("%s", e.msg);
		if (uffd_wake(s->processes[m->process]->uffd, m->hva, m->len, &e) ==
		    UFFD_FAILED)
			log_debug("%s", e.msg);
	}
	server_complete(s);
	pthread_mutex_unlock(&s->lock);
}

void *
background_main(void *arg)
{
	struct server *s = arg;
	struct err e = ERR_INIT;
	int rc = 1;

	/* Of this thread only; it may fail without harm. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	rc = prefetch_await(s) ? fill_hot(s, &e) : 0;
	for (size_t i = 0; i < s->nobjects && rc == 1; i++)
		rc = fill_object(s, i, &e);
	for (size_t i = 0; i < s->nobjects && rc == 1; i++)
		rc = await_object(s, i, &e);
	if (rc == 1)
		release_mappings(s);
	else if (rc == -1)
		server_fail(s, &e);
	return NULL;
}
