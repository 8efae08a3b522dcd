/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/info.h"

#include <unistd.h>

#include "cli/json.h"
#include "format/layout.h"
#include "gmem-inspect/text.h"

/* Adding to what could not be made fails quietly; json_write then says so. */

static void
put_text(json_t *to, const char *key, const char *text)
{
	json_object_set_new(to, key, text_json(text));
}

static void
put_amount(json_t *to, const struct amount *a)
{
	json_put(to, "size", a->size);
	json_put(to, "pages", a->pages);
	json_put(to, "stored_pages", a->stored);
	json_put(to, "hot_pages", a->hot);
	json_put(to, "zero_pages", a->pages - a->stored);
	json_put(to, "stored_bytes", amount_plain(a));
	json_put(to, "image_bytes", a->packed);
}

static json_t *
segments(const struct object *o)
{
	json_t *list = json_array();

	for (size_t i = 0; i < o->nsegments; i++) {
		json_t *s = json_object();

		json_object_set_new(s, "gpa", json_hex(o->segments[i].gpa));
		json_object_set_new(s, "offset", json_hex(o->segments[i].offset));
		json_put(s, "size", o->segments[i].size);
		json_array_append_new(list, s);
	}
	return list;
}

static json_t *
objects(const struct manifest *m, const struct object *list, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++) {
		struct amount a = amount_of(m, &list[i]);
		json_t *o = json_object();

		put_text(o, "name", list[i].name);
		put_text(o, "kind", list[i].kind);
		put_amount(o, &a);
		if (list[i].page_size != 0) {
			json_put(o, "page_size", list[i].page_size);
			json_object_set_new(o, "segments", segments(&list[i]));
		}
		json_object_set_new(o, "sha256",
		    list[i].has_digest ? json_digest(list[i].digest) : json_null());
		json_array_append_new(array, o);
	}
	return array;
}

/* Keys may hold what is no UTF-8, and then be equal: the last one stays. */
static json_t *
pairs(const struct pairs *list)
{
	json_t *object = json_object();

	for (size_t i = 0; i < list->n; i++) {
		json_t *key = text_json(list->list[i].key);

		json_object_set_new(object, key == NULL ? "" : json_string_value(key),
		    text_json(list->list[i].value));
		json_decref(key);
	}
	return object;
}

static json_t *
command(const struct manifest *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->ncommand; i++)
		json_array_append_new(list, text_json(m->command[i]));
	return list;
}

static json_t *
codec(const struct manifest *m)
{
	json_t *c = json_object();

	put_text(c, "name", m->codec);
	json_object_set_new(c, "level", json_integer(m->level));
	return c;
}

static json_t *
hot(const struct hot_section *h)
{
	json_t *o;

	if (h == NULL)
		return json_null();
	o = json_object();
	json_put(o, "pages", h->table.size / HOT_ENTRY_SIZE);
	json_put(o, "stored_pages", h->pages.top.stored);
	json_put(o, "stored_bytes", h->pages.size);
	json_put(o, "image_bytes", h->pages.top.bytes);
	json_put(o, "table_bytes", h->table.top.bytes);
	json_object_set_new(o, "trace", h->has_trace ? json_digest(h->trace) : json_null());
	return o;
}

int
info_json(const struct info *info, struct err *e)
{
	const struct image *img = info->img;
	const struct manifest *m = &img->manifest;
	json_t *json = json_output(), *memory = json_object();

	put_text(json, "image", img->path);
	json_put(json, "size", img->size);
	json_object_set_new(json, "root", json_digest(img->root));
	json_put(json, "format", FORMAT_MAJOR);
	json_object_set_new(json, "streamed", json_boolean(img->streamed));
	json_put(json, "chunk_size", img->g.chunk_size);
	json_object_set_new(json, "codec", codec(m));
	put_text(json, "tool", m->tool);
	put_text(json, "created", m->created);
	put_amount(memory, &info->memory);
	json_object_set_new(json, "memory", memory);
	json_object_set_new(json, "regions", objects(m, m->regions, m->nregions));
	json_object_set_new(json, "hot", hot(m->hot));
	json_object_set_new(json, "states", objects(m, m->states, m->nstates));
	json_object_set_new(json, "vmm", pairs(&m->vmm));
	json_object_set_new(json, "command", command(m));
	json_object_set_new(json, "annotations", pairs(&m->annotations));
	return json_write(STDOUT_FILENO, json, e);
}
