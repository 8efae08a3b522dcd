/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/manifest.h"

#include <string.h>

#include "base/ckd.h"
#include "format/fields.h"

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
put_pairs(struct cbor_out *out, const struct pairs *p)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	for (size_t i = 0; i < p->n; i++)
		field_put_text(&map, p->list[i].key, p->list[i].value);
	cbor_map_end(&map);
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
	field_put_text(&map, "name", o->name);
	field_put_text(&map, "kind", o->kind);
	field_put_uint(&map, "size", o->size);
	cbor_map_key(&map, "index");
	put_top(out, &o->top);
	if (o->page_size != 0)
		field_put_uint(&map, "page_size", o->page_size);
	field_put_segments(&map, o);
	if (o->has_digest) {
		cbor_map_key(&map, "sha256");
		cbor_put_bytes(out, o->digest, DIGEST_SIZE);
	}
	field_put_unknown(&map, o->unknown);
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
	field_put_uint(&map, "size", o->size);
	cbor_map_key(&map, "index");
	put_top(out, &o->top);
	field_put_unknown(&map, o->unknown);
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
	field_put_unknown(&map, h->unknown);
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
	field_put_text(&map, "tool", m->tool);
	field_put_text(&map, "created", m->created);
	field_put_text(&map, "codec", m->codec);
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
	field_put_unknown(&map, m->unknown);
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
get_pairs(
    struct arena *arena, struct pairs *p, const char *what, struct cbor_in *in, struct err *e)
{
	struct cbor_item key = { .data = NULL };
	size_t n;

	if (field_get_count(&n, CBOR_MAP, PAIRS_MAX, what, in, e) == -1)
		return -1;
	p->list = arena_array(arena, n, sizeof(*p->list));
	if (p->list == NULL)
		return field_no_memory(e);
	for (p->n = 0; p->n < n; p->n++) {
		struct pair *pair = &p->list[p->n];

		if (cbor_next_key(in, &key, what, e) == -1 ||
		    field_copy_text(arena, &pair->key, &key, what, e) == -1 ||
		    field_get_text(arena, &pair->value, what, in, e) == -1)
			return -1;
	}
	return 0;
}

static int
object_name(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	return field_get_text(arena, &((struct object *)to)->name, "name", in, e);
}

static int
object_kind(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	return field_get_text(arena, &((struct object *)to)->kind, "kind", in, e);
}

static int
object_size(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	(void)arena;
	return field_get_uint(&((struct object *)to)->size, UINT64_MAX, "size", in, e);
}

static int
object_page_size(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	uint64_t size;

	(void)arena;
	if (field_get_uint(&size, UINT64_MAX, "page_size", in, e) == -1)
		return -1;
	if (size == 0 || size > OBJECT_PAGE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "page_size %llu", (unsigned long long)size);
	((struct object *)to)->page_size = (uint32_t)size;
	return 0;
}

static int
object_index(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct cbor_item item;

	(void)arena;
	if (cbor_expect(in, CBOR_BYTES, &item, "index", e) == -1)
		return -1;
	if (item.value != LINK_SIZE)
		return err_set(
		    e, ERR_CORRUPT, "index of %llu bytes", (unsigned long long)item.value);
	link_decode(&((struct object *)to)->top, item.data);
	return 0;
}

static int
object_segments(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	return field_get_segments(arena, to, UINT64_MAX, in, e);
}

static int
object_digest(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = to;

	(void)arena;
	o->has_digest = true;
	return field_get_digest(o->digest, "sha256", in, e);
}

static const struct field object_keys[] = {
	{ "name", object_name, true },
	{ "kind", object_kind, true },
	{ "size", object_size, true },
	{ "index", object_index, true },
	{ "page_size", object_page_size, false }, /* regions have it: object_check */
	{ "segments", object_segments, false },
	{ "sha256", object_digest, false },
	{ NULL, NULL, false },
};

