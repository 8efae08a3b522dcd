/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/cbor.h"

#include <stdlib.h>
#include <string.h>

#include <cbor.h>

#include "base/ckd.h"

#define HEAD_MAX 9 /* bytes of the longest item head */

/* The bytes of one UTF-8 character at p, 0 if there is none (RFC 3629). */
static size_t
utf8_length(const uint8_t *p, size_t left)
{
	size_t n = 1;

	if (p[0] >= 0x80)
		n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (n > left || (p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Longer than need be, a surrogate, or beyond U+10FFFF. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

bool
cbor_text_ok(const void *text, size_t len)
{
	const uint8_t *p = text;

	while (len > 0) {
		size_t n = utf8_length(p, len);

		if (n == 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

void
cbor_out_free(struct cbor_out *out)
{
	free(out->buf);
	*out = (struct cbor_out){ 0 };
}

static uint8_t *
out_room(struct cbor_out *out, size_t len)
{
	size_t need, cap = out->cap;
	uint8_t *bigger;

	if (out->failed || ckd_add(&need, out->len, len))
		goto fail;
	if (need > cap) {
		cap = MAX(need, cap * 2 + 256);
		bigger = realloc(out->buf, cap);
		if (bigger == NULL)
			goto fail;
		out->buf = bigger;
		out->cap = cap;
	}
	return out->buf + out->len;
fail:
	out->failed = true;
	return NULL;
}

void
cbor_put_raw(struct cbor_out *out, const void *encoded, size_t len)
{
	uint8_t *p = out_room(out, len);

	if (p == NULL || len == 0)
		return;
	memcpy(p, encoded, len);
	out->len += len;
}

#define PUT_HEAD(out, encode, value)                                                           \
	do {                                                                                   \
		uint8_t *p_ = out_room((out), HEAD_MAX);                                       \
		if (p_ != NULL)                                                                \
			(out)->len += encode((value), p_, HEAD_MAX);                           \
	} while (0)

void
cbor_put_uint(struct cbor_out *out, uint64_t value)
{
	PUT_HEAD(out, cbor_encode_uint, value);
}

void
cbor_put_int(struct cbor_out *out, int64_t value)
{
	if (value >= 0)
		PUT_HEAD(out, cbor_encode_uint, (uint64_t)value);
	else
		PUT_HEAD(out, cbor_encode_negint, (uint64_t)(-1 - value));
}

void
cbor_put_text(struct cbor_out *out, const char *text)
{
	size_t len = strlen(text);

	PUT_HEAD(out, cbor_encode_string_start, len);
	cbor_put_raw(out, text, len);
}

void
cbor_put_bytes(struct cbor_out *out, const void *bytes, size_t len)
{
	PUT_HEAD(out, cbor_encode_bytestring_start, len);
	cbor_put_raw(out, bytes, len);
}

void
cbor_put_array(struct cbor_out *out, size_t n)
{
	PUT_HEAD(out, cbor_encode_array_start, n);
}

void
cbor_map_begin(struct cbor_map *map, struct cbor_out *out)
{
	*map = (struct cbor_map){ .out = out, .start = out->len };
}

static void
map_mark(struct cbor_map *map)
{
	size_t *bigger;

	if (map->n == map->cap) {
		map->cap = map->cap * 2 + 16;
		bigger = reallocarray(map->pairs, map->cap, sizeof(*map->pairs));
		if (bigger == NULL) {
			map->out->failed = true;
			map->cap = map->n;
			return;
		}
		map->pairs = bigger;
	}
	map->pairs[map->n++] = map->out->len;
}

void
cbor_map_key(struct cbor_map *map, const char *key)
{
	map_mark(map);
	cbor_put_text(map->out, key);
}

void
cbor_map_raw(struct cbor_map *map, const void *pair, size_t len)
{
	map_mark(map);
	cbor_put_raw(map->out, pair, len);
}

struct span {
	const uint8_t *bytes;
	size_t len;
};

/* Bytewise order of the encoded keys; keys differ, so the values never decide. */
static int
pair_compare(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	int order = memcmp(x->bytes, y->bytes, MIN(x->len, y->len));

	return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Whether two encoded pairs have the same key. */
static bool
same_key(const struct span *a, const struct span *b)
{
	struct cbor_in x = { a->bytes, a->len }, y = { b->bytes, b->len };
	struct cbor_item key;
	struct err ignored;
	size_t n;

	if (cbor_get(&x, &key, &ignored) == -1 || cbor_get(&y, &key, &ignored) == -1)
		return false;
	n = a->len - x.left;
	return n == b->len - y.left && memcmp(a->bytes, b->bytes, n) == 0;
}

static void
map_sort(struct cbor_map *map, uint8_t *copy, struct span *pairs)
{
	struct cbor_out *out = map->out;
	size_t end = out->len;

	if (map->n != 0)
		memcpy(copy, out->buf + map->start, end - map->start);
	for (size_t i = 0; i < map->n; i++) {
		size_t next = i + 1 < map->n ? map->pairs[i + 1] : end;

		pairs[i].bytes = copy + (map->pairs[i] - map->start);
		pairs[i].len = next - map->pairs[i];
	}
	qsort(pairs, map->n, sizeof(*pairs), pair_compare);
	out->len = map->start;
	PUT_HEAD(out, cbor_encode_map_start, map->n);
	for (size_t i = 0; i < map->n; i++) {
		if (i > 0 && same_key(&pairs[i - 1], &pairs[i]))
			out->repeated = true;
		cbor_put_raw(out, pairs[i].bytes, pairs[i].len);
	}
}

void
cbor_map_end(struct cbor_map *map)
{
	uint8_t *copy = malloc(map->out->len - map->start + 1);
	struct span *pairs = calloc(map->n + 1, sizeof(*pairs));

	if (copy == NULL || pairs == NULL)
		map->out->failed = true;
	if (!map->out->failed)
		map_sort(map, copy, pairs);
	free(copy);
	free(pairs);
	free(map->pairs);
	map->pairs = NULL;
}

/* libcbor's decoder calls one of these for each item. */
static void
take(struct cbor_item *item, enum cbor_kind kind, uint64_t value, const uint8_t *data)
{
	item->kind = kind;
	item->value = value;
	item->data = data;
}

#define TAKE_INT(name, type, kind)                                                             \
	static void name(void *item, type value)                                               \
	{                                                                                      \
		take(item, kind, value, NULL);                                                 \
	}
#define TAKE_STRING(name, kind)                                                                \
	static void name(void *item, cbor_data data, size_t len)                               \
	{                                                                                      \
		take(item, kind, len, data);                                                   \
	}

TAKE_INT(take_uint8, uint8_t, CBOR_UINT)
TAKE_INT(take_uint16, uint16_t, CBOR_UINT)
TAKE_INT(take_uint32, uint32_t, CBOR_UINT)
TAKE_INT(take_uint64, uint64_t, CBOR_UINT)
TAKE_INT(take_negint8, uint8_t, CBOR_NEGINT)
TAKE_INT(take_negint16, uint16_t, CBOR_NEGINT)
TAKE_INT(take_negint32, uint32_t, CBOR_NEGINT)
TAKE_INT(take_negint64, uint64_t, CBOR_NEGINT)
TAKE_INT(take_array, size_t, CBOR_ARRAY)
TAKE_INT(take_map, size_t, CBOR_MAP)
TAKE_STRING(take_bytes, CBOR_BYTES)
TAKE_STRING(take_text, CBOR_TEXT)

static void
take_nothing(void *item)
{
	take(item, CBOR_OTHER, 1, NULL); /* value 1: an indefinite length or a break */
}

static void
take_tag(void *item, uint64_t tag)
{
	(void)tag;
	take(item, CBOR_OTHER, 1, NULL);
}

static void
take_simple(void *item)
{
	take(item, CBOR_OTHER, 0, NULL);
}

static void
take_bool(void *item, bool value)
{
	(void)value;
	take(item, CBOR_OTHER, 0, NULL);
}

static void
take_float(void *item, float value)
{
	(void)value;
	take(item, CBOR_OTHER, 0, NULL);
}

static void
take_double(void *item, double value)
{
	(void)value;
	take(item, CBOR_OTHER, 0, NULL);
}

static const struct cbor_callbacks callbacks = {
	.uint8 = take_uint8,
	.uint16 = take_uint16,
	.uint32 = take_uint32,
	.uint64 = take_uint64,
	.negint8 = take_negint8,
	.negint16 = take_negint16,
	.negint32 = take_negint32,
	.negint64 = take_negint64,
	.byte_string_start = take_nothing,
	.byte_string = take_bytes,
	.string_start = take_nothing,
	.string = take_text,
	.indef_array_start = take_nothing,
	.array_start = take_array,
	.indef_map_start = take_nothing,
	.map_start = take_map,
	.tag = take_tag,
	.float2 = take_float,
	.float4 = take_float,
	.float8 = take_double,
	.undefined = take_simple,
	.null = take_simple,
	.boolean = take_bool,
	.indef_break = take_nothing,
};

/* The bytes of the shortest head that holds the value. */
static size_t
head_length(uint64_t value)
{
	if (value <= UINT8_MAX)
		return value < 24 ? 1 : 2;
	if (value <= UINT32_MAX)
		return value <= UINT16_MAX ? 3 : 5;
	return HEAD_MAX;
}

/* What deterministic CBOR asks of an item, apart from the order of keys. */
static int
check_form(const struct cbor_item *item, size_t read, struct err *e)
{
	size_t content =
	    item->kind == CBOR_BYTES || item->kind == CBOR_TEXT ? (size_t)item->value : 0;

	if (item->kind == CBOR_OTHER && item->value != 0)
		return err_set(e, ERR_CORRUPT, "CBOR with a tag or an indefinite length");
	if (item->kind != CBOR_OTHER && read - content != head_length(item->value))
		return err_set(e, ERR_CORRUPT, "CBOR that is not in its shortest form");
	if (item->kind == CBOR_TEXT && !cbor_text_ok(item->data, content))
		return err_set(e, ERR_CORRUPT, "CBOR text that is not UTF-8");
	return 0;
}

int
cbor_get(struct cbor_in *in, struct cbor_item *item, struct err *e)
{
	struct cbor_decoder_result r;

	*item = (struct cbor_item){ .kind = CBOR_OTHER, .value = 1 };
	r = cbor_stream_decode(in->p, in->left, &callbacks, item);
	if (r.status != CBOR_DECODER_FINISHED)
		return err_set(e, ERR_CORRUPT,
		    "CBOR is cut short or malformed, %zu bytes before its end", in->left);
	in->p += r.read;
	in->left -= r.read;
	if (check_form(item, r.read, e) == -1)
		return -1;
	if ((item->kind == CBOR_ARRAY && item->value > in->left) ||
	    (item->kind == CBOR_MAP && item->value > in->left / 2))
		return err_set(e, ERR_CORRUPT, "CBOR announces %llu items in %zu bytes",
		    (unsigned long long)item->value, in->left);
	return 0;
}

int
cbor_expect(struct cbor_in *in, enum cbor_kind kind, struct cbor_item *item, const char *what,
    struct err *e)
{
	static const char *const names[] = { "an unsigned integer", "a negative integer",
		"a byte string", "a text", "an array", "a map", "something else" };

	if (cbor_get(in, item, e) == -1)
		return err_wrap(e, "%s", what);
	if (item->kind != kind)
		return err_set(
		    e, ERR_CORRUPT, "%s is %s, not %s", what, names[item->kind], names[kind]);
	return 0;
}

int
cbor_next_key(struct cbor_in *in, struct cbor_item *key, const char *what, struct err *e)
{
	struct cbor_item last = *key;
	int order;

	if (cbor_expect(in, CBOR_TEXT, key, "key", e) == -1)
		return err_wrap(e, "%s", what);
	if (last.data == NULL)
		return 0;
	order = (last.value > key->value) - (last.value < key->value);
	if (order == 0)
		order = memcmp(last.data, key->data, key->value);
	if (order >= 0)
		return err_set(e, ERR_CORRUPT, "%s: a key %s", what,
		    order == 0 ? "twice" : "out of order");
	return 0;
}

int
cbor_skip(struct cbor_in *in, unsigned depth, struct err *e)
{
	uint64_t todo[16] = { 1 };
	unsigned level = 0;
	struct cbor_item item;

	depth = MIN(depth, 15u);
	for (;;) {
		while (todo[level] == 0) {
			if (level == 0)
				return 0;
			level--;
		}
		todo[level]--;
		if (cbor_get(in, &item, e) == -1)
			return -1;
		if (item.kind != CBOR_ARRAY && item.kind != CBOR_MAP)
			continue;
		if (level == depth)
			return err_set(
			    e, ERR_CORRUPT, "CBOR is nested more than %u deep", depth);
		todo[++level] = item.kind == CBOR_MAP ? item.value * 2 : item.value;
	}
}
