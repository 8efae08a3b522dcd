/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/manifest.h"

#include <string.h>

#include "base/ckd.h"

/* A decoder of one value; `to` is the structure that its key belongs to. */
struct key {
	const char *name;
	int (*decode)(struct manifest *m, void *to, struct cbor_in *in, struct err *e);
	bool required;
};

void
manifest_free(struct manifest *m)
{
	arena_free(&m->arena);
	memset(m, 0, sizeof(*m));
}

const char *
pairs_get(const struct pairs *p, const char *key)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->list[i].key, key) == 0)
			return p->list[i].value;
	return NULL;
}

static const struct object *
object_find(const struct object *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].name, name) == 0)
			return &list[i];
	return NULL;
}

const struct object *
manifest_region(const struct manifest *m, const char *name)
{
	return object_find(m->regions, m->nregions, name);
}

const struct object *
manifest_state(const struct manifest *m, const char *name)
{
	return object_find(m->states, m->nstates, name);
}

struct hot_section *
manifest_new_hot(struct manifest *m)
{
	struct hot_section *h = arena_alloc(&m->arena, sizeof(*h));

	if (h == NULL)
		return NULL;
	memset(h, 0, sizeof(*h));
	h->pages.name = "hot pages";
	h->table.name = "hot table";
	return h;
}

/* ---- encode ---- */

static void
put_text_pair(struct cbor_map *map, const char *key, const char *value)
{
	if (value == NULL)
		return;
	cbor_map_key(map, key);
	cbor_put_text(map->out, value);
}

static void
put_uint_pair(struct cbor_map *map, const char *key, uint64_t value)
{
	cbor_map_key(map, key);
	cbor_put_uint(map->out, value);
}

static void
put_unknown(struct cbor_map *map, const struct unknown *u)
{
	for (; u != NULL; u = u->next)
		cbor_map_raw(map, u->bytes, u->len);
}

static void
put_pairs(struct cbor_out *out, const struct pairs *p)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	for (size_t i = 0; i < p->n; i++)
		put_text_pair(&map, p->list[i].key, p->list[i].value);
	cbor_map_end(&map);
}

static void
put_segments(struct cbor_out *out, const struct object *o)
{
	cbor_put_array(out, o->nsegments);
	for (size_t i = 0; i < o->nsegments; i++) {
		cbor_put_array(out, 3);
		cbor_put_uint(out, o->segments[i].gpa);
		cbor_put_uint(out, o->segments[i].offset);
		cbor_put_uint(out, o->segments[i].size);
	}
}

static void
put_top(struct cbor_out *out, const struct link *top)
{
	uint8_t buf[LINK_SIZE];

	link_encode(buf, top);
	cbor_put_bytes(out, buf, sizeof(buf));
}

static void
put_object(struct cbor_out *out, const struct object *o)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	put_text_pair(&map, "name", o->name);
	put_text_pair(&map, "kind", o->kind);
	put_uint_pair(&map, "size", o->size);
	cbor_map_key(&map, "index");
	put_top(out, &o->top);
	if (o->page_size != 0)
		put_uint_pair(&map, "page_size", o->page_size);
	if (o->nsegments != 0) {
		cbor_map_key(&map, "segments");
		put_segments(out, o);
	}
	put_unknown(&map, o->unknown);
	cbor_map_end(&map);
}

static void
put_objects(struct cbor_out *out, const struct object *list, size_t n)
{
	cbor_put_array(out, n);
	for (size_t i = 0; i < n; i++)
		put_object(out, &list[i]);
}

static void
put_content(struct cbor_out *out, const struct object *o)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	put_uint_pair(&map, "size", o->size);
	cbor_map_key(&map, "index");
	put_top(out, &o->top);
	put_unknown(&map, o->unknown);
	cbor_map_end(&map);
}

static void
put_hot(struct cbor_out *out, const struct hot_section *h)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	if (h->pages.size != 0) {
		cbor_map_key(&map, "pages");
		put_content(out, &h->pages);
	}
	cbor_map_key(&map, "table");
	put_content(out, &h->table);
	if (h->has_trace) {
		cbor_map_key(&map, "trace");
		cbor_put_bytes(out, h->trace, DIGEST_SIZE);
	}
	put_unknown(&map, h->unknown);
	cbor_map_end(&map);
}

