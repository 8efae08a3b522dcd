/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "format/fields.h"
#include "format/trace-bytes.h"
#include "format/trace.h"

/* Traces that nobody vouches for. */

/* ---- regions ---- */

static int
region_name(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	return field_get_text(arena, &((struct object *)to)->name, "name", in, e);
}

static int
region_size(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	(void)arena;
	return field_get_uint(&((struct object *)to)->size, OBJECT_SIZE_MAX, "size", in, e);
}

static int
region_page_size(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	uint64_t size;

	(void)arena;
	if (field_get_uint(&size, OBJECT_PAGE_SIZE_MAX, "page_size", in, e) == -1)
		return -1;
	((struct object *)to)->page_size = (uint32_t)size;
	return 0;
}

static int
region_segments(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = to;

	if (field_get_segments(arena, o, OBJECT_SIZE_MAX, in, e) == -1)
		return -1;
	/* There is one way to have none. */
	return o->nsegments != 0 ? 0 : err_set(e, ERR_CORRUPT, "segments: an empty list");
}

static const struct field region_keys[] = {
	{ "name", region_name, true },
	{ "size", region_size, true },
	{ "page_size", region_page_size, true },
	{ "segments", region_segments, false },
	{ NULL, NULL, false },
};

/* ---- description ---- */

static int
top_tool(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct trace *t = to;

	return field_get_text(arena, &t->tool, "tool", in, e);
}

static int
top_end(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct trace *t = to;

	return field_get_text(arena, &t->end, "end", in, e);
}

static int
top_root(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	(void)arena;
	return field_get_digest(((struct trace *)to)->root, "root", in, e);
}

static int
top_duration(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct trace *t = to;

	(void)arena;
	return field_get_uint(&t->duration_ms, UINT64_MAX, "duration", in, e);
}

static int
top_lost(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct trace *t = to;

	(void)arena;
	return field_get_uint(&t->lost, UINT64_MAX, "lost", in, e);
}

static int
top_regions(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct trace *t = to;
	size_t n;

	if (field_get_count(&n, CBOR_ARRAY, OBJECTS_MAX, "regions", in, e) == -1)
		return -1;
	t->regions = arena_array(arena, n, sizeof(*t->regions));
	if (t->regions == NULL)
		return field_no_memory(e);
	for (size_t i = 0; i < n; i++) {
		struct object *o = &t->regions[i];

		o->kind = "";
		if (field_get_map(arena, o, region_keys, &o->unknown, "regions", in, e) == -1)
			return -1;
		t->nregions = i + 1;
	}
	return 0;
}

static const struct field top_keys[] = {
	{ "tool", top_tool, true },
	{ "end", top_end, true },
	{ "root", top_root, true },
	{ "duration", top_duration, true },
	{ "lost", top_lost, true },
	{ "regions", top_regions, true },
	{ NULL, NULL, false },
};

/* ---- the whole ---- */

static int
decode_run(struct trace_run *r, const uint8_t *buf, struct err *e)
{
	uint64_t place = le64dec(buf);

	if (place >> RUN_RESERVED_SHIFT != 0)
		return err_set(e, ERR_CORRUPT, "uses reserved bits");
	r->page = place & ((UINT64_C(1) << RUN_PAGE_BITS) - 1);
	r->region = place >> RUN_REGION_SHIFT & 0xff;
	r->access = (uint8_t)(place >> RUN_ACCESS_SHIFT);
	r->npages = le32dec(buf + 8);
	r->time_ms = le32dec(buf + 12);
	return 0;
}

static int
decode_runs(struct trace *t, const uint8_t *p, size_t n, struct err *e)
{
	t->runs = arena_array(&t->arena, n, sizeof(*t->runs));
	if (t->runs == NULL)
		return field_no_memory(e);
	for (size_t i = 0; i < n; i++, p += TRACE_RUN_SIZE)
		if (decode_run(&t->runs[i], p, e) == -1)
			return err_wrap(e, "run %zu", i);
	t->nruns = n;
	return 0;
}

static int
decode_description(struct trace *t, const uint8_t *p, size_t len, struct err *e)
{
	struct cbor_in in = { p, len };

	if (field_get_map(&t->arena, t, top_keys, &t->unknown, "description", &in, e) == -1)
		return -1;
	if (in.left != 0)
		return err_set(
		    e, ERR_CORRUPT, "description: %zu bytes behind its end", in.left);
	for (size_t i = 0; i < trace_padding(len); i++)
		if (p[len + i] != 0)
			return err_set(
			    e, ERR_CORRUPT, "padding behind the description is not zero");
	return 0;
}

/* Magic and version, before anything else is looked at. */
static int
check_version(const uint8_t *p, size_t len, struct err *e)
{
	if (len < sizeof(trace_magic) || memcmp(p, trace_magic, sizeof(trace_magic)) != 0)
		return err_set(e, ERR_CORRUPT, "not a gmem trace");
	if (len < TRACE_HEADER_SIZE + 8)
		return err_set(e, ERR_CORRUPT, "ends after %zu bytes, in its header", len);
	if (le32dec(p + 8) != TRACE_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
		    "version %u of the format of traces, this program knows %u", le32dec(p + 8),
		    TRACE_VERSION);
	return 0;
}

static int
check_length(size_t len, uint32_t description, uint64_t nruns, struct err *e)
{
	uint64_t want;

	if (description > TRACE_DESCRIPTION_MAX)
		return err_set(e, ERR_CORRUPT,
		    "header: a description of %u bytes, at most %u are allowed", description,
		    TRACE_DESCRIPTION_MAX);
	if (nruns > TRACE_RUNS_MAX)
		return err_set(e, ERR_CORRUPT, "header: %llu runs, at most %u are allowed",
		    (unsigned long long)nruns, TRACE_RUNS_MAX);
	want = TRACE_HEADER_SIZE + description + trace_padding(description) +
	       nruns * TRACE_RUN_SIZE + 8;
	if (len != want)
		return err_set(e, ERR_CORRUPT, "has %zu bytes, its header says %llu", len,
		    (unsigned long long)want);
	return 0;
}

int
trace_decode(struct trace *t, const void *buf, size_t len, struct err *e)
{
	const uint8_t *p = buf;
	uint32_t description;
	uint64_t sum, want;

	memset(t, 0, sizeof(*t));
	if (check_version(p, len, e) == -1)
		return -1;
	description = le32dec(p + 12);
	if (check_length(len, description, le64dec(p + 16), e) == -1)
		return -1;
	sum = le64dec(p + len - 8);
	want = hash_checksum(p, len - 8);
	if (sum != want)
		return err_set(e, ERR_CORRUPT, "checksum is %016llx, should be %016llx",
		    (unsigned long long)sum, (unsigned long long)want);
	if (le64dec(p + 24) != 0)
		return err_set(e, ERR_UNSUPPORTED, "trace needs unknown features %#llx",
		    (unsigned long long)le64dec(p + 24));
	if (decode_description(t, p + TRACE_HEADER_SIZE, description, e) == -1 ||
	    decode_runs(t, p + TRACE_HEADER_SIZE + description + trace_padding(description),
		le64dec(p + 16), e) == -1)
		return -1;
	return trace_check(t, e);
}
