/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/trace.h"

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "format/fields.h"
#include "format/trace-bytes.h"

/* What a trace is, and its bytes; trace-decode.c reads them, trace-resolve.c uses them. */

static int
out_of_memory(struct err *e)
{
	return err_set(e, ERR_FAILED, "trace: out of memory");
}

static int
copy_region(struct trace *t, struct object *to, const struct object *from)
{
	*to = (struct object){ .kind = "", .size = from->size, .page_size = from->page_size };
	to->name = arena_strdup(&t->arena, from->name);
	to->segments = arena_array(&t->arena, from->nsegments, sizeof(*to->segments));
	if (to->name == NULL || to->segments == NULL)
		return -1;
	to->nsegments = from->nsegments;
	if (to->nsegments != 0)
		memcpy(to->segments, from->segments, to->nsegments * sizeof(*to->segments));
	return 0;
}

int
trace_init(struct trace *t, const struct object *regions, size_t nregions,
    const uint8_t root[DIGEST_SIZE], struct err *e)
{
	*t = (struct trace){ .tool = PACKAGE_NAME " " PACKAGE_VERSION, .end = "" };
	memcpy(t->root, root, DIGEST_SIZE);
	t->regions = arena_array(&t->arena, nregions, sizeof(*t->regions));
	if (t->regions == NULL)
		return out_of_memory(e);
	for (; t->nregions < nregions; t->nregions++)
		if (copy_region(t, &t->regions[t->nregions], &regions[t->nregions]) == -1)
			return out_of_memory(e);
	return 0;
}

void
trace_free(struct trace *t)
{
	arena_free(&t->arena);
	memset(t, 0, sizeof(*t));
}

uint64_t
trace_pages(const struct trace *t)
{
	uint64_t n = 0;

	for (size_t i = 0; i < t->nruns; i++)
		n += t->runs[i].npages;
	return n;
}

/* ---- limits ---- */

static int
check_region(const struct trace *t, size_t i, struct err *e)
{
	const struct object *o = &t->regions[i];

	if (object_check(o, false, e) == -1)
		return -1;
	if (o->size == 0)
		return err_set(e, ERR_CORRUPT, "%s: is empty", o->name);
	for (size_t k = 0; k < i; k++)
		if (strcmp(t->regions[k].name, o->name) == 0)
			return err_set(e, ERR_CORRUPT, "\"%s\" twice", o->name);
	return 0;
}

static int
check_run(const struct trace *t, size_t i, struct err *e)
{
	const struct trace_run *r = &t->runs[i];
	uint64_t pages;

	if (r->region >= t->nregions)
		return err_set(e, ERR_CORRUPT, "region %u of %zu", r->region, t->nregions);
	pages = div_up(t->regions[r->region].size, PAGE_GRANULE);
	if (r->npages == 0 || r->page >= pages || r->npages > pages - r->page)
		return err_set(e, ERR_CORRUPT, "pages %llu+%u of a region of %llu",
		    (unsigned long long)r->page, r->npages, (unsigned long long)pages);
	if (r->access == 0 || (r->access & ~(TRACE_READ | TRACE_WRITE)) != 0)
		return err_set(e, ERR_CORRUPT, "access %u", r->access);
	if (i > 0 && r->time_ms < r[-1].time_ms)
		return err_set(
		    e, ERR_CORRUPT, "time %u ms, behind %u ms", r->time_ms, r[-1].time_ms);
	return 0;
}

struct extent {
	uint64_t page, end;
	uint32_t region, run;
};

static int
extent_compare(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	if (x->region != y->region)
		return x->region < y->region ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

static int
check_extents(struct extent *list, size_t n, struct err *e)
{
	qsort(list, n, sizeof(*list), extent_compare);
	for (size_t i = 1; i < n; i++)
		if (list[i].region == list[i - 1].region && list[i].page < list[i - 1].end)
			return err_set(e, ERR_CORRUPT,
			    "runs %u and %u: page %llu of region %u is in both",
			    MIN(list[i].run, list[i - 1].run),
			    MAX(list[i].run, list[i - 1].run), (unsigned long long)list[i].page,
			    list[i].region);
	return 0;
}

static int
check_overlap(const struct trace *t, struct err *e)
{
	struct extent *list = calloc(t->nruns + 1, sizeof(*list));
	int ret;

	if (list == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < t->nruns; i++) {
		const struct trace_run *r = &t->runs[i];

		list[i] =
		    (struct extent){ r->page, r->page + r->npages, r->region, (uint32_t)i };
	}
	ret = check_extents(list, t->nruns, e);
	free(list);
	return ret;
}

static int
check_runs(const struct trace *t, struct err *e)
{
	uint64_t pages = 0;

	if (t->nruns > TRACE_RUNS_MAX)
		return err_set(e, ERR_CORRUPT, "%zu runs, at most %u are allowed", t->nruns,
		    TRACE_RUNS_MAX);
	for (size_t i = 0; i < t->nruns; i++) {
		if (check_run(t, i, e) == -1)
			return err_wrap(e, "run %zu", i);
		pages += t->runs[i].npages;
	}
	if (pages > TRACE_PAGES_MAX)
		return err_set(e, ERR_CORRUPT, "%llu pages, at most %u are allowed",
		    (unsigned long long)pages, TRACE_PAGES_MAX);
	return check_overlap(t, e);
}

static int
check_text(const char *text, const char *what, struct err *e)
{
	size_t len = strlen(text);

	if (len == 0 || len > NAME_LENGTH_MAX)
		return err_set(e, ERR_CORRUPT, "%s: a text of %zu bytes, 1 to %u are allowed",
		    what, len, NAME_LENGTH_MAX);
	if (!cbor_text_ok(text, len))
		return err_set(e, ERR_CORRUPT, "%s: a text that is not UTF-8", what);
	return 0;
}

int
trace_check(const struct trace *t, struct err *e)
{
	if (check_text(t->tool, "tool", e) == -1 || check_text(t->end, "end", e) == -1)
		return -1;
	if (t->nregions > OBJECTS_MAX)
		return err_set(e, ERR_CORRUPT, "%zu regions, at most %u are allowed",
		    t->nregions, OBJECTS_MAX);
	for (size_t i = 0; i < t->nregions; i++)
		if (check_region(t, i, e) == -1)
			return err_wrap(e, "regions");
	return check_runs(t, e);
}

/* ---- bytes ---- */

static void
put_region(struct cbor_out *out, const struct object *o)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	field_put_text(&map, "name", o->name);
	field_put_uint(&map, "size", o->size);
	field_put_uint(&map, "page_size", o->page_size);
	field_put_segments(&map, o);
	field_put_unknown(&map, o->unknown);
	cbor_map_end(&map);
}