static void
put_command(struct cbor_out *out, const struct manifest *m)
{
	cbor_put_array(out, m->ncommand);
	for (size_t i = 0; i < m->ncommand; i++)
		cbor_put_text(out, m->command[i]);
}

static void
put_manifest(struct cbor_out *out, const struct manifest *m)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	put_text_pair(&map, "tool", m->tool);
	put_text_pair(&map, "created", m->created);
	put_text_pair(&map, "codec", m->codec);
	cbor_map_key(&map, "level");
	cbor_put_int(out, m->level);
	cbor_map_key(&map, "regions");
	put_objects(out, m->regions, m->nregions);
	cbor_map_key(&map, "states");
	put_objects(out, m->states, m->nstates);
	if (m->hot != NULL) {
		cbor_map_key(&map, "hot");
		put_hot(out, m->hot);
	}
	if (m->vmm.n != 0) {
		cbor_map_key(&map, "vmm");
		put_pairs(out, &m->vmm);
	}
	if (m->ncommand != 0) {
		cbor_map_key(&map, "command");
		put_command(out, m);
	}
	if (m->annotations.n != 0) {
		cbor_map_key(&map, "annotations");
		put_pairs(out, &m->annotations);
	}
	put_unknown(&map, m->unknown);
	cbor_map_end(&map);
}

int
manifest_encode(struct cbor_out *out, const struct manifest *m, struct err *e)
{
	*out = (struct cbor_out){ 0 };
	if (manifest_check(m, e) == -1) {
		e->kind = ERR_FAILED;
		return err_wrap(e, "manifest");
	}
	put_manifest(out, m);
	if (out->repeated) {
		cbor_out_free(out);
		return err_set(e, ERR_FAILED, "manifest: a key twice");
	}
	if (out->failed) {
		cbor_out_free(out);
		return err_set(e, ERR_FAILED, "manifest: out of memory");
	}
	if (out->len > MANIFEST_SIZE_MAX) {
		err_set(e, ERR_FAILED, "manifest of %zu bytes, at most %u are allowed",
		    out->len, MANIFEST_SIZE_MAX);
		cbor_out_free(out);
		return -1;
	}
	return 0;
}

/* ---- decode ---- */

static int
out_of_memory(struct err *e)
{
	return err_set(e, ERR_FAILED, "manifest: out of memory");
}

static int
copy_text(struct manifest *m, const char **to, const struct cbor_item *item, const char *what,
    struct err *e)
{
	if (memchr(item->data, '\0', item->value) != NULL)
		return err_set(e, ERR_CORRUPT, "%s: a text with a NUL", what);
	*to = arena_strndup(&m->arena, item->data, item->value);
	return *to == NULL ? out_of_memory(e) : 0;
}

static int
get_text(
    struct manifest *m, const char **to, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, CBOR_TEXT, &item, what, e) == -1)
		return -1;
	return copy_text(m, to, &item, what, e);
}

static int
get_uint(uint64_t *to, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	if (cbor_expect(in, CBOR_UINT, &item, what, e) == -1)
		return -1;
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
    struct manifest *m, struct unknown **list, const uint8_t *start, size_t len, struct err *e)
{
	struct unknown *u = arena_alloc(&m->arena, sizeof(*u));

