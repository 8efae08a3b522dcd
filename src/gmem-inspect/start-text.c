/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>

#include "cli/opt.h"
#include "format/layout.h"
#include "gmem-inspect/start.h"
#include "gmem-inspect/text.h"

/* The first of those behind *last that differ from it; MARKS: there is none. */
static int
next_mark(const struct start *s, double *last)
{
	int next = MARKS;

	for (int i = 0; i < MARKS; i++)
		if (s->marks[i] > *last && (next == MARKS || s->marks[i] < s->marks[next]))
			next = i;
	if (next != MARKS)
		*last = s->marks[next];
	return next;
}

static void
put_marks(const struct start *s)
{
	static const char *const names[MARKS] = {
		[MARK_LAUNCHED] = "the VMM was started",
		[MARK_FIRST_MAPPING] = "it had its memory",
		[MARK_FIRST_FAULT] = "the first fault",
		[MARK_CONNECTED] = "it answered on its socket",
		[MARK_LOADED] = "its state was loaded",
		[MARK_PREFETCHED] = "all was prefetched",
		[MARK_RUNNING] = "the guest ran",
		[MARK_COMPLETE] = "all memory was there",
		[MARK_ENDED] = "it had ended",
	};

	double last = -1;

	puts("\ntime");
	for (int i = next_mark(s, &last); i < MARKS; i = next_mark(s, &last))
		printf("  %11.1f ms  %s\n", s->marks[i], names[i]);
}

static void
put_class(const char *name, uint64_t pages, uint64_t all)
{
	char size[16], percent[16];

	printf("  %-12s %12llu  %10s  %8s\n", name, (unsigned long long)pages,
	    opt_human(size, pages * PAGE_GRANULE), text_percent(percent, pages, all));
}

static void
put_pages(const struct start *s)
{
	uint64_t all = start_given(s);

	puts("\npages given");
	for (int i = 0; i < CLASSES; i++)
		put_class(start_class_name((enum start_class)i), s->pages[i], all);
	put_class("all", all, all);
	put_class("  of zeros", s->zero, all);
	if (s->crossings != 0 && all != 0)
		printf("  %llu system calls, %.0f for 1000 pages\n",
		    (unsigned long long)s->crossings,
		    (double)s->crossings * 1000 / (double)all);
}

static void
put_latency(const char *name, uint64_t faults, const struct start_latency *l)
{
	printf("  %-12s %12llu", name, (unsigned long long)faults);
	if (l != NULL && l->count != 0)
		printf("  %10.1f %10.1f %10.1f %10.1f", (double)l->p50 / 1e3,
		    (double)l->p90 / 1e3, (double)l->p99 / 1e3, (double)l->max / 1e3);
	putchar('\n');
}

static void
put_faults(const struct start *s)
{
	const uint64_t hot = s->faults.hot;
	const uint64_t cold =
	    s->faults.stored - (hot < s->faults.stored ? hot : s->faults.stored);

	printf("\nfaults                      %12s %10s %10s %10s\n", "us: median", "p90",
	    "p99", "most");
	put_latency("stored", cold, &s->by[BY_STORED]);
	if (hot != 0)
		put_latency("hot", hot, &s->by[BY_HOT]);
	put_latency("zero", s->faults.zero, &s->by[BY_ZERO]);
	put_latency("present", s->faults.present, &s->by[BY_PRESENT]);
	put_latency("waited", s->faults.waited, NULL);
	put_latency("outside", s->faults.outside, NULL);
	put_latency("first answer", s->latency.count, &s->latency);
	printf("  %llu of them were writes", (unsigned long long)s->faults.write);
	if (s->faults.vcpu != 0)
		printf(", %llu left the guest", (unsigned long long)s->faults.vcpu);
	putchar('\n');
}

static void
put_prefetch(const struct start *s)
{
	char bytes[16], percent[16];

	if (!s->prefetch.any)
		return;
	printf("\nprefetched  %llu of %llu pages on the list, %s read",
	    (unsigned long long)s->prefetch.pages, (unsigned long long)s->prefetch.listed,
	    opt_human(bytes, s->prefetch.bytes));
	if (s->prefetch.ms >= 0)
		printf(", in %.1f ms", s->prefetch.ms);
	printf("\n            %llu came too late (%s of the list)\n",
	    (unsigned long long)s->prefetch.late,
	    text_percent(percent, s->prefetch.late, s->prefetch.listed));
	if (s->prefetch.precision >= 0)
		printf("            %.1f %% of the list was touched (precision)\n",
		    s->prefetch.precision * 100);
	if (s->prefetch.recall >= 0)
		printf("            %.1f %% of what was touched was on the list (recall)\n",
		    s->prefetch.recall * 100);
}

int
start_text(const struct start *s, struct err *e)
{
	char read[16], decoded[16], most[16];

	fputs("image       ", stdout);
	text_put(stdout, s->image);
	fputs("\nengine      ", stdout);
	text_put(stdout, s->engine);
	printf("\nread        %s, decoded %s\n", opt_human(read, s->bytes_read),
	    opt_human(decoded, s->bytes_decoded));
	if (s->cpu_ms >= 0)
		printf("took        %.1f ms of CPU, %s of memory at most\n", s->cpu_ms,
		    opt_human(most, s->rss_max));
	put_prefetch(s);
	put_marks(s);
	put_pages(s);
	put_faults(s);
	if (ferror(stdout))
		return err_sys(e, "standard output");
	return 0;
}