static void
put_description(struct cbor_out *out, const struct trace *t)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	field_put_text(&map, "tool", t->tool);
	field_put_text(&map, "end", t->end);
	cbor_map_key(&map, "root");
	cbor_put_bytes(out, t->root, sizeof(t->root));
	field_put_uint(&map, "duration", t->duration_ms);
	field_put_uint(&map, "lost", t->lost);
	cbor_map_key(&map, "regions");
	cbor_put_array(out, t->nregions);
	for (size_t i = 0; i < t->nregions; i++)
		put_region(out, &t->regions[i]);
	field_put_unknown(&map, t->unknown);
	cbor_map_end(&map);
}

static void
put_run(struct cbor_out *out, const struct trace_run *r)
{
	uint8_t buf[TRACE_RUN_SIZE];

	le64enc(buf, r->page | (uint64_t)r->region << RUN_REGION_SHIFT |
			 (uint64_t)r->access << RUN_ACCESS_SHIFT);
	le32enc(buf + 8, r->npages);
	le32enc(buf + 12, r->time_ms);
	cbor_put_raw(out, buf, sizeof(buf));
}

static void
put_checksum(struct cbor_out *out)
{
	uint8_t buf[8];

	if (out->failed)
		return;
	le64enc(buf, hash_checksum(out->buf, out->len));
	cbor_put_raw(out, buf, sizeof(buf));
}

static void
put_trace(struct cbor_out *out, const struct trace *t)
{
	uint8_t header[TRACE_HEADER_SIZE] = { 0 }, padding[8] = { 0 };
	size_t length;

	cbor_put_raw(out, header, sizeof(header));
	put_description(out, t);
	if (out->failed)
		return;
	length = out->len - sizeof(header);
	memcpy(out->buf, trace_magic, sizeof(trace_magic));
	le32enc(out->buf + 8, TRACE_VERSION);
	le32enc(out->buf + 12, (uint32_t)MIN(length, UINT32_MAX));
	le64enc(out->buf + 16, t->nruns);
	cbor_put_raw(out, padding, trace_padding(length));
	for (size_t i = 0; i < t->nruns; i++)
		put_run(out, &t->runs[i]);
	put_checksum(out);
}

int
trace_encode(struct cbor_out *out, const struct trace *t, struct err *e)
{
	size_t runs = t->nruns * TRACE_RUN_SIZE;

	*out = (struct cbor_out){ 0 };
	if (trace_check(t, e) == -1) {
		e->kind = ERR_FAILED;
		return err_wrap(e, "trace");
	}
	put_trace(out, t);
	if (out->failed)
		out_of_memory(e);
	else if (out->repeated)
		err_set(e, ERR_FAILED, "trace: a key twice");
	else if (out->len - runs > TRACE_HEADER_SIZE + TRACE_DESCRIPTION_MAX)
		err_set(e, ERR_FAILED, "trace: a description of %zu bytes, %u are allowed",
		    out->len - runs, TRACE_DESCRIPTION_MAX);
	else
		return 0;
	cbor_out_free(out);
	return -1;
}

/* ---- from touches to runs ---- */

static bool
continues(const struct trace_run *r, const struct trace_run *next)
{
	return next->region == r->region && next->page == r->page + r->npages &&
	       next->time_ms == r->time_ms && next->access == r->access &&
	       next->npages <= UINT32_MAX - r->npages;
}

int
trace_set_runs(struct trace *t, const struct trace_run *list, size_t n, struct err *e)
{
	struct trace_run *last = NULL;

	t->nruns = 0;
	t->runs = arena_array(&t->arena, n, sizeof(*t->runs));
	if (t->runs == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		if (last != NULL && continues(last, &list[i])) {
			last->npages += list[i].npages;
			continue;
		}
		last = &t->runs[t->nruns++];
		*last = list[i];
	}
	return 0;
}
