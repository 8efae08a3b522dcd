/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/grid.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "gmem-inspect/walk.h"

static uint64_t
rows_needed(const struct span *spans, size_t n, uint64_t cell_size, unsigned columns)
{
	uint64_t rows = 0;

	for (size_t i = 0; i < n; i++)
		rows += div_up(div_up(spans[i].size, cell_size), columns);
	return rows;
}

/* Every span takes a row at least, so many spans may take more than `rows`. */
static uint64_t
choose_cell_size(const struct span *spans, size_t n, unsigned columns, unsigned rows)
{
	uint64_t size = PAGE_GRANULE;

	while (size < OBJECT_SIZE_MAX && rows_needed(spans, n, size, columns) > rows + n)
		size *= 2;
	return size;
}

static uint64_t
make_blocks(struct grid *g, const struct span *spans, size_t n)
{
	uint64_t ncells = 0;

	for (size_t i = 0; i < n; i++) {
		g->blocks[i].span = spans[i];
		g->blocks[i].ncells = div_up(spans[i].size, g->cell_size);
		ncells += g->blocks[i].ncells;
	}
	g->nblocks = n;
	return ncells;
}

static void
place_cells(struct grid *g)
{
	struct cell *next = g->cells;

	for (size_t i = 0; i < g->nblocks; i++) {
		struct block *b = &g->blocks[i];

		b->cells = next;
		next += b->ncells;
		for (uint64_t k = 0; k < b->ncells; k++) {
			uint64_t left = b->span.size - k * g->cell_size;

			b->cells[k].pages = div_up(MIN(left, g->cell_size), PAGE_GRANULE);
			g->total.pages += b->cells[k].pages;
		}
	}
}

struct filler {
	struct grid *g;
	struct block *block; /* the last one that a run was in */
};

/* A page belongs to the cell that its first byte is in. */
static int
on_run(void *arg, const struct run *run, struct err *e)
{
	struct filler *f = arg;
	uint64_t cell_size = f->g->cell_size;

	(void)e;
	for (uint64_t page = 0, n; page < run->npages; page += n) {
		uint64_t at = run->offset + page * PAGE_GRANULE, within, end;
		struct cell *c;

		while (at - f->block->span.offset >= f->block->span.size)
			f->block++;
		within = at - f->block->span.offset;
		end = MIN((within / cell_size + 1) * cell_size, f->block->span.size);
		n = MIN(div_up(end - within, PAGE_GRANULE), run->npages - page);
		c = &f->block->cells[within / cell_size];
		c->stored += n;
		c->hot += run->hot ? n : 0;
		c->bytes += share(run->bytes, page, page + n, run->npages);
	}
	f->g->total.stored += run->npages;
	f->g->total.hot += run->hot ? run->npages : 0;
	f->g->total.bytes += run->bytes;
	return 0;
}

static int
fill(struct grid *g, const struct image *img, const struct span *spans, size_t n, struct err *e)
{
	struct filler f = { .g = g };
	uint64_t ncells;

	g->blocks = calloc(n, sizeof(*g->blocks));
	if (g->blocks == NULL)
		return err_sys(e, "%s", g->object->name);
	ncells = make_blocks(g, spans, n);
	g->cells = calloc(ncells, sizeof(*g->cells));
	if (g->cells == NULL)
		return err_sys(e, "%s", g->object->name);
	place_cells(g);
	f.block = g->blocks;
	return walk_object(img, g->object, on_run, &f, e);
}

int
grid_new(struct grid **out, const struct image *img, const struct object *o, unsigned columns,
    unsigned rows, struct err *e)
{
	struct span *spans;
	struct grid *g;
	size_t n;
	int rc;

	if (spans_new(&spans, &n, o, e) == -1)
		return -1;
	g = calloc(1, sizeof(*g));
	if (g == NULL) {
		free(spans);
		return err_sys(e, "%s", o->name);
	}
	g->object = o;
	g->columns = columns;
	g->cell_size = choose_cell_size(spans, n, columns, rows);
	rc = fill(g, img, spans, n, e);
	free(spans);
	if (rc == -1)
		grid_free(g);
	else
		*out = g;
	return rc;
}

void
grid_free(struct grid *g)
{
	if (g == NULL)
		return;
	free(g->blocks);
	free(g->cells);
	free(g);
}

unsigned
cell_level(const struct cell *c)
{
	if (c->stored == 0)
		return 0;
	if (c->stored >= c->pages)
		return 4;
	return 1 + (unsigned)(c->stored * 3 / c->pages);
}

bool
cell_is_hot(const struct cell *c)
{
	return c->hot != 0 && 2 * c->hot >= c->stored;
}

unsigned
cell_ratio(const struct cell *c)
{
	uint64_t percent = c->stored == 0 ? 0 : c->bytes * 100 / (c->stored * PAGE_GRANULE);

	return percent < 10 ? 0 : percent < 25 ? 1 : percent < 50 ? 2 : percent < 80 ? 3 : 4;
}

const char *
level_text(unsigned level)
{
	static const char *const texts[GRID_LEVELS] = { "zero", "below 1/3", "below 2/3",
		"2/3 and more", "all stored" };

	return texts[level];
}

const char *
ratio_text(unsigned ratio)
{
	static const char *const texts[GRID_RATIOS] = { "over 10:1", "over 4:1", "over 2:1",
		"over 1.25:1", "hardly" };

	return texts[ratio];
}