static int
get_objects(struct arena *arena, struct object **list, size_t *count, const char *what,
    struct cbor_in *in, struct err *e)
{
	size_t n;

	if (field_get_count(&n, CBOR_ARRAY, OBJECTS_MAX, what, in, e) == -1)
		return -1;
	*list = arena_array(arena, n, sizeof(**list));
	if (*list == NULL)
		return field_no_memory(e);
	for (size_t i = 0; i < n; i++) {
		struct object *o = &(*list)[i];

		if (field_get_map(arena, o, object_keys, &o->unknown, what, in, e) == -1)
			return -1;
		*count = i + 1;
	}
	return 0;
}

static int
top_tool(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return field_get_text(arena, &m->tool, "tool", in, e);
}

static int
top_created(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return field_get_text(arena, &m->created, "created", in, e);
}

static int
top_codec(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return field_get_text(arena, &m->codec, "codec", in, e);
}

static int
top_level(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;
	struct cbor_item item;
	(void)arena;

	if (cbor_get(in, &item, e) == -1)
		return -1;
	if ((item.kind != CBOR_UINT && item.kind != CBOR_NEGINT) || item.value > LEVEL_MAX)
		return err_set(e, ERR_CORRUPT, "level is not a small number");
	m->level = item.kind == CBOR_UINT ? (int)item.value : -1 - (int)item.value;
	return 0;
}

static int
top_regions(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return get_objects(arena, &m->regions, &m->nregions, "regions", in, e);
}

static int
top_states(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return get_objects(arena, &m->states, &m->nstates, "states", in, e);
}

static const struct field content_keys[] = {
	{ "size", object_size, true },
	{ "index", object_index, true },
	{ NULL, NULL, false },
};

static int
hot_pages(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = &((struct hot_section *)to)->pages;

	if (field_get_map(arena, o, content_keys, &o->unknown, "pages", in, e) == -1)
		return -1;
	/* Size 0 is the mark of a section without this key. */
	return o->size != 0 ? 0 : err_set(e, ERR_CORRUPT, "pages: is empty");
}

static int
hot_table(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct object *o = &((struct hot_section *)to)->table;

	return field_get_map(arena, o, content_keys, &o->unknown, "table", in, e);
}

static int
hot_trace(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct hot_section *h = to;

	(void)arena;
	h->has_trace = true;
	return field_get_digest(h->trace, "trace", in, e);
}

static const struct field hot_keys[] = {
	{ "pages", hot_pages, false },
	{ "table", hot_table, true },
	{ "trace", hot_trace, false },
	{ NULL, NULL, false },
};

static int
top_hot(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	m->hot = manifest_new_hot(m);
	if (m->hot == NULL)
		return field_no_memory(e);
	return field_get_map(arena, m->hot, hot_keys, &m->hot->unknown, "hot", in, e);
}

static int
top_vmm(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return get_pairs(arena, &m->vmm, "vmm", in, e);
}

static int
top_annotations(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	return get_pairs(arena, &m->annotations, "annotations", in, e);
}

static int
top_command(struct arena *arena, void *to, struct cbor_in *in, struct err *e)
{
	struct manifest *m = to;

	if (field_get_count(&m->ncommand, CBOR_ARRAY, ARGUMENTS_MAX, "command", in, e) == -1)
		return -1;
	m->command = arena_array(arena, m->ncommand, sizeof(*m->command));
	if (m->command == NULL)
		return field_no_memory(e);
	for (size_t i = 0; i < m->ncommand; i++)
		if (field_get_text(arena, &m->command[i], "command", in, e) == -1)
			return -1;
	return 0;
}

static const struct field top_keys[] = {
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
	if (field_get_map(&m->arena, m, top_keys, &m->unknown, "manifest", &in, e) == -1)
		return -1;
	if (in.left != 0)
		return err_set(e, ERR_CORRUPT, "manifest: %zu bytes behind its end", in.left);
	if (manifest_check(m, e) == -1)
		return err_wrap(e, "manifest");
	return 0;
}
