/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "cli/json.h"
#include "cli/opt.h"
#include "gmem-inspect/text.h"
#include "gmem-inspect/trace.h"

/* "12345 pages (48 MiB)" */
static void
amount(uint64_t pages)
{
	char size[16];

	printf("%llu pages (%s)", (unsigned long long)pages,
	    opt_human(size, pages * PAGE_GRANULE));
}

static void
head(const struct trace_file *f)
{
	char root[2 * DIGEST_SIZE + 1], next[16];

	digest_text(root, f->t.root);
	printf("trace      ");
	text_put(stdout, f->path);
	printf("\nof image   %s\nwritten by ", root);
	text_put(stdout, f->t.tool);
	printf("\nrecorded   %.3f s, until: ", (double)f->t.duration_ms / 1e3);
	text_put(stdout, f->t.end);
	printf("\ntouched    ");
	amount(f->all.pages);
	printf(" in %zu runs, %s in sequence\n", f->t.nruns,
	    text_percent(next, f->next, f->all.pages));
	printf("by reading %llu, by writing %llu\n", (unsigned long long)f->all.reads,
	    (unsigned long long)f->all.writes);
	if (f->t.lost != 0)
		printf("lost       %llu pages: a trace has no more\n",
		    (unsigned long long)f->t.lost);
}

static void
times(const struct trace_file *f)
{
	static const unsigned parts[] = { 10, 50, 90, 99, 100 };

	if (f->all.pages == 0)
		return;
	printf("until     ");
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		printf("%s%u %% in %u ms", i > 0 ? ", " : " ", parts[i],
		    trace_file_time(f, parts[i]));
	printf("\n");
}

static void
in_image(const struct trace_file *f, const struct image *img)
{
	printf("in image   ");
	text_put(stdout, img->path);
	printf(": ");
	amount(f->in_image.stored);
	printf(" stored, %llu of them hot; %llu zero, %llu without a place\n",
	    (unsigned long long)f->in_image.hot, (unsigned long long)f->in_image.zero,
	    (unsigned long long)f->in_image.elsewhere);
}

static void
regions(const struct trace_file *f)
{
	int width = 6;

	for (size_t i = 0; i < f->t.nregions; i++)
		width = MAX(width, (int)strlen(f->t.regions[i].name));
	printf("\n  %-*s  %9s  %9s  %9s  %8s  %9s  %9s\n", width, "REGION", "SIZE", "PAGES",
	    "TOUCHED", "", "READ", "WRITTEN");
	for (size_t i = 0; i < f->t.nregions; i++) {
		const struct object *o = &f->t.regions[i];
		const struct trace_count *c = &f->regions[i];
		char size[16], touched[16], share[16];

		printf("  %-*s  %9s  %9llu  %9s  %8s  %9llu  %9llu\n", width, o->name,
		    text_size(size, o->size), (unsigned long long)c->pages,
		    opt_human(touched, c->pages * PAGE_GRANULE),
		    text_percent(share, c->pages, div_up(o->size, PAGE_GRANULE)),
		    (unsigned long long)c->reads, (unsigned long long)c->writes);
	}
}

static int
pair(const struct trace_file *a, const struct trace_file *b, struct err *e)
{
	char jaccard[16], coverage[16], precision[16];
	struct trace_pair p;

	if (trace_pair_count(&p, a, b, e) == -1)
		return -1;
	printf("\n");
	text_put(stdout, a->path);
	printf(" against ");
	text_put(stdout, b->path);
	printf("\n  common     ");
	amount(p.common);
	printf("\n  jaccard    %s of what either has\n"
	       "  coverage   %s of the second is in the first\n"
	       "  precision  %s of the first is in the second\n",
	    text_percent(jaccard, p.common, trace_pair_either(&p)),
	    text_percent(coverage, p.common, p.nb), text_percent(precision, p.common, p.na));
	return 0;
}

int
traces_text(const struct traces *all, struct err *e)
{
	for (size_t i = 0; i < all->n; i++) {
		const struct trace_file *f = &all->list[i];

		if (i > 0)
			printf("\n");
		head(f);
		times(f);
		if (all->img != NULL)
			in_image(f, all->img);
		regions(f);
	}
	for (size_t i = 1; i < all->n; i++)
		if (pair(&all->list[0], &all->list[i], e) == -1)
			return -1;
	return 0;
}

/* Where a page is in the guest, or "-". */
static void
guest_physical(char buf[24], const struct object *o, uint64_t offset)
{
	snprintf(buf, 24, "-");
	for (size_t i = 0; i < o->nsegments; i++) {
		const struct segment *s = &o->segments[i];

		if (offset >= s->offset && offset - s->offset < s->size) {
			snprintf(buf, 24, "0x%llx",
			    (unsigned long long)(s->gpa + (offset - s->offset)));
			return;
		}
	}
}

/* Exact numbers: lists are for grep and awk. */
int
traces_list(const struct traces *all, struct err *e)
{
	const struct trace *t = &all->list[0].t;
	int width = 6;

	for (size_t i = 0; i < t->nregions; i++)
		width = MAX(width, (int)strlen(t->regions[i].name));
	printf("%10s  %-6s  %-*s  %16s  %9s  %18s\n", "MS", "ACCESS", width, "REGION", "OFFSET",
	    "PAGES", "GUEST PHYSICAL");
	for (size_t i = 0; i < t->nruns && !ferror(stdout); i++) {
		static const char *const names[] = { "-", "read", "write", "both" };
		const struct trace_run *r = &t->runs[i];
		uint64_t offset = r->page * PAGE_GRANULE;
		char gpa[24], at[24];

		guest_physical(gpa, &t->regions[r->region], offset);
		snprintf(at, sizeof(at), "0x%llx", (unsigned long long)offset);
		printf("%10u  %-6s  %-*s  %16s  %9u  %18s\n", r->time_ms, names[r->access],
		    width, t->regions[r->region].name, at, r->npages, gpa);
	}
	return ferror(stdout) ? err_set(e, ERR_FAILED, "the list could not be written") : 0;
}
