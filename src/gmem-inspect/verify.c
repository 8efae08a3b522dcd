/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "gmem-inspect/inspect.h"
#include "gmem-inspect/text.h"
#include "image/verify.h"

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int
verify_json(const struct image *img, const struct verify_result *r, bool deep, double seconds,
    struct err *e)
{
	json_t *json = json_output();

	json_object_set_new(json, "image", text_json(img->path));
	json_object_set_new(json, "root", json_digest(img->root));
	json_object_set_new(json, "whole", json_true());
	json_object_set_new(json, "content", deep ? json_true() : json_null());
	json_put(json, "size", img->size);
	json_put(json, "records", r->records);
	json_put(json, "pages", r->pages);
	json_put(json, "hot_pages", r->hot);
	json_put(json, "nodes", r->nodes);
	json_put(json, "bytes", r->bytes);
	json_object_set_new(json, "seconds", json_real(seconds));
	return json_write(STDOUT_FILENO, json, e);
}

static void
verify_text(const struct image *img, const struct verify_result *r, bool deep, double seconds)
{
	char content[16], speed[16];

	text_put(stdout, img->path);
	printf(": whole%s: %llu pages (%s) in %llu records and %llu index nodes, %.2f s",
	    deep ? ", and its content is what was saved" : "", (unsigned long long)r->pages,
	    opt_human(content, r->bytes), (unsigned long long)r->records,
	    (unsigned long long)r->nodes, seconds);
	if (seconds > 0.01)
		printf(" (%s/s)", opt_human(speed, (uint64_t)((double)r->bytes / seconds)));
	printf("\n");
}

static void
show_progress(void *arg, uint64_t done, uint64_t total)
{
	progress_update(arg, done, total);
}

int
verb_verify(struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;
	struct verify_result result;
	struct progress progress;
	double start = now();
	int rc;

	progress_start(&progress, "verify", opt->quiet, opt->progress_fd);
	rc = image_verify_with(in->img, opt->deep ? VERIFY_DEEP : 0, opt->threads,
	    show_progress, &progress, &result, e);
	progress_end(&progress, rc == 0);
	if (rc == -1)
		return -1;
	if (opt->json)
		return verify_json(in->img, &result, opt->deep, now() - start, e);
	if (!opt->quiet)
		verify_text(in->img, &result, opt->deep, now() - start);
	return 0;
}
