/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "cli/opt.h"
#include "gmem-inspect/grid.h"
#include "gmem-inspect/text.h"

/*
 * One file without scripts or fonts of its own.  A region is a field of cells:
 * colour is the compression, strength the density, and every cell tells its
 * address range when it is pointed at.
 */
#define COLUMNS_DEFAULT 128u
#define ROWS 64
#define FIELD_WIDTH 896u /* units, whatever the number of cells */
#define CELL_MAX 14u
#define CELL_MIN 4u
#define LEFT 150u
#define RIGHT 200u
#define LINE 18u
#define MARGIN 24u

static const char *const colours[GRID_RATIOS] = { "#2a9d8f", "#8ab17d", "#e9c46a", "#f4a261",
	"#d1495b" };
static const char *const opacities[GRID_LEVELS] = { "0", "0.3", "0.5", "0.75", "1" };

struct svg {
	FILE *f;
	unsigned y, width;
	unsigned cell; /* units of one cell, square */
};

static unsigned
cell_units(unsigned columns)
{
	return MAX(MIN(FIELD_WIDTH / columns, CELL_MAX), CELL_MIN);
}

/* ---- how high everything is, before anything is written ---- */

static unsigned
grid_height(const struct grid *g)
{
	uint64_t rows = 0;

	for (size_t i = 0; i < g->nblocks; i++)
		rows += div_up(g->blocks[i].ncells, g->columns);
	return (unsigned)rows * cell_units(g->columns) + (unsigned)g->nblocks * (LINE / 2) +
	       3 * LINE;
}

/* ---- a region ---- */

static void
cell_title(const struct svg *s, const struct grid *g, const struct block *b, uint64_t i)
{
	const struct cell *c = &b->cells[i];
	uint64_t start = span_address(&b->span) + i * g->cell_size;
	uint64_t end = start + MIN(g->cell_size, b->span.size - i * g->cell_size);
	char percent[16], packed[16], ratio[16];

	fprintf(
	    s->f, "<title>0x%llx-0x%llx: ", (unsigned long long)start, (unsigned long long)end);
	text_xml(s->f, text_percent(percent, c->stored, c->pages));
	fprintf(s->f, " stored, %s in the image (%s)", opt_human(packed, c->bytes),
	    text_ratio(ratio, c->stored * PAGE_GRANULE, c->bytes));
	if (c->hot != 0)
		fprintf(s->f, ", %s of it hot", text_percent(percent, c->hot, c->stored));
	fputs("</title>", s->f);
}

static void
draw_cell(const struct svg *s, const struct grid *g, const struct block *b, uint64_t i)
{
	const struct cell *c = &b->cells[i];
	unsigned x = LEFT + (unsigned)(i % g->columns) * s->cell;
	unsigned y = s->y + (unsigned)(i / g->columns) * s->cell;

	if (c->stored == 0)
		return;
	fprintf(s->f,
	    "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\" "
	    "fill-opacity=\"%s\"%s>",
	    x, y, s->cell, s->cell, colours[cell_ratio(c)], opacities[cell_level(c)],
	    cell_is_hot(c) ? " class=\"hot\"" : "");
	cell_title(s, g, b, i);
	fputs("</rect>\n", s->f);
}

/* The ground that zeros show: full rows, and the short one behind them. */
static void
draw_ground(const struct svg *s, const struct grid *g, const struct block *b)
{
	unsigned full = (unsigned)(b->ncells / g->columns);
	unsigned rest = (unsigned)(b->ncells % g->columns);

	if (full != 0)
		fprintf(s->f,
		    "<rect class=\"zero\" x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\"/>\n",
		    LEFT, s->y, g->columns * s->cell, full * s->cell);
	if (rest != 0)
		fprintf(s->f,
		    "<rect class=\"zero\" x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\"/>\n",
		    LEFT, s->y + full * s->cell, rest * s->cell, s->cell);
}

/* A label for each row would be too dense: one a line of text. */
static void
draw_labels(const struct svg *s, const struct grid *g, const struct block *b)
{
	uint64_t nrows = div_up(b->ncells, g->columns);
	unsigned step = 1;

	while (step * s->cell < LINE)
		step *= 2;
	for (uint64_t row = 0; row < nrows; row += step)
		fprintf(s->f,
		    "<text x=\"%u\" y=\"%u\" text-anchor=\"end\" "
		    "class=\"address\">%s0x%llx</text>\n",
		    LEFT - 8, s->y + (unsigned)row * s->cell + MIN(s->cell, 10u),
		    b->span.mapped || g->object->nsegments == 0 ? "" : "+",
		    (unsigned long long)(span_address(&b->span) +
					 row * g->columns * g->cell_size));
}

static void
draw_where(const struct svg *s, const struct grid *g, const struct block *b)
{
	char size[16];

	fprintf(s->f, "<text x=\"%u\" y=\"%u\" class=\"note\">",
	    LEFT + g->columns * s->cell + 10, s->y + 10);
	text_xml(s->f, g->object->name);
	fprintf(s->f, "+0x%llx, %s%s</text>\n", (unsigned long long)b->span.offset,
	    text_size(size, b->span.size),
	    b->span.mapped || g->object->nsegments == 0 ? "" : ", no address");
}

