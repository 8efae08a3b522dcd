/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/map.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/ckd.h"
#include "cli/opt.h"
#include "gmem-inspect/grid.h"
#include "gmem-inspect/text.h"

/*
 * A row: the address of its first cell, a glyph for each cell, and how much of
 * the row is stored and how well that is compressed.  The glyph is the density;
 * on a terminal its colour is the ratio.
 */
#define ROWS 24
#define COLUMNS_DEFAULT 100
#define STAT_WIDTH 18 /* "  >99.9 %   10.2:1" */

struct style {
	const char *const *glyphs;
	const char *hot;
	const char *const *colours;
	const char *reset;
};

static const char *const utf8_glyphs[GRID_LEVELS] = { "·", "░", "▒", "▓", "█" };
static const char *const ascii_glyphs[GRID_LEVELS] = { ".", "-", "+", "*", "#" };
/* From "costs nothing" to "costs what it is". */
static const char *const colours[GRID_RATIOS] = { "\033[38;5;37m", "\033[38;5;71m",
	"\033[38;5;178m", "\033[38;5;208m", "\033[38;5;160m" };
static const char *const no_colours[GRID_RATIOS] = { "", "", "", "", "" };

static bool
is_set(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && *value != '\0';
}

static bool
locale_is_utf8(void)
{
	const char *name = is_set("LC_ALL")     ? "LC_ALL"
			   : is_set("LC_CTYPE") ? "LC_CTYPE"
						: "LANG";
	const char *value = getenv(name);

	return value != NULL &&
	       (strcasestr(value, "UTF-8") != NULL || strcasestr(value, "UTF8") != NULL);
}

static struct style
choose_style(void)
{
	const char *term = getenv("TERM");
	bool colour = isatty(STDOUT_FILENO) && !is_set("NO_COLOR") && term != NULL &&
		      strcmp(term, "dumb") != 0;

	return (struct style){
		.glyphs = locale_is_utf8() ? utf8_glyphs : ascii_glyphs,
		.hot = locale_is_utf8() ? "◆" : "h",
		.colours = colour ? colours : no_colours,
		.reset = colour ? "\033[0m" : "",
	};
}

/* Hex digits of the largest address of a region. */
static int
address_digits(const struct object *o)
{
	uint64_t top = o->size;
	int digits = 1;

	for (size_t i = 0; i < o->nsegments; i++)
		top = MAX(top, o->segments[i].gpa + o->segments[i].size);
	while (top >> 4 != 0) {
		top >>= 4;
		digits++;
	}
	return digits;
}

/* A power of two, so that rows begin at round addresses. */
static unsigned
choose_columns(unsigned width, int digits)
{
	struct winsize ws;
	unsigned room, columns = 8;

	if (width == 0) {
		room = COLUMNS_DEFAULT;
		if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0)
			room = ws.ws_col;
		room -= MIN(room, (unsigned)digits + 3 + STAT_WIDTH);
		width = room;
	}
	while (columns * 2 <= width)
		columns *= 2;
	return columns;
}

static void
print_cell(const struct style *style, const struct cell *c, const char **colour)
{
	const char *want = c->stored == 0 ? style->reset : style->colours[cell_ratio(c)];

	if (want != *colour)
		fputs(want, stdout);
	*colour = want;
	fputs(cell_is_hot(c) ? style->hot : style->glyphs[cell_level(c)], stdout);
}

static void
print_row(const struct grid *g, const struct block *b, uint64_t first, int digits,
    const struct style *style)
{
	uint64_t end = MIN(first + g->columns, b->ncells);
	struct cell sum = { 0 };
	const char *colour = style->reset;
	char percent[16], ratio[16];

	printf("0x%0*llx ", digits,
	    (unsigned long long)(span_address(&b->span) + first * g->cell_size));
	for (uint64_t i = first; i < end; i++) {
		print_cell(style, &b->cells[i], &colour);
		sum.pages += b->cells[i].pages;
		sum.stored += b->cells[i].stored;
		sum.bytes += b->cells[i].bytes;
	}
	fputs(style->reset, stdout);
	if (sum.stored != 0)
		printf("%*s %8s %8s", (int)(first + g->columns - end), "",
		    text_percent(percent, sum.stored, sum.pages),
		    text_ratio(ratio, sum.stored * PAGE_GRANULE, sum.bytes));
	printf("\n");
}

