/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "cli/opt.h"
#include "format/layout.h"
#include "gmem-inspect/start.h"
#include "gmem-inspect/text.h"
#include "image/out.h"

/*
 * One file without scripts or fonts of its own, for light and dark.  Each start has two
 * fields, and all have one scale of time: pages by class, as areas in steps, and how
 * long faults waited.
 */
#define WIDTH 960.0
#define LEFT 84.0
#define RIGHT 24.0
#define FIELD (WIDTH - LEFT - RIGHT)
#define LINE 18.0
#define PAGES_HEIGHT 240.0
#define MARKS_HEIGHT (MARKS_ROWS * 12.0 + 6)
#define MARKS_ROWS 5
#define LATENCY_HEIGHT 120.0
#define START_HEIGHT                                                                           \
	(2 * LINE + MARKS_HEIGHT + PAGES_HEIGHT + 2 * LINE + LINE + LATENCY_HEIGHT + 3 * LINE)

/* Of latencies, ns: 100 ns to 10 s in decades. */
#define DECADE_MIN 2
#define DECADE_MAX 10

static const char *const class_names[CLASSES] = { [CLASS_PREFETCHED] = "prefetched",
	[CLASS_DEMAND] = "asked for",
	[CLASS_AROUND] = "around these",
	[CLASS_BACKGROUND] = "in the background" };
static const char *const class_colours[CLASSES] = { [CLASS_PREFETCHED] = "#2a9d8f",
	[CLASS_DEMAND] = "#d1495b",
	[CLASS_AROUND] = "#f4a261",
	[CLASS_BACKGROUND] = "#7a8fb8" };
static const char *const by_names[BYS] = {
	[BY_STORED] = "stored", [BY_HOT] = "hot", [BY_ZERO] = "zero", [BY_PRESENT] = "present"
};
static const char *const by_colours[BYS] = { [BY_STORED] = "#d1495b",
	[BY_HOT] = "#f4a261",
	[BY_ZERO] = "#7a8fb8",
	[BY_PRESENT] = "#2a9d8f" };

struct plot {
	FILE *f;
	double y; /* of what is drawn next */
	double ms; /* the scale of time: as much as the field is wide */
	double pages; /* the scale of pages: as much as it is high */
};

static double
x_of(const struct plot *p, double ms)
{
	return LEFT + FIELD * MIN(ms / p->ms, 1);
}

static double
y_of(const struct plot *p, double pages)
{
	return p->y + PAGES_HEIGHT * (1 - pages / p->pages);
}

/* 1, 2 or 5 times a power of ten: about n of them make `all`. */
static double
step_of(double all, unsigned n)
{
	double least = all / n, step = pow(10, floor(log10(least)));

	if (step * 5 < least)
		return step * 10;
	return step * 2 < least ? step * 5 : step < least ? step * 2 : step;
}

/* ---- pages over time ---- */

static void
draw_axes(const struct plot *p)
{
	double bottom = p->y + PAGES_HEIGHT, step = step_of(p->ms, 8);
	char size[16];

	for (unsigned i = 0; i * step <= p->ms; i++)
		fprintf(p->f,
		    "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
		    "<text class=\"note\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g%s"
		    "</text>\n",
		    x_of(p, i * step), p->y, x_of(p, i * step), bottom, x_of(p, i * step),
		    bottom + 13, i * step, i == 0 ? " ms" : "");
	step = step_of(p->pages * PAGE_GRANULE / (1 << 20), 5) * (1 << 20) / PAGE_GRANULE;
	for (unsigned i = 0; i * step <= p->pages; i++)
		fprintf(p->f,
		    "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
		    "<text class=\"note\" x=\"%.1f\" y=\"%.1f\" "
		    "text-anchor=\"end\">%s</text>\n",
		    LEFT, y_of(p, i * step), LEFT + FIELD, y_of(p, i * step), LEFT - 6,
		    y_of(p, i * step) + 4,
		    opt_human(size, (uint64_t)(i * step) * PAGE_GRANULE));
}

/* Pages of all classes up to this one, at a sample. */
static double
stacked(const struct start *s, int class, size_t i)
{
	double sum = 0;

	for (int c = 0; c <= class; c++)
		sum += (double)s->series[c][i];
	return sum;
}