	if (u == NULL)
		return out_of_memory(e);
	u->bytes = (const uint8_t *)arena_strndup(&m->arena, start, len);
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
check_required(const struct key *keys, uint64_t seen, const char *what, struct err *e)
{
	for (const struct key *key = keys; key->name != NULL; key++)
		if (key->required && (seen >> (key - keys) & 1) == 0)
			return err_set(e, ERR_CORRUPT, "%s: no \"%s\"", what, key->name);
	return 0;
}

/* Reads a map: all required keys, unknown ones are kept. */
static int
get_map(struct manifest *m, void *to, const struct key *keys, struct unknown **unknown,
    const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item name = { .data = NULL };
	uint64_t seen = 0;
	size_t n;

	if (get_count(&n, CBOR_MAP, PAIRS_MAX, what, in, e) == -1)
		return -1;
	while (n-- > 0) {
		const uint8_t *start = in->p;
		const struct key *key;

		if (cbor_next_key(in, &name, what, e) == -1)
			return -1;
		key = find_key(keys, &name);
		if (key == NULL) {
			if (cbor_skip(in, MANIFEST_DEPTH_MAX, e) == -1 ||
			    keep_unknown(m, unknown, start, (size_t)(in->p - start), e) == -1)
				return err_wrap(e, "%s", what);
			continue;
		}
		seen |= UINT64_C(1) << (key - keys);
		if (key->decode(m, to, in, e) == -1)
			return err_wrap(e, "%s", what);
	}
	return check_required(keys, seen, what, e);
}

static int
get_pairs(
    struct manifest *m, struct pairs *p, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item key = { .data = NULL };
	size_t n;

	if (get_count(&n, CBOR_MAP, PAIRS_MAX, what, in, e) == -1)
		return -1;
	p->list = arena_array(&m->arena, n, sizeof(*p->list));
	if (p->list == NULL)
		return out_of_memory(e);
	for (p->n = 0; p->n < n; p->n++) {
		struct pair *pair = &p->list[p->n];

		if (cbor_next_key(in, &key, what, e) == -1 ||
		    copy_text(m, &pair->key, &key, what, e) == -1 ||
		    get_text(m, &pair->value, what, in, e) == -1)
			return -1;
	}
	return 0;
}

static int
object_name(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	return get_text(m, &((struct object *)to)->name, "name", in, e);
}

static int
object_kind(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	return get_text(m, &((struct object *)to)->kind, "kind", in, e);
}

static int
object_size(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)m;
	return get_uint(&((struct object *)to)->size, "size", in, e);
}

static int
object_page_size(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	uint64_t size;

	(void)m;
	if (get_uint(&size, "page_size", in, e) == -1)
		return -1;
	if (size == 0 || size > OBJECT_PAGE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "page_size %llu", (unsigned long long)size);
	((struct object *)to)->page_size = (uint32_t)size;
	return 0;
}

static int
object_index(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	(void)m;
	if (cbor_expect(in, CBOR_BYTES, &item, "index", e) == -1)
		return -1;
	if (item.value != LINK_SIZE)
		return err_set(
		    e, ERR_CORRUPT, "index of %llu bytes", (unsigned long long)item.value);
	link_decode(&((struct object *)to)->top, item.data);
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
	if (get_uint(&s->gpa, "gpa", in, e) == -1 ||
	    get_uint(&s->offset, "offset", in, e) == -1)
		return -1;
	return get_uint(&s->size, "size", in, e);
}

static int
object_segments(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = to;

	if (get_count(&o->nsegments, CBOR_ARRAY, SEGMENTS_MAX, "segments", in, e) == -1)
		return -1;
	o->segments = arena_array(&m->arena, o->nsegments, sizeof(*o->segments));
	if (o->segments == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < o->nsegments; i++)
		if (get_segment(&o->segments[i], in, e) == -1)
			return -1;
	return 0;
}

static const struct key object_keys[] = {
	{ "name", object_name, true },
	{ "kind", object_kind, true },
	{ "size", object_size, true },
	{ "index", object_index, true },
	{ "page_size", object_page_size, false }, /* regions have it: object_check */
	{ "segments", object_segments, false },
	{ NULL, NULL, false },
};

static int
get_objects(struct manifest *m, struct object **list, size_t *count, const char *what,
    struct cbor_in *in, struct err *e)
{
	size_t n;

	if (get_count(&n, CBOR_ARRAY, OBJECTS_MAX, what, in, e) == -1)
		return -1;
	*list = arena_array(&m->arena, n, sizeof(**list));
	if (*list == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		struct object *o = &(*list)[i];

		if (get_map(m, o, object_keys, &o->unknown, what, in, e) == -1)
			return -1;
		*count = i + 1;
	}
	return 0;
}