static void
draw_head(struct svg *s, const struct grid *g)
{
	const struct cell *t = &g->total;
	char size[16], plain[16], packed[16], percent[16], ratio[16], cell[16];

	s->y += LINE;
	fprintf(s->f, "<text x=\"%u\" y=\"%u\"><tspan class=\"name\">", LEFT, s->y);
	text_xml(s->f, g->object->name);
	fputs("</tspan>  ", s->f);
	text_xml(s->f, g->object->kind);
	fprintf(s->f, " of %s: %s (", text_size(size, g->object->size),
	    opt_human(plain, t->stored * PAGE_GRANULE));
	text_xml(s->f, text_percent(percent, t->stored, t->pages));
	fprintf(s->f, ") stored in %s, %s. One cell is %s.</text>\n",
	    opt_human(packed, t->bytes), text_ratio(ratio, t->stored * PAGE_GRANULE, t->bytes),
	    text_size(cell, g->cell_size));
	s->y += LINE / 2;
}

static void
draw_region(struct svg *s, const struct grid *g)
{
	s->cell = cell_units(g->columns);
	draw_head(s, g);
	for (size_t i = 0; i < g->nblocks; i++) {
		const struct block *b = &g->blocks[i];

		draw_ground(s, g, b);
		for (uint64_t k = 0; k < b->ncells; k++)
			draw_cell(s, g, b, k);
		draw_labels(s, g, b);
		draw_where(s, g, b);
		s->y += (unsigned)div_up(b->ncells, g->columns) * s->cell + LINE / 2;
	}
	s->y += LINE;
}

/* ---- around them ---- */

static void
draw_top(struct svg *s, const struct map *map, unsigned height)
{
	fprintf(s->f,
	    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %u\" width=\"%u\" "
	    "height=\"%u\">\n<style>text{font:12px ui-monospace,monospace;fill:#333;"
	    "white-space:pre}.title{font-size:16px;font-weight:bold}.name{font-weight:bold}"
	    ".address,.note{font-size:10px;fill:#777}.zero{fill:#e4e6e8}"
	    ".hot{stroke:#000;stroke-width:1}</style>\n"
	    "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
	    s->width, height, s->width, height);
	s->y = MARGIN + LINE;
	fprintf(s->f, "<text x=\"%u\" y=\"%u\" class=\"title\">", LEFT, s->y);
	text_xml(s->f, map->img->path);
	fputs("</text>\n", s->f);
	s->y += LINE;
}

static void
legend_item(
    struct svg *s, unsigned x, const char *colour, const char *opacity, const char *text)
{
	fprintf(s->f,
	    "<rect class=\"zero\" x=\"%u\" y=\"%u\" width=\"12\" height=\"12\"/>"
	    "<rect x=\"%u\" y=\"%u\" width=\"12\" height=\"12\" fill=\"%s\" "
	    "fill-opacity=\"%s\"/><text x=\"%u\" y=\"%u\">%s</text>\n",
	    x, s->y - 10, x, s->y - 10, colour, opacity, x + 18, s->y, text);
}

static void
draw_legend(struct svg *s, bool hot)
{
	s->y += LINE;
	fprintf(s->f, "<text x=\"%u\" y=\"%u\" text-anchor=\"end\">stored</text>\n", LEFT - 8,
	    s->y);
	for (unsigned i = 0; i < GRID_LEVELS; i++)
		legend_item(s, LEFT + 140 * i, "#555", opacities[i], level_text(i));
	s->y += LINE + 4;
	fprintf(
	    s->f, "<text x=\"%u\" y=\"%u\" text-anchor=\"end\">ratio</text>\n", LEFT - 8, s->y);
	for (unsigned i = 0; i < GRID_RATIOS; i++)
		legend_item(s, LEFT + 140 * i, colours[i], "1", ratio_text(i));
	if (hot) {
		s->y += LINE + 4;
		fprintf(s->f,
		    "<text x=\"%u\" y=\"%u\">framed: half of it or more is hot</text>\n", LEFT,
		    s->y);
	}
	fputs("</svg>\n", s->f);
}

static void
draw(FILE *f, const struct map *map, struct grid *const *grids)
{
	struct svg s = { .f = f };
	unsigned height = 2 * MARGIN + 7 * LINE, field = 5 * 140;

	for (size_t i = 0; i < map->nregions; i++) {
		height += grid_height(grids[i]);
		field = MAX(field, grids[i]->columns * cell_units(grids[i]->columns));
	}
	s.width = LEFT + field + RIGHT;
	draw_top(&s, map, height);
	for (size_t i = 0; i < map->nregions; i++)
		draw_region(&s, grids[i]);
	draw_legend(&s, map->img->manifest.hot != NULL);
}

static int
write_out(const struct map *map, struct grid *const *grids, struct err *e)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f;
	int rc = -1;

	f = open_memstream(&text, &len);
	if (f == NULL)
		return err_sys(e, "SVG");
	draw(f, map, grids);
	if (fclose(f) != 0)
		err_sys(e, "SVG");
	else if (out_write(map->out, text, len, e) == 0)
		rc = out_commit(map->out, e);
	free(text);
	return rc;
}

int
map_svg(const struct map *map, struct err *e)
{
	unsigned columns = map->width != 0 ? map->width : COLUMNS_DEFAULT;
	struct grid **grids;
	int rc = 0;

	grids = calloc(map->nregions + 1, sizeof(struct grid *));
	if (grids == NULL)
		return err_sys(e, "SVG");
	for (size_t i = 0; i < map->nregions && rc == 0; i++)
		rc = grid_new(&grids[i], map->img, &map->regions[i], columns, ROWS, e);
	if (rc == 0)
		rc = write_out(map, grids, e);
	for (size_t i = 0; i < map->nregions; i++)
		grid_free(grids[i]);
	free(grids);
	return rc;
}
