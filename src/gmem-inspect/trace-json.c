/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <unistd.h>

#include "cli/json.h"
#include "gmem-inspect/text.h"
#include "gmem-inspect/trace.h"

static void
put_share(json_t *to, const char *key, uint64_t part, uint64_t whole)
{
	json_object_set_new(
	    to, key, whole == 0 ? json_null() : json_real((double)part / (double)whole));
}

static void
put_count(json_t *to, const struct trace_count *c)
{
	json_put(to, "pages", c->pages);
	json_put(to, "bytes", c->pages * PAGE_GRANULE);
	json_put(to, "read_pages", c->reads);
	json_put(to, "write_pages", c->writes);
}

static json_t *
regions(const struct trace_file *f)
{
	json_t *list = json_array();

	for (size_t i = 0; i < f->t.nregions; i++) {
		json_t *o = json_object();

		json_object_set_new(o, "name", text_json(f->t.regions[i].name));
		json_put(o, "size", f->t.regions[i].size);
		put_count(o, &f->regions[i]);
		json_array_append_new(list, o);
	}
	return list;
}

/* [ms, pages until then], where anything was touched. */
static json_t *
times(const struct trace_file *f)
{
	json_t *list = json_array();
	uint64_t n = 0;

	for (size_t i = 0; i < f->t.nruns; i++) {
		const struct trace_run *r = &f->t.runs[i];

		n += r->npages;
		if (i + 1 == f->t.nruns || r[1].time_ms != r->time_ms)
			json_array_append_new(
			    list, json_pack("[I,I]", (json_int_t)r->time_ms, (json_int_t)n));
	}
	return list;
}

static json_t *
in_image(const struct trace_file *f, const struct image *img)
{
	json_t *o = json_object();

	json_object_set_new(o, "image", text_json(img->path));
	json_object_set_new(o, "root", json_digest(img->root));
	json_put(o, "stored_pages", f->in_image.stored);
	json_put(o, "hot_pages", f->in_image.hot);
	json_put(o, "zero_pages", f->in_image.zero);
	json_put(o, "elsewhere_pages", f->in_image.elsewhere);
	return o;
}

static json_t *
one(const struct trace_file *f, const struct image *img)
{
	json_t *o = json_object();

	json_object_set_new(o, "trace", text_json(f->path));
	json_object_set_new(o, "tool", text_json(f->t.tool));
	json_object_set_new(o, "end", text_json(f->t.end));
	json_object_set_new(o, "root", json_digest(f->t.root));
	json_put(o, "duration_ms", f->t.duration_ms);
	json_put(o, "lost_pages", f->t.lost);
	json_put(o, "runs", f->t.nruns);
	put_count(o, &f->all);
	put_share(o, "sequential", f->next, f->all.pages);
	json_object_set_new(o, "regions", regions(f));
	json_object_set_new(o, "times_ms", times(f));
	if (img != NULL)
		json_object_set_new(o, "in_image", in_image(f, img));
	return o;
}

static int
pair(json_t *list, const struct trace_file *a, const struct trace_file *b, struct err *e)
{
	struct trace_pair p;
	json_t *o;

	if (trace_pair_count(&p, a, b, e) == -1)
		return -1;
	o = json_object();
	json_object_set_new(o, "a", text_json(a->path));
	json_object_set_new(o, "b", text_json(b->path));
	json_put(o, "common_pages", p.common);
	put_share(o, "jaccard", p.common, trace_pair_either(&p));
	put_share(o, "coverage", p.common, p.nb);
	put_share(o, "precision", p.common, p.na);
	json_array_append_new(list, o);
	return 0;
}

int
traces_json(const struct traces *all, struct err *e)
{
	json_t *json = json_output(), *traces = json_array(), *pairs = json_array();

	json_object_set_new(json, "traces", traces);
	json_object_set_new(json, "comparisons", pairs);
	for (size_t i = 0; i < all->n; i++)
		json_array_append_new(traces, one(&all->list[i], all->img));
	for (size_t i = 1; i < all->n; i++) {
		if (pair(pairs, &all->list[0], &all->list[i], e) == -1) {
			json_decref(json);
			return -1;
		}
	}
	return json_write(STDOUT_FILENO, json, e);
}
