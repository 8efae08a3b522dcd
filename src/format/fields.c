/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/fields.h"

#include <string.h>

int
field_no_memory(struct err *e)
{
	return err_set(e, ERR_FAILED, "out of memory");
}

/* ---- encode ---- */

void
field_put_text(struct cbor_map *map, const char *key, const char *value)
{
	if (value == NULL)
		return;
	cbor_map_key(map, key);
	cbor_put_text(map->out, value);
}

void
field_put_uint(struct cbor_map *map, const char *key, uint64_t value)
{
	cbor_map_key(map, key);
	cbor_put_uint(map->out, value);
}

void
field_put_unknown(struct cbor_map *map, const struct unknown *u)
{
	for (; u != NULL; u = u->next)
		cbor_map_raw(map, u->bytes, u->len);
}

void
field_put_segments(struct cbor_map *map, const struct object *o)
{
	if (o->nsegments == 0)
		return;
	cbor_map_key(map, "segments");
	cbor_put_array(map->out, o->nsegments);
	for (size_t i = 0; i < o->nsegments; i++) {
		cbor_put_array(map->out, 3);
		cbor_put_uint(map->out, o->segments[i].gpa);
		cbor_put_uint(map->out, o->segments[i].offset);
		cbor_put_uint(map->out, o->segments[i].size);
	}
}

/* ---- decode ---- */

int
field_copy_text(struct arena *arena, const char **to, const struct cbor_item *text,
    const char *what, struct err *e)
{
	if (memchr(text->data, '\0', text->value) != NULL)
		return err_set(e, ERR_CORRUPT, "%s: a text with a NUL", what);
	*to = arena_strndup(arena, text->data, text->value);
	return *to == NULL ? field_no_memory(e) : 0;
}

int
field_get_text(
    struct arena *arena, const char **to, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, CBOR_TEXT, &item, what, e) == -1)
		return -1;
	return field_copy_text(arena, to, &item, what, e);
}

int
field_get_uint(uint64_t *to, uint64_t max, const char *what, struct cbor_in *in, struct err *e)
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

int
field_get_count(size_t *n, enum cbor_kind kind, size_t max, const char *what,
    struct cbor_in *in, struct err *e)
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

int
field_get_digest(uint8_t to[DIGEST_SIZE], const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, CBOR_BYTES, &item, what, e) == -1)
		return -1;
	if (item.value != DIGEST_SIZE)
		return err_set(
		    e, ERR_CORRUPT, "%s of %llu bytes", what, (unsigned long long)item.value);
	memcpy(to, item.data, DIGEST_SIZE);
	return 0;
}

static int
get_segment(struct segment *s, uint64_t max, struct cbor_in *in, struct err *e)
{
	size_t n;

	if (field_get_count(&n, CBOR_ARRAY, 3, "segment", in, e) == -1)
		return -1;
	if (n != 3)
		return err_set(e, ERR_CORRUPT, "segment of %zu numbers", n);
	if (field_get_uint(&s->gpa, UINT64_MAX, "gpa", in, e) == -1 ||
	    field_get_uint(&s->offset, max, "offset", in, e) == -1)
		return -1;
	return field_get_uint(&s->size, max, "size", in, e);
}

int
field_get_segments(
    struct arena *arena, struct object *o, uint64_t max, struct cbor_in *in, struct err *e)
{
	if (field_get_count(&o->nsegments, CBOR_ARRAY, SEGMENTS_MAX, "segments", in, e) == -1)
		return -1;
	o->segments = arena_array(arena, o->nsegments, sizeof(*o->segments));
	if (o->segments == NULL)
		return field_no_memory(e);
	for (size_t i = 0; i < o->nsegments; i++)
		if (get_segment(&o->segments[i], max, in, e) == -1)
			return -1;
	return 0;
}

/* ---- maps ---- */

static int
keep_unknown(
    struct arena *arena, struct unknown **list, const uint8_t *start, size_t len, struct err *e)
{
	struct unknown *u = arena_alloc(arena, sizeof(*u));

	if (u == NULL)
		return field_no_memory(e);
	u->bytes = (const uint8_t *)arena_strndup(arena, start, len);
	if (u->bytes == NULL)
		return field_no_memory(e);
	u->len = len;
	u->next = *list;
	*list = u;
	return 0;
}

static const struct field *
find_field(const struct field *fields, const struct cbor_item *name)
{
	for (; fields->name != NULL; fields++)
		if (strlen(fields->name) == name->value &&
		    memcmp(fields->name, name->data, name->value) == 0)
			return fields;
	return NULL;
}

static int
check_required(const struct field *fields, uint64_t seen, const char *what, struct err *e)
{
	for (const struct field *f = fields; f->name != NULL; f++)
		if (f->required && (seen >> (f - fields) & 1) == 0)
			return err_set(e, ERR_CORRUPT, "%s: no \"%s\"", what, f->name);
	return 0;
}

int
field_get_map(struct arena *arena, void *to, const struct field *fields,
    struct unknown **unknown, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item name = { .data = NULL };
	uint64_t seen = 0;
	size_t n;

	if (field_get_count(&n, CBOR_MAP, PAIRS_MAX, what, in, e) == -1)
		return -1;
	while (n-- > 0) {
		const uint8_t *start = in->p;
		const struct field *f;

		if (cbor_next_key(in, &name, what, e) == -1)
			return -1;
		f = find_field(fields, &name);
		if (f == NULL) {
			if (cbor_skip(in, MANIFEST_DEPTH_MAX, e) == -1 ||
			    keep_unknown(arena, unknown, start, (size_t)(in->p - start), e) ==
				-1)
				return err_wrap(e, "%s", what);
			continue;
		}
		seen |= UINT64_C(1) << (f - fields);
		if (f->decode(arena, to, in, e) == -1)
			return err_wrap(e, "%s", what);
	}
	return check_required(fields, seen, what, e);
}
