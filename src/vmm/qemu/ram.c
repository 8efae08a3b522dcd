/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"

#define BACKENDS_MAX 256

/*
 * Which memory backends are the guest's RAM, and where each is: in the guest
 * (info mtree), in QEMU (gpa2hva), and outside (the object mapped there).
 */
struct search {
	struct qemu *vm;
	struct qemu_blocks blocks; /* info ramblock */
	char *mtree; /* info mtree -f */
};

/* A property of a memory backend; the caller's. */
static int
backend_get(struct qmp *q, const char *id, const char *property, json_t **value, struct err *e)
{
	char path[256];

	snprintf(path, sizeof(path), "/objects/%s", id);
	return qmp_command(q, "qom-get",
	    json_pack("{s:s, s:s}", "path", path, "property", property), value, e);
}

static int
check_shared(struct qmp *q, const struct qemu_ram *ram, struct err *e)
{
	json_t *share;
	bool shared;

	if (backend_get(q, ram->id, "share", &share, e) == -1)
		return -1;
	shared = json_is_true(share);
	json_decref(share);
	if (shared)
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "it is private to QEMU: start the VM with share=on, such as "
	    "-object memory-backend-memfd,id=ram0,size=%" PRIu64
	    "M,share=on -machine memory-backend=ram0",
	    ram->size >> 20);
}

/*
 * From 8.1 on x-ignore-shared leaves out only shared memory that has a file's name
 * (QEMU commit b0182e537e): all other is sent, and must be taken out of what was sent.
 */
static int
check_named(struct qmp *q, struct qemu_ram *ram, struct err *e)
{
	const char *text;
	json_t *type;

	if (!qmp_at_least(q, 8, 1))
		return 0;
	if (backend_get(q, ram->id, "type", &type, e) == -1)
		return -1;
	text = json_string_value(type);
	ram->sent = text == NULL || strcmp(text, "memory-backend-file") != 0;
	json_decref(type);
	return 0;
}

/* The address of the block's first byte in QEMU, the same by each of its segments. */
static int
find_hva(struct search *s, struct qemu_ram *ram, struct err *e)
{
	char line[64], *text;
	uint64_t hva;
	int r;

	for (size_t i = 0; i < ram->nsegments; i++) {
		const struct qemu_segment *seg = &ram->segments[i];

		snprintf(line, sizeof(line), "gpa2hva 0x%" PRIx64, seg->probe);
		if (qmp_hmp(s->vm->qmp, line, &text, e) == -1)
			return -1;
		r = qemu_text_hva(text, ram->block, &hva, e);
		free(text);
		if (r == -1)
			return -1;
		hva -= seg->probe - seg->gpa + seg->offset;
		if (i == 0)
			ram->hva = hva;
		else if (hva != ram->hva)
			return err_set(e, ERR_UNSUPPORTED,
			    "its segments are not one piece of QEMU's memory");
	}
	return 0;
}

/* The mapping of the object that holds the address, or NULL. */
static const struct memory_mapping *
mapping_at(const struct memory_object *o, uint64_t hva)
{
	for (size_t i = 0; i < o->nmappings; i++) {
		const struct memory_mapping *m = &o->mappings[i];

		if (hva >= m->hva && hva - m->hva < m->len)
			return m;
	}
	return NULL;
}

/* Whether [hva, hva + size) shows the object in one run, and is shared. */
static bool
covers(const struct memory_object *o, uint64_t hva, uint64_t size, uint64_t *offset)
{
	const struct memory_mapping *m = mapping_at(o, hva);
	uint64_t done = 0;

	if (m == NULL)
		return false;
	*offset = m->offset + (hva - m->hva);
	while (done < size) {
		m = mapping_at(o, hva + done);
		if (m == NULL || !m->shared ||
		    m->offset + (hva + done - m->hva) != *offset + done)
			return false;
		done = m->hva + m->len - hva;
	}
	return true;
}

static int
find_object(struct qemu *vm, struct qemu_ram *ram, struct err *e)
{
	for (size_t i = 0; i < vm->nobjects; i++) {
		if (covers(&vm->objects[i], ram->hva, ram->size, &ram->offset)) {
			ram->object = &vm->objects[i];
			return 0;
		}
	}
	return err_set(e, ERR_FAILED,
	    "process %d has no shared mapping of %" PRIu64 " bytes at 0x%" PRIx64
	    ": is it the right process?",
	    (int)vm->pid, ram->size, ram->hva);
}

/* Nobody else may work in the memory: it would not stop when the VM does. */
static int
check_users(struct qemu *vm, const struct qemu_ram *ram, struct err *e)
{
	size_t n, unreadable;
	pid_t *pids;
	int r = 0;

	if (memory_users(ram->object->dev, ram->object->ino, &pids, &n, &unreadable, e) == -1)
		return -1;
	for (size_t i = 0; i < n && r == 0; i++)
		if (pids[i] != vm->pid)
			r = err_set(e, ERR_UNSUPPORTED,
			    "process %d has it mapped as well and would not be paused: "
			    "end that process",
			    (int)pids[i]);
	free(pids);
	return r;
}