static int
top_tool(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_text(m, &m->tool, "tool", in, e);
}

static int
top_created(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_text(m, &m->created, "created", in, e);
}

static int
top_codec(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_text(m, &m->codec, "codec", in, e);
}

static int
top_level(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	(void)to;
	if (cbor_get(in, &item, e) == -1)
		return -1;
	if ((item.kind != CBOR_UINT && item.kind != CBOR_NEGINT) || item.value > LEVEL_MAX)
		return err_set(e, ERR_CORRUPT, "level is not a small number");
	m->level = item.kind == CBOR_UINT ? (int)item.value : -1 - (int)item.value;
	return 0;
}

static int
top_regions(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_objects(m, &m->regions, &m->nregions, "regions", in, e);
}

static int
top_states(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_objects(m, &m->states, &m->nstates, "states", in, e);
}

static const struct key content_keys[] = {
	{ "size", object_size, true },
	{ "index", object_index, true },
	{ NULL, NULL, false },
};

static int
hot_pages(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = &((struct hot_section *)to)->pages;

	if (get_map(m, o, content_keys, &o->unknown, "pages", in, e) == -1)
		return -1;
	/* Size 0 is the mark of a section without this key. */
	return o->size != 0 ? 0 : err_set(e, ERR_CORRUPT, "pages: is empty");
}

static int
hot_table(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = &((struct hot_section *)to)->table;

	return get_map(m, o, content_keys, &o->unknown, "table", in, e);
}

static int
hot_trace(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	struct hot_section *h = to;
	struct cbor_item item;

	(void)m;
	if (cbor_expect(in, CBOR_BYTES, &item, "trace", e) == -1)
		return -1;
	if (item.value != DIGEST_SIZE)
		return err_set(
		    e, ERR_CORRUPT, "trace of %llu bytes", (unsigned long long)item.value);
	h->has_trace = true;
	memcpy(h->trace, item.data, DIGEST_SIZE);
	return 0;
}

static const struct key hot_keys[] = {
	{ "pages", hot_pages, false },
	{ "table", hot_table, true },
	{ "trace", hot_trace, false },
	{ NULL, NULL, false },
};

static int
top_hot(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	m->hot = manifest_new_hot(m);
	if (m->hot == NULL)
		return out_of_memory(e);
	return get_map(m, m->hot, hot_keys, &m->hot->unknown, "hot", in, e);
}

static int
top_vmm(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_pairs(m, &m->vmm, "vmm", in, e);
}

static int
top_annotations(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	return get_pairs(m, &m->annotations, "annotations", in, e);
}

static int
top_command(struct manifest *m, void *to, struct cbor_in *in, struct err *e)
{
	(void)to;
	if (get_count(&m->ncommand, CBOR_ARRAY, ARGUMENTS_MAX, "command", in, e) == -1)
		return -1;
	m->command = arena_array(&m->arena, m->ncommand, sizeof(*m->command));
	if (m->command == NULL)
		return out_of_memory(e);
	for (size_t i = 0; i < m->ncommand; i++)
		if (get_text(m, &m->command[i], "command", in, e) == -1)
			return -1;
	return 0;
}

static const struct key top_keys[] = {
	{ "tool", top_tool, true },
	{ "created", top_created, false },
	{ "codec", top_codec, true },
	{ "level", top_level, true },
	{ "regions", top_regions, true },
	{ "states", top_states, true },
	{ "hot", top_hot, false },
	{ "vmm", top_vmm, false },
	{ "command", top_command, false },
	{ "annotations", top_annotations, false },
	{ NULL, NULL, false },
};

int
manifest_decode(struct manifest *m, const void *buf, size_t len, struct err *e)
{
	struct cbor_in in = { buf, len };

	memset(m, 0, sizeof(*m));
	if (get_map(m, m, top_keys, &m->unknown, "manifest", &in, e) == -1)
		return -1;
	if (in.left != 0)
		return err_set(e, ERR_CORRUPT, "manifest: %zu bytes behind its end", in.left);
	if (manifest_check(m, e) == -1)
		return err_wrap(e, "manifest");
	return 0;
}
