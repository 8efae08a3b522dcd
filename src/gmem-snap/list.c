/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/list.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/opt.h"
#include "gmem-snap/objects.h"
#include "gmem-snap/text.h"
#include "memory/source.h"

/* What is found out about an object beyond memory_list. */
struct facts {
	bool known; /* resident */
	uint64_t resident;
	char why[512]; /* if not known */
	pid_t *users; /* owned */
	size_t nusers;
};

static int
resident(pid_t pid, const struct memory_object *object, uint64_t *bytes, struct err *e)
{
	struct memory_source *src;
	int fd, r;

	if (memory_open(pid, object, &fd, e) == -1 ||
	    memory_source_open(&src, fd, object->kind, 0, e) == -1)
		return -1;
	r = memory_source_resident(src, bytes, e);
	memory_source_free(src);
	return r;
}

static int
look(pid_t pid, const struct memory_object *object, struct facts *f, struct err *e)
{
	struct err why = ERR_INIT;
	size_t unreadable;

	*f = (struct facts){ 0 };
	f->known = resident(pid, object, &f->resident, &why) == 0;
	if (!f->known)
		memcpy(f->why, why.msg, sizeof(f->why));
	return memory_users(object->dev, object->ino, &f->users, &f->nusers, &unreadable, e);
}

static void
print_users(const struct facts *f)
{
	char title[80];

	for (size_t i = 0; i < f->nusers; i++) {
		process_title(title, sizeof(title), f->users[i]);
		printf("%s%s", i == 0 ? "" : ", ", title);
	}
	printf("%s\n", f->nusers == 0 ? "-" : "");
}

static void
print_row(const struct objects *list, size_t i, const struct facts *f)
{
	const struct memory_object *o = &list->v[i];
	char size[16], in[16] = "?";

	if (f->known)
		opt_human(in, f->resident);
	printf("%3zu  %-11s  %-24s  %10s  %10s  %8zu  ", i + 1, memory_kind_name(o->kind),
	    list->names[i], opt_human(size, o->size), in, o->nmappings);
	print_users(f);
}

static json_t *
mappings_json(const struct memory_object *o)
{
	json_t *array = json_array();

	for (size_t i = 0; i < o->nmappings; i++) {
		const struct memory_mapping *m = &o->mappings[i];

		json_array_append_new(
		    array, json_pack("{s:o, s:I, s:I, s:b, s:b}", "hva", json_hex(m->hva),
			       "size", (json_int_t)m->len, "offset", (json_int_t)m->offset,
			       "shared", (int)m->shared, "writable", (int)m->writable));
	}
	return array;
}

static json_t *
users_json(const struct facts *f)
{
	json_t *array = json_array();

	for (size_t i = 0; i < f->nusers; i++)
		json_array_append_new(array, json_integer(f->users[i]));
	return array;
}

static json_t *
row_json(const struct objects *list, size_t i, const struct facts *f)
{
	const struct memory_object *o = &list->v[i];
	json_t *j = json_object();

	json_put(j, "number", i + 1);
	json_object_set_new(j, "kind", json_string(memory_kind_name(o->kind)));
	json_object_set_new(j, "name", json_string(list->names[i]));
	json_object_set_new(
	    j, "object", text_is_utf8(o->name) ? json_string(o->name) : json_null());
	json_put(j, "size", o->size);
	json_put(j, "page_size", o->page_size);
	json_object_set_new(
	    j, "resident", f->known ? json_integer((json_int_t)f->resident) : json_null());
	json_object_set_new(j, "mappings", mappings_json(o));
	json_object_set_new(j, "users", users_json(f));
	return j;
}

static int
print_json(pid_t pid, json_t *rows, struct err *e)
{
	json_t *j = json_output();

	json_object_set_new(j, "pid", json_integer(pid));
	json_object_set_new(j, "objects", rows);
	return json_write(STDOUT_FILENO, j, e);
}

static int
print_all(const struct options *o, const struct objects *list, struct err *e)
{
	json_t *rows = json_array();
	struct facts f;

	if (!o->json)
		printf("%3s  %-11s  %-24s  %10s  %10s  %8s  %s\n", "NUM", "KIND", "NAME",
		    "SIZE", "RESIDENT", "MAPPINGS", "MAPPED BY");
	for (size_t i = 0; i < list->n; i++) {
		if (look(o->pid, &list->v[i], &f, e) == -1) {
			json_decref(rows);
			return -1;
		}
		if (!f.known)
			log_info("resident bytes of %s: %s", list->names[i], f.why);
		if (o->json)
			json_array_append_new(rows, row_json(list, i, &f));
		else
			print_row(list, i, &f);
		free(f.users);
	}
	if (o->json)
		return print_json(o->pid, rows, e);
	json_decref(rows);
	return 0;
}

int
list_print(const struct options *o, struct err *e)
{
	struct objects list;
	int r;

	if (objects_find(&list, o->pid, e) == -1)
		return -1;
	r = print_all(o, &list, e);
	objects_fini(&list);
	return r;
}
