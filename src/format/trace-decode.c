/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "format/trace-bytes.h"
#include "format/trace.h"

/* Traces that nobody vouches for. */

/* A decoder of one value; `to` is the structure that its key belongs to. */
struct key {
	const char *name;
	int (*decode)(struct trace *t, void *to, struct cbor_in *in, struct err *e);
	bool required;
};

static int
out_of_memory(struct err *e)
{
	return err_set(e, ERR_FAILED, "out of memory");
}

static int
get_text(struct trace *t, const char **to, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, CBOR_TEXT, &item, what, e) == -1)
		return -1;
	if (memchr(item.data, '\0', item.value) != NULL)
		return err_set(e, ERR_CORRUPT, "%s: a text with a NUL", what);
	*to = arena_strndup(&t->arena, item.data, item.value);
	return *to == NULL ? out_of_memory(e) : 0;
}

static int
get_uint(uint64_t *to, uint64_t max, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, CBOR_UINT, &item, what, e) == -1)
		return -1;
	if (item.value > max)
		return err_set(e, ERR_CORRUPT, "%s: %llu, at most %llu is allowed", what,
		    (unsigned long long)item.value, (unsigned long long)max);
	*to = item.value;
	return 0;
}

/* Reads the head of an array or map of at most max items. */
static int
get_count(size_t *n, enum cbor_kind kind, size_t max, const char *what, struct cbor_in *in,
    struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, kind, &item, what, e) == -1)
		return -1;
	if (item.value > max)
		return err_set(e, ERR_CORRUPT, "%s: %llu items, at most %zu are allowed", what,
		    (unsigned long long)item.value, max);
	*n = item.value;
	return 0;
}

static int
keep_unknown(
    struct trace *t, struct unknown **list, const uint8_t *start, size_t len, struct err *e)
{
	struct unknown *u = arena_alloc(&t->arena, sizeof(*u));

	if (u == NULL)
		return out_of_memory(e);
	u->bytes = (const uint8_t *)arena_strndup(&t->arena, start, len);
	if (u->bytes == NULL)
		return out_of_memory(e);
	u->len = len;
	u->next = *list;
	*list = u;
	return 0;
}

static const struct key *
find_key(const struct key *keys, const struct cbor_item *name)
{
	for (; keys->name != NULL; keys++)
		if (strlen(keys->name) == name->value &&
		    memcmp(keys->name, name->data, name->value) == 0)
			return keys;
	return NULL;
}

static int
get_pair(struct trace *t, void *to, const struct key *keys, uint64_t *seen,
    struct unknown **unknown, struct cbor_item *name, const char *what, struct cbor_in *in,
    struct err *e)
{
	const uint8_t *start = in->p;
	const struct key *key;

	if (cbor_next_key(in, name, what, e) == -1)
		return -1;
	key = find_key(keys, name);
	if (key != NULL) {
		*seen |= UINT64_C(1) << (key - keys);
		return key->decode(t, to, in, e) == -1 ? err_wrap(e, "%s", what) : 0;
	}
	if (cbor_skip(in, MANIFEST_DEPTH_MAX, e) == -1 ||
	    keep_unknown(t, unknown, start, (size_t)(in->p - start), e) == -1)
		return err_wrap(e, "%s", what);
	return 0;
}

/* Reads a map: all required keys, unknown ones are kept. */
static int
get_map(struct trace *t, void *to, const struct key *keys, struct unknown **unknown,
    const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item name = { .data = NULL };
	uint64_t seen = 0;
	size_t n;

	if (get_count(&n, CBOR_MAP, PAIRS_MAX, what, in, e) == -1)
		return -1;
	while (n-- > 0)
		if (get_pair(t, to, keys, &seen, unknown, &name, what, in, e) == -1)
			return -1;
	for (const struct key *key = keys; key->name != NULL; key++)
		if (key->required && (seen >> (key - keys) & 1) == 0)
			return err_set(e, ERR_CORRUPT, "%s: no \"%s\"", what, key->name);
	return 0;
}

/* ---- regions ---- */

static int
region_name(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	return get_text(t, &((struct object *)to)->name, "name", in, e);
}

static int
region_size(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	(void)t;
	return get_uint(&((struct object *)to)->size, OBJECT_SIZE_MAX, "size", in, e);
}

static int
region_page_size(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	uint64_t size;

	(void)t;
	if (get_uint(&size, OBJECT_PAGE_SIZE_MAX, "page_size", in, e) == -1)
		return -1;
	((struct object *)to)->page_size = (uint32_t)size;
	return 0;
}

static int
get_segment(struct segment *s, struct cbor_in *in, struct err *e)
{
	size_t n;

	if (get_count(&n, CBOR_ARRAY, 3, "segment", in, e) == -1)
		return -1;
	if (n != 3)
		return err_set(e, ERR_CORRUPT, "segment of %zu numbers", n);
	if (get_uint(&s->gpa, UINT64_MAX, "gpa", in, e) == -1 ||
	    get_uint(&s->offset, OBJECT_SIZE_MAX, "offset", in, e) == -1)
		return -1;
	return get_uint(&s->size, OBJECT_SIZE_MAX, "size", in, e);
}

static int
region_segments(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = to;

	if (get_count(&o->nsegments, CBOR_ARRAY, SEGMENTS_MAX, "segments", in, e) == -1)
		return -1;
	/* There is one way to have none. */
	if (o->nsegments == 0)
		return err_set(e, ERR_CORRUPT, "segments: an empty list");
	o->segments = arena_array(&t->arena, o->nsegments, sizeof(*o->segments));
	if (o->segments == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < o->nsegments; i++)
		if (get_segment(&o->segments[i], in, e) == -1)
			return -1;
	return 0;
}

static const struct key region_keys[] = {
	{ "name", region_name, true },
	{ "size", region_size, true },
	{ "page_size", region_page_size, true },
	{ "segments", region_segments, false },
	{ NULL, NULL, false },
};

/* ---- description ---- */

static int
top_tool(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_text(t, &t->tool, "tool", in, e);
}

static int
top_end(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_text(t, &t->end, "end", in, e);
}

static int
top_root(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	(void)to;
	if (cbor_expect(in, CBOR_BYTES, &item, "root", e) == -1)
		return -1;
	if (item.value != DIGEST_SIZE)
		return err_set(
		    e, ERR_CORRUPT, "root of %llu bytes", (unsigned long long)item.value);
	memcpy(t->root, item.data, DIGEST_SIZE);
	return 0;
}

static int
top_duration(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_uint(&t->duration_ms, UINT64_MAX, "duration", in, e);
}

static int
top_lost(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_uint(&t->lost, UINT64_MAX, "lost", in, e);
}

static int
top_regions(struct trace *t, void *to, struct cbor_in *in, struct err *e)
{
	size_t n;

	(void)to;
	if (get_count(&n, CBOR_ARRAY, OBJECTS_MAX, "regions", in, e) == -1)
		return -1;
	t->regions = arena_array(&t->arena, n, sizeof(*t->regions));
	if (t->regions == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		struct object *o = &t->regions[i];

		o->kind = "";
		if (get_map(t, o, region_keys, &o->unknown, "regions", in, e) == -1)
			return -1;
		t->nregions = i + 1;
	}
	return 0;
}

static const struct key top_keys[] = {
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
		return out_of_memory(e);
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

	if (get_map(t, t, top_keys, &t->unknown, "description", &in, e) == -1)
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
