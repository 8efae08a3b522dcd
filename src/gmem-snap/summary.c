/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/summary.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/opt.h"
#include "format/layout.h"

struct counts {
	uint64_t bytes; /* of memory */
	uint64_t pages, stored; /* of memory */
};

static struct counts
count(const struct manifest *m)
{
	struct counts c = { 0 };

	for (size_t i = 0; i < m->nregions; i++) {
		c.bytes += m->regions[i].size;
		c.pages += (m->regions[i].size + PAGE_GRANULE - 1) / PAGE_GRANULE;
		c.stored += m->regions[i].top.stored;
	}
	return c;
}

static double
ms_between(uint64_t from, uint64_t to)
{
	return (double)(to - from) / 1e6;
}

static double
ratio(const struct snapshot *s, const struct counts *c)
{
	return s->image_size == 0 ? 0 : (double)c->bytes / (double)s->image_size;
}

static const char *
vm_name(enum vmm_outcome vm)
{
	switch (vm) {
	case VMM_RUNS:
		return "running";
	case VMM_PAUSED:
		return "paused";
	case VMM_ENDED:
		return "ended";
	case VMM_UNTOUCHED:
	case VMM_LET_GO:
	case VMM_UNKNOWN:
		break;
	}
	return NULL;
}

static json_t *
object_json(const struct object *o)
{
	json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I}", "name", o->name, "kind", o->kind,
	    "size", (json_int_t)o->size, "pages_stored", (json_int_t)o->top.stored,
	    "stored_size", (json_int_t)o->top.bytes);

	if (j != NULL && o->page_size != 0)
		json_put(j, "page_size", o->page_size);
	return j;
}

static json_t *
objects_json(const struct object *list, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, object_json(&list[i]));
	return array;
}

/* What became of the pages of --hot. */
static json_t *
hot_json(const struct snapshot *s)
{
	if (s->traces.n == 0)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I}", "pages", (json_int_t)s->hot.n, "pages_stored",
	    (json_int_t)s->hot.nstored, "pages_dropped", (json_int_t)s->hot.dropped,
	    "pages_over", (json_int_t)s->hot.over);
}

static int
print_json(struct snapshot *s, struct err *e)
{
	const struct manifest *m = snapshot_manifest(s);
	const char *vm = vm_name(s->vm);
	struct counts c = count(m);
	json_t *j = json_output();

	json_object_set_new(j, "image", json_string(s->o->output));
	json_object_set_new(j, "root", json_digest(s->root));
	json_put(j, "image_size", s->image_size);
	json_put(j, "bytes", c.bytes);
	json_put(j, "pages_stored", c.stored);
	json_put(j, "pages_zero", c.pages - c.stored);
	json_object_set_new(j, "ratio", json_real(ratio(s, &c)));
	json_put(j, "chunk_size", s->chunk_size);
	json_object_set_new(j, "level", json_integer(s->level));
	json_put(j, "threads", s->o->nthreads);
	json_object_set_new(j, "pause_ms",
	    s->pause_ns == 0 ? json_null() : json_real(ms_between(s->pause_ns, s->resume_ns)));
	json_object_set_new(j, "pause_less", json_boolean(s->o->pause_less));
	json_put(j, "pages_written", s->pages_written);
	json_put(j, "writes_stalled", s->stalls);
	json_object_set_new(j, "total_ms", json_real(ms_between(s->start_ns, snapshot_now())));
	json_object_set_new(j, "vm", vm == NULL ? json_null() : json_string(vm));
	json_object_set_new(j, "regions", objects_json(m->regions, m->nregions));
	json_object_set_new(j, "states", objects_json(m->states, m->nstates));
	json_object_set_new(j, "hot", hot_json(s));
	return json_write(STDOUT_FILENO, j, e);
}

static void
describe(struct snapshot *s, char *to, size_t size)
{
	struct counts c = count(snapshot_manifest(s));
	char all[16], stored[16], image[16], pause[64] = "";
	double ms = ms_between(s->pause_ns, s->resume_ns);

	if (s->pause_ns != 0)
		snprintf(pause, sizeof(pause), "; paused for %.*f ms", ms < 100, ms);
	snprintf(to, size, "%s: %s of memory, %s not zero, in %s (%.1f:1), %.2f s%s",
	    s->o->output, opt_human(all, c.bytes), opt_human(stored, c.stored * PAGE_GRANULE),
	    opt_human(image, s->image_size), ratio(s, &c),
	    ms_between(s->start_ns, snapshot_now()) / 1e3, pause);
}

int
summary_print(struct snapshot *s, struct err *e)
{
	char text[512];

	if (s->o->json)
		return print_json(s, e);
	describe(s, text, sizeof(text));
	if (strcmp(s->o->output, "-") == 0)
		log_info("%s", text);
	else if (s->o->log_level >= LOG_LEVEL_WARN)
		printf("%s\n", text);
	return 0;
}
