/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <sys/mman.h>

#include "base/ckd.h"
#include "serve/hot.h"
#include "serve/internal.h"

/* Who gives pages, one for each thread: its reader, its buffers, and what it counts. */

static int
new_reader(struct filler *f, bool faults, struct err *e)
{
	if (image_reader_new(&f->reader, f->server->img, e) == -1)
		return -1;
	if (!faults)
		return 0;
	image_reader_urgent(f->reader, true);
	f->joined = loaded_join(f->server, e) == 0;
	return f->joined ? 0 : -1;
}

int
filler_lock(struct filler *f, struct err *e)
{
	if (!f->locked && image_reader_lock(f->reader, e) == -1)
		return -1;
	f->locked = true;
	return 0;
}

static uint8_t *
map_unit(size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void
enlist(struct filler *f)
{
	struct server *s = f->server;

	pthread_mutex_lock(&s->stats_lock);
	f->next = s->fillers;
	s->fillers = f;
	pthread_mutex_unlock(&s->stats_lock);
}

/* What it did stays counted. */
static void
retire(struct filler *f)
{
	struct server *s = f->server;
	struct filler **link;

	pthread_mutex_lock(&s->stats_lock);
	for (link = &s->fillers; *link != NULL && *link != f; link = &(*link)->next)
		;
	if (*link == f) {
		*link = f->next;
		serve_stats_merge(&s->past, &f->stats);
	}
	pthread_mutex_unlock(&s->stats_lock);
	f->server = NULL;
}

int
filler_init(struct filler *f, struct server *s, bool faults, int uffd, struct err *e)
{
	*f = (struct filler){ .server = s, .uffd = uffd };
	enlist(f);
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].page_size > PAGE_GRANULE)
			f->unit_size = MAX(f->unit_size, s->objects[i].page_size);
	if (new_reader(f, faults, e) == -1 || hot_filler_init(f, faults, e) == -1)
		return -1;
	if (f->unit_size == 0)
		return 0;
	f->unit = map_unit(f->unit_size, PROT_READ | PROT_WRITE);
	f->zeros = map_unit(f->unit_size, PROT_READ);
	if (f->unit == NULL || f->zeros == NULL)
		return err_sys(e, "buffer of %zu bytes", f->unit_size);
	return 0;
}

void
filler_fini(struct filler *f)
{
	if (f->joined)
		loaded_leave(f->server);
	f->joined = false;
	if (f->server != NULL)
		retire(f);
	filler_shed(f);
}

void
filler_shed(struct filler *f)
{
	hot_filler_fini(f);
	image_reader_free(f->reader);
	f->reader = NULL;
	if (f->unit != NULL)
		munmap(f->unit, f->unit_size);
	if (f->zeros != NULL)
		munmap((void *)(uintptr_t)f->zeros, f->unit_size);
	f->unit = NULL;
	f->zeros = NULL;
}

static void
count(
    struct filler *f, const struct image_reader_stats *now, struct image_reader_stats *counted)
{
	stat_add(&f->stats.bytes_read, now->bytes_read - counted->bytes_read);
	stat_add(&f->stats.bytes_decoded, now->bytes_decoded - counted->bytes_decoded);
	stat_add(&f->stats.crossings, now->reads - counted->reads);
	*counted = *now;
}

void
filler_account(struct filler *f)
{
	struct image_reader_stats now;

	if (f->reader == NULL)
		return;
	image_reader_stats(f->reader, &now);
	hot_count(f, &now);
	count(f, &now, &f->counted);
	stat_add(&f->stats.crossings, crossings_take());
}

void
filler_count(struct filler *f, const struct image_reader *r, struct image_reader_stats *counted)
{
	struct image_reader_stats now;

	image_reader_stats(r, &now);
	count(f, &now, counted);
}
