/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * make-trace IMAGE TRACE REGION:PAGE[+N]...: a trace of an image, as if these pages (of 4 KiB,
 * REGION a number) had been touched in this order.  -r SEED N: N pages by chance instead.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "image/image.h"
#include "image/trace-file.h"
#include "small-image.h"

static struct trace_run runs[1 << 16];
static size_t nruns;

static int
parse(char **words)
{
	for (; *words != NULL; words++, nruns++) {
		struct trace_run *r = &runs[nruns];
		unsigned long long page;

		r->npages = 1;
		r->access = TRACE_READ;
		if (sscanf(*words, "%u:%llu+%u", &r->region, &page, &r->npages) < 2)
			return -1;
		r->page = page;
	}
	return 0;
}

static void
by_chance(const struct manifest *m, uint64_t seed, size_t n)
{
	uint64_t npages = m->regions[0].size / PAGE_GRANULE;
	bool *seen = calloc(npages, sizeof(*seen));

	for (nruns = 0; seen != NULL && nruns < MIN(n, npages);) {
		uint64_t page = random_next(&seed) % npages;

		if (!seen[page])
			runs[nruns++] = (struct trace_run){
				.page = page, .npages = 1, .access = TRACE_WRITE
			};
		seen[page] = true;
	}
	free(seen);
}

int
main(int argc, char **argv)
{
	struct trace t = { 0 };
	struct err e = ERR_INIT;
	struct image *img = NULL;
	struct out *out = NULL;
	int rc = 1;

	if (argc < 3 || image_open(&img, argv[1], &e) == -1)
		goto out;
	if (argc == 6 && strcmp(argv[3], "-r") == 0)
		by_chance(
		    &img->manifest, strtoull(argv[4], NULL, 10), strtoul(argv[5], NULL, 10));
	else if (parse(argv + 3) == -1)
		goto out;
	if (trace_init(&t, img->manifest.regions, img->manifest.nregions, img->root, &e) == -1)
		goto out;
	t.end = TRACE_END_EXIT;
	if (trace_set_runs(&t, runs, nruns, &e) == 0 &&
	    out_open(&out, argv[2], true, &e) == 0 && trace_write(out, &t, &e) == 0)
		rc = 0;
out:
	if (rc != 0)
		fprintf(stderr, "make-trace: %s\n", e.msg);
	out_free(out);
	trace_free(&t);
	image_close(img);
	return rc;
}
