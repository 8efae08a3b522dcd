/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/source-layers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"

struct range {
	uint64_t start, end;
};

/* The ranges are looked up once: lseek(2) later would not go with other threads. */
struct source_layer {
	int fd; /* owned */
	struct range *v; /* data, ascending; owned */
	size_t n;
};

static void
layer_fini(struct source_layer *l)
{
	fd_close(&l->fd);
	free(l->v);
}

void
source_layers_fini(struct source_layers *l)
{
	for (size_t i = 0; i < l->n; i++)
		layer_fini(&l->v[i]);
	free(l->v);
	*l = (struct source_layers){ 0 };
}

/* ---- finding the data ---- */

static int
add_range(struct source_layer *l, size_t *room, uint64_t start, uint64_t end, struct err *e)
{
	if (l->n == *room) {
		size_t more = MAX(2 * *room, (size_t)64);
		struct range *v = reallocarray(l->v, more, sizeof(*v));

		if (v == NULL)
			return err_sys(e, "%zu ranges of data", more);
		l->v = v;
		*room = more;
	}
	l->v[l->n++] = (struct range){ start, end };
	return 0;
}

static int
find_ranges(struct source_layer *l, uint64_t size, uint64_t *holes, struct err *e)
{
	off_t data, hole = 0;
	size_t room = 0;

	*holes = size;
	while ((uint64_t)hole < size && (data = lseek(l->fd, hole, SEEK_DATA)) != -1) {
		hole = lseek(l->fd, data, SEEK_HOLE);
		if (hole == -1)
			return err_sys(e, "look for holes");
		if (add_range(l, &room, (uint64_t)data, MIN((uint64_t)hole, size), e) == -1)
			return -1;
		*holes -= MIN((uint64_t)hole, size) - (uint64_t)data;
	}
	return (uint64_t)hole >= size || errno == ENXIO ? 0 : err_sys(e, "look for data");
}

int
source_layers_add(
    struct source_layers *l, int fd, uint64_t size, uint64_t *holes, struct err *e)
{
	struct source_layer *v, layer = { .fd = fd };

	if (find_ranges(&layer, size, holes, e) == -1) {
		layer_fini(&layer);
		return -1;
	}
	v = reallocarray(l->v, l->n + 1, sizeof(*v));
	if (v == NULL) {
		err_sys(e, "a layer");
		layer_fini(&layer);
		return -1;
	}
	l->v = v;
	l->v[l->n++] = layer;
	return 0;
}

/* The first range that ends behind `from`; its index, or n. */
static size_t
first_behind(const struct source_layer *l, uint64_t from)
{
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (l->v[mid].end > from)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

int
source_layers_next(const struct source_layers *l, uint64_t from, uint64_t *start, uint64_t *end)
{
	bool found = false;

	for (size_t i = 0; i < l->n; i++) {
		size_t k = first_behind(&l->v[i], from);

		if (k == l->v[i].n || (found && l->v[i].v[k].start >= *start))
			continue;
		*start = l->v[i].v[k].start;
		*end = l->v[i].v[k].end;
		found = true;
	}
	return found ? 1 : 0;
}

/* ---- reading it ---- */

static int
read_layer(const struct source_layer *l, uint8_t *buf, size_t len, uint64_t off, struct err *e)
{
	uint64_t end = off + len;

	for (size_t i = first_behind(l, off); i < l->n && l->v[i].start < end; i++) {
		uint64_t from = MAX(l->v[i].start, off), to = MIN(l->v[i].end, end);

		if (fd_pread_full(l->fd, buf + (from - off), (size_t)(to - from), from, e) ==
		    -1)
			return -1;
	}
	return 0;
}

int
source_layers_read(
    const struct source_layers *l, void *buf, size_t len, uint64_t off, struct err *e)
{
	for (size_t i = 0; i < l->n; i++)
		if (read_layer(&l->v[i], buf, len, off, e) == -1) {
			/* It is no image that is damaged: somebody is changing the file. */
			e->kind = ERR_FAILED;
			return err_wrap(e, "diff %zu", i + 1);
		}
	return 0;
}