static int
locate(struct search *s, struct qemu_ram *ram, struct err *e)
{
	if (check_shared(s->vm->qmp, ram, e) == -1 || check_named(s->vm->qmp, ram, e) == -1)
		return -1;
	if (qemu_text_segments(
		s->mtree, ram->block, ram->size, &ram->segments, &ram->nsegments, e) == -1)
		return -1;
	if (find_hva(s, ram, e) == -1 || find_object(s->vm, ram, e) == -1)
		return -1;
	return check_users(s->vm, ram, e);
}

/* The block of a backend; NULL if the backend is in nobody's use. */
static const struct qemu_block *
block_of(const struct search *s, const char *id)
{
	const struct qemu_block *b = qemu_blocks_find(&s->blocks, id);
	char path[256];

	if (b != NULL)
		return b;
	snprintf(path, sizeof(path), "/objects/%s", id);
	return qemu_blocks_find(&s->blocks, path);
}

/* One entry of query-memdev. */
static int
add_backend(struct search *s, const json_t *entry, struct err *e)
{
	const char *id = json_string_value(json_object_get(entry, "id"));
	json_int_t size = json_integer_value(json_object_get(entry, "size"));
	struct qemu_ram *ram = &s->vm->ram[s->vm->nram];
	const struct qemu_block *b;

	if (id == NULL || *id == '\0' || strlen(id) > 128 || size <= 0)
		return err_set(e, ERR_CORRUPT, "\"query-memdev\" tells no id and size");
	b = block_of(s, id);
	if (b == NULL)
		return 0;
	s->vm->nram++;
	ram->id = strdup(id);
	ram->block = strdup(b->name);
	if (ram->id == NULL || ram->block == NULL)
		return err_sys(e, "RAM blocks");
	ram->size = (uint64_t)size;
	ram->page_size = b->page_size;
	if (b->used != ram->size)
		return err_set(e, ERR_UNSUPPORTED,
		    "memory backend %s has %" PRIu64 " bytes, its RAM block %" PRIu64, id,
		    ram->size, b->used);
	if (locate(s, ram, e) == -1)
		return err_wrap(e, "RAM %s", id);
	return 0;
}

static int
add_backends(struct search *s, struct err *e)
{
	json_t *list, *entry;
	size_t i;
	int r = 0;

	if (qmp_command(s->vm->qmp, "query-memdev", NULL, &list, e) == -1)
		return -1;
	if (json_array_size(list) > BACKENDS_MAX)
		r = err_set(e, ERR_UNSUPPORTED, "more than %d memory backends", BACKENDS_MAX);
	json_array_foreach(list, i, entry) if (r == 0) r = add_backend(s, entry, e);
	json_decref(list);
	return r;
}

/* RAM that is no memory backend can't be found, and must not be forgotten. */
static int
check_sum(struct qemu *vm, struct err *e)
{
	uint64_t sum = 0, base;
	json_t *reply;

	if (qmp_command(vm->qmp, "query-memory-size-summary", NULL, &reply, e) == -1)
		return -1;
	base = (uint64_t)json_integer_value(json_object_get(reply, "base-memory"));
	json_decref(reply);
	for (size_t i = 0; i < vm->nram; i++)
		if (ckd_add(&sum, sum, vm->ram[i].size))
			return err_set(e, ERR_CORRUPT, "the sizes of RAM have no sum");
	if (sum == base && sum > 0)
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "the VM has %" PRIu64 " bytes of RAM, its memory backends hold %" PRIu64
	    ": start the VM with -object memory-backend-memfd,id=ram0,size=…,share=on "
	    "-machine memory-backend=ram0",
	    base, sum);
}

static int
by_gpa(const void *a, const void *b)
{
	const struct qemu_ram *x = a, *y = b;

	return (x->segments->gpa > y->segments->gpa) - (x->segments->gpa < y->segments->gpa);
}

int
qemu_find_ram(struct qemu *vm, struct err *e)
{
	struct search s = { .vm = vm };
	char *text = NULL;
	int r = -1;

	vm->ram = calloc(BACKENDS_MAX, sizeof(*vm->ram));
	if (vm->ram == NULL)
		return err_sys(e, "RAM blocks");
	if (memory_list(vm->pid, &vm->objects, &vm->nobjects, e) == -1)
		return -1;
	if (qmp_hmp(vm->qmp, "info ramblock", &text, e) == 0 &&
	    qemu_text_blocks(text, &s.blocks, e) == 0 &&
	    qmp_hmp(vm->qmp, "info mtree -f", &s.mtree, e) == 0 && add_backends(&s, e) == 0)
		r = check_sum(vm, e);
	if (r == 0)
		qsort(vm->ram, vm->nram, sizeof(*vm->ram), by_gpa);
	qemu_blocks_fini(&s.blocks);
	free(s.mtree);
	free(text);
	return r;
}

void
qemu_free_ram(struct qemu *vm)
{
	for (size_t i = 0; i < vm->nram; i++) {
		free(vm->ram[i].id);
		free(vm->ram[i].block);
		free(vm->ram[i].segments);
	}
	free(vm->ram);
	memory_list_free(vm->objects, vm->nobjects);
}