/* Rows without anything between two that have something are told, not drawn. */
static uint64_t
empty_rows(const struct grid *g, const struct block *b, uint64_t first)
{
	uint64_t i = first;

	while (i < b->ncells && b->cells[i].stored == 0)
		i++;
	return i == b->ncells ? div_up(i - first, g->columns) : (i - first) / g->columns;
}

static void
print_block(const struct grid *g, const struct block *b, int digits, const struct style *style)
{
	char size[16];

	for (uint64_t first = 0; first < b->ncells; first += g->columns) {
		uint64_t skip = empty_rows(g, b, first);

		if (skip > 2) {
			uint64_t bytes = MIN(skip * g->columns * g->cell_size,
			    b->span.size - first * g->cell_size);

			print_row(g, b, first, digits, style);
			printf("%*s %s of zeros\n", digits + 2, "*", text_size(size, bytes));
			first += (skip - 1) * g->columns;
			continue;
		}
		print_row(g, b, first, digits, style);
	}
}

static void
print_region_head(const struct grid *g, int digits)
{
	const struct cell *t = &g->total;
	char size[16], plain[16], packed[16], percent[16], ratio[16], cell[16], row[16];

	printf("%s  ", g->object->name);
	text_put(stdout, g->object->kind);
	printf("  %s, stored %s (%s) in %s (%s)\n", text_size(size, g->object->size),
	    opt_human(plain, t->stored * PAGE_GRANULE),
	    text_percent(percent, t->stored, t->pages), opt_human(packed, t->bytes),
	    text_ratio(ratio, t->stored * PAGE_GRANULE, t->bytes));
	if (t->hot != 0)
		printf("%*s %s of it are hot (%s)\n", digits + 2, "",
		    opt_human(plain, t->hot * PAGE_GRANULE),
		    text_percent(percent, t->hot, t->stored));
	printf("%*s a cell is %s, a row is %s%s\n", digits + 2, "",
	    text_size(cell, g->cell_size), text_size(row, g->cell_size * g->columns),
	    g->object->nsegments == 0 ? "; addresses are offsets" : "");
}

static void
print_region(const struct grid *g, const struct style *style)
{
	int digits = address_digits(g->object);

	print_region_head(g, digits);
	for (size_t i = 0; i < g->nblocks; i++) {
		const struct span *s = &g->blocks[i].span;

		if (i > 0 || (g->nblocks > 1 && s->mapped))
			printf("%*s %s+0x%llx%s\n", digits + 2, "", g->object->name,
			    (unsigned long long)s->offset,
			    s->mapped ? "" : ", not in the guest physical address space");
		print_block(g, &g->blocks[i], digits, style);
	}
}

static void
print_legend(const struct style *style, bool hot)
{
	printf("\ncells ");
	for (unsigned i = 0; i < GRID_LEVELS; i++)
		printf("  %s %s", style->glyphs[i], level_text(i));
	if (hot)
		printf("  %s half or more is hot", style->hot);
	if (*style->reset != '\0') {
		printf("\nratio ");
		for (unsigned i = 0; i < GRID_RATIOS; i++)
			printf("  %s%s%s %s", style->colours[i], style->glyphs[4], style->reset,
			    ratio_text(i));
	}
	printf("\nThe columns at the right: stored pages of the row, and their compression.\n");
}

int
map_text(const struct map *map, struct err *e)
{
	struct style style = choose_style();

	for (size_t i = 0; i < map->nregions; i++) {
		const struct object *o = &map->regions[i];
		struct grid *g;

		if (grid_new(&g, map->img, o, choose_columns(map->width, address_digits(o)),
			ROWS, e) == -1)
			return -1;
		if (i > 0)
			printf("\n");
		print_region(g, &style);
		grid_free(g);
	}
	print_legend(&style, map->img->manifest.hot != NULL);
	return 0;
}