/* From the left in steps, and back below. */
static void
draw_area(const struct plot *p, const struct start *s, int class)
{
	fprintf(p->f, "<path class=\"area\" fill=\"%s\" d=\"M%.1f,%.1f", class_colours[class],
	    x_of(p, s->ms[0]), y_of(p, stacked(s, class, 0)));
	for (size_t i = 1; i < s->nsamples; i++)
		fprintf(p->f, "H%.1fV%.1f", x_of(p, s->ms[i]), y_of(p, stacked(s, class, i)));
	fprintf(p->f, "H%.1f", LEFT + FIELD);
	fprintf(p->f, "V%.1f", y_of(p, stacked(s, class - 1, s->nsamples - 1)));
	for (size_t i = s->nsamples; i-- > 1;)
		fprintf(p->f, "H%.1fV%.1f", x_of(p, s->ms[i]),
		    y_of(p, stacked(s, class - 1, i - 1)));
	fprintf(p->f, "H%.1fZ\"><title>%s: %llu pages</title></path>\n", x_of(p, s->ms[0]),
	    class_names[class], (unsigned long long)s->pages[class]);
}

/* A line for each, and its name above, where the one before leaves room. */
static void
draw_marks(const struct plot *p, const struct start *s)
{
	unsigned row = 0;

	for (int i = 0; i < MARKS; i++) {
		double x = x_of(p, s->marks[i]), top = p->y - 4 - 12.0 * row;

		if (s->marks[i] < 0 || s->marks[i] > p->ms)
			continue;
		fprintf(p->f,
		    "<line class=\"mark\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
		    "<text class=\"note\" x=\"%.1f\" y=\"%.1f\"%s>%s %.1f</text>\n",
		    x, top, x, p->y + PAGES_HEIGHT, x > LEFT + FIELD - 130 ? x - 3 : x + 3, top,
		    x > LEFT + FIELD - 130 ? " text-anchor=\"end\"" : "",
		    start_mark_name((enum start_mark)i), s->marks[i]);
		row = (row + 1) % MARKS_ROWS;
	}
}

static void
draw_legend(struct plot *p, const char *const *names, const char *const *colours, int n)
{
	for (int i = 0; i < n; i++)
		fprintf(p->f,
		    "<rect x=\"%.1f\" y=\"%.1f\" width=\"11\" height=\"11\" fill=\"%s\"/>"
		    "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
		    LEFT + 160.0 * i, p->y - 10, colours[i], LEFT + 160.0 * i + 16, p->y,
		    names[i]);
}

static void
draw_pages(struct plot *p, const struct start *s)
{
	p->y += MARKS_HEIGHT;
	draw_axes(p);
	for (int i = 0; i < CLASSES && s->nsamples > 0; i++)
		if (s->pages[i] != 0)
			draw_area(p, s, i);
	if (s->nsamples == 0)
		fprintf(p->f,
		    "<text x=\"%.1f\" y=\"%.1f\">no series: written without one</text>\n",
		    LEFT + 8, p->y + 2 * LINE);
	draw_marks(p, s);
	p->y += PAGES_HEIGHT + 2 * LINE;
	draw_legend(p, class_names, class_colours, CLASSES);
}

/* ---- how long faults waited ---- */

static double
x_of_ns(double ns)
{
	double at = (log10(MAX(ns, 1)) - DECADE_MIN) / (DECADE_MAX - DECADE_MIN);

	return LEFT + FIELD * MIN(MAX(at, 0), 1);
}

static void
draw_decades(const struct plot *p)
{
	static const char *const names[] = { "100 ns", "1 us", "10 us", "100 us", "1 ms",
		"10 ms", "100 ms", "1 s", "10 s" };

	for (int i = DECADE_MIN; i <= DECADE_MAX; i++) {
		double x = x_of_ns(pow(10, i));

		fprintf(p->f,
		    "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
		    "<text class=\"note\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s"
		    "</text>\n",
		    x, p->y, x, p->y + LATENCY_HEIGHT, x, p->y + LATENCY_HEIGHT + 13,
		    names[i - DECADE_MIN]);
	}
}

static uint64_t
highest(const struct start_latency *l)
{
	uint64_t most = 1;

	for (size_t i = 0; i < l->nbuckets; i++)
		most = MAX(most, l->buckets[i].count);
	return most;
}

/* Each is as high as the field: there may be a thousand times as many of one as of another. */
static void
draw_histogram(const struct plot *p, const struct start *s, int k)
{
	const struct start_latency *l = &s->by[k];
	uint64_t most = highest(l);
	double bottom = p->y + LATENCY_HEIGHT;

	for (size_t i = 0; i < l->nbuckets; i++) {
		/* The buckets have an eighth of a power of two, or 1/16 at its end. */
		double right = x_of_ns((double)l->buckets[i].bound);
		double left = x_of_ns((double)l->buckets[i].bound * 8 / 9);
		double height = LATENCY_HEIGHT * (double)l->buckets[i].count / (double)most;

		fprintf(p->f,
		    "<rect class=\"area\" fill=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
		    "height=\"%.1f\"><title>%s, up to %.1f us: %llu</title></rect>\n",
		    by_colours[k], left, bottom - height, MAX(right - left, 1), height,
		    by_names[k], (double)l->buckets[i].bound / 1e3,
		    (unsigned long long)l->buckets[i].count);
	}
}

