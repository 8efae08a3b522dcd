/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/internal.h"

/* The first page that is given of all: it shows how pages get into the memory. */

/* The content of the first page that is stored in a chunk, at *page. */
static int
read_first(struct filler *f, const struct object *o, uint64_t chunk, const struct entry *en,
    uint64_t *page, const uint8_t **content, struct err *e)
{
	struct place there;

	*page = chunk * f->server->img->g.pages;
	for (uint32_t i = 0; entry_is_zero(en, i); i++)
		++*page;
	return image_reader_place(f->reader, o, *page, &there, e) == -1 ||
		       image_reader_get(f->reader, &there, content, e) == -1
		   ? -1
		   : 0;
}

/* The first page that can be had: 1; 0 if none is stored; -1. */
static int
find_first(
    struct filler *f, size_t object, uint64_t *page, const uint8_t **content, struct err *e)
{
	const struct object *o = f->server->objects[object].object;
	uint64_t n = image_chunks(f->server->img, o), from = 0, chunk;
	struct err first = ERR_INIT;
	struct entry en;
	int more;

	while (
	    from < n && (more = image_reader_next(f->reader, o, from, &chunk, &en, e)) != 0) {
		from = more == 1 ? chunk + 1 : image_reader_behind(f->reader);
		if (more == 1 && read_first(f, o, chunk, &en, page, content, e) == 0)
			return 1;
		err_first(&first, e);
		if (!damage_is_borne(f->server, e))
			return -1;
	}
	/* With damage and nothing else there is nothing to be served. */
	*e = first;
	return e->kind == ERR_NONE ? 0 : -1;
}

int
fill_first(struct filler *f, size_t object, struct err *e)
{
	struct served_object *o = &f->server->objects[object];
	const uint8_t *content;
	uint64_t page;
	int rc;

	if (filler_lock(f, e) == -1)
		return -1;
	rc = find_first(f, object, &page, &content, e);
	if (rc == 0)
		o->writes = true; /* there is nothing to write */
	if (rc != 1)
		return rc;
	claims_take(&o->claims, page);
	if (object_first_write(o, content, page * PAGE_GRANULE, e) == -1)
		return -1;
	object_give(o, page);
	stat_add(&f->stats.pages_background, 1);
	return 0;
}