static void
draw_quantile(const struct plot *p, const char *name, uint64_t ns, double row)
{
	double x = x_of_ns((double)ns);

	fprintf(p->f,
	    "<line class=\"mark\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
	    "<text class=\"note\" x=\"%.1f\" y=\"%.1f\">%s %.1f us</text>\n",
	    x, p->y, x, p->y + LATENCY_HEIGHT, x + 3, p->y + 10 + 12 * row, name,
	    (double)ns / 1e3);
}

static void
draw_latency(struct plot *p, const struct start *s)
{
	p->y += LINE;
	draw_decades(p);
	for (int k = 0; k < BYS; k++)
		draw_histogram(p, s, k);
	if (s->latency.count != 0) {
		draw_quantile(p, "p50", s->latency.p50, 0);
		draw_quantile(p, "p99", s->latency.p99, 1);
		draw_quantile(p, "max", s->latency.max, 2);
	} else {
		fprintf(p->f, "<text x=\"%.1f\" y=\"%.1f\">no fault was answered</text>\n",
		    LEFT + 8, p->y + 2 * LINE);
	}
	p->y += LATENCY_HEIGHT + 2 * LINE;
	draw_legend(p, by_names, by_colours, BYS);
	fprintf(p->f,
	    "<text class=\"note\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">"
	    "each with its own height</text>\n",
	    LEFT + FIELD, p->y);
	p->y += LINE;
}

/* ---- all ---- */

static void
draw_start(struct plot *p, const struct start *s)
{
	char size[16], read[16];

	p->y += LINE;
	fprintf(p->f, "<text class=\"title\" x=\"%.1f\" y=\"%.1f\">", LEFT, p->y);
	text_xml(p->f, s->path);
	fputs("</text>\n", p->f);
	p->y += LINE;
	fprintf(p->f, "<text x=\"%.1f\" y=\"%.1f\">", LEFT, p->y);
	text_xml(p->f, s->image);
	fputs(", engine ", p->f);
	text_xml(p->f, s->engine);
	fprintf(p->f, ": %s given, %s read</text>\n",
	    opt_human(size, start_given(s) * PAGE_GRANULE), opt_human(read, s->bytes_read));
	draw_pages(p, s);
	draw_latency(p, s);
}

/* Up to the last page, and all that had happened by then; but for the end of the VMM. */
static double
time_of(const struct start *s)
{
	double ms = 0;

	for (int i = 0; i < MARKS; i++)
		if (i != MARK_ENDED)
			ms = MAX(ms, s->marks[i]);
	return s->nsamples > 0 ? MAX(ms, s->ms[s->nsamples - 1]) : ms;
}

static void
draw(FILE *f, const struct start *list, size_t n)
{
	struct plot p = { .f = f, .ms = 1, .pages = 256 };
	double height = (double)n * START_HEIGHT + 2 * LINE;

	for (size_t i = 0; i < n; i++) {
		uint64_t given = start_given(&list[i]);

		p.ms = MAX(p.ms, 1.03 * time_of(&list[i]));
		p.pages = MAX(p.pages, 1.05 * (double)given);
		if (list[i].nsamples > 0)
			p.pages = MAX(p.pages,
			    1.05 * stacked(&list[i], CLASSES - 1, list[i].nsamples - 1));
	}
	fprintf(f,
	    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
	    "width=\"%.0f\" height=\"%.0f\">\n<style>text{font:12px "
	    "ui-monospace,monospace;fill:#333;white-space:pre}.title{font-size:16px;"
	    "font-weight:bold}.note{font-size:10px;fill:#666}.paper{fill:#fff}"
	    ".grid{stroke:#8884;stroke-width:1}.mark{stroke:#333;stroke-width:1;"
	    "stroke-dasharray:3 2}.area{fill-opacity:.7}"
	    "@media(prefers-color-scheme:dark){.paper{fill:#16181d}text{fill:#ddd}"
	    ".note{fill:#aaa}.mark{stroke:#ddd}}</style>\n"
	    "<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n",
	    WIDTH, height, WIDTH, height);
	p.y = LINE;
	for (size_t i = 0; i < n; i++)
		draw_start(&p, &list[i]);
	fputs("</svg>\n", f);
}

int
starts_svg(const struct start *list, size_t n, struct out *out, struct err *e)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int rc = -1;

	if (f == NULL)
		return err_sys(e, "SVG");
	draw(f, list, n);
	if (fclose(f) != 0)
		err_sys(e, "SVG");
	else if (out_write(out, text, len, e) == 0)
		rc = out_commit(out, e);
	free(text);
	return rc;
}
