/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/live.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "gmem-snap/objects.h"
#include "gmem-snap/peer.h"
#include "memory/mapped.h"

#define POOL_SIZE ((size_t)64 << 20) /* for pages that the VM writes before we come to them */

struct live_region {
	struct protect *protect;
	size_t number;
};

struct live {
	struct snapshot *s;
	const struct live_vm *vm;
	struct protect *protect;
	struct live_region *regions;
};

/* ---- the input of capture.h ---- */

static int
live_next(void *arg, uint64_t from, uint64_t *start, uint64_t *end, struct err *e)
{
	const struct live_region *r = arg;

	return protect_next(r->protect, r->number, from, start, end, e);
}

static int
live_skip(void *arg, uint64_t from, uint64_t to, struct err *e)
{
	const struct live_region *r = arg;

	return protect_skip(r->protect, r->number, from, to, e);
}

static int
live_read(void *arg, void *buf, size_t len, uint64_t off, struct err *e)
{
	const struct live_region *r = arg;

	return protect_read(r->protect, r->number, buf, len, off, e);
}

static int
redirect(struct live *l, struct err *e)
{
	struct regions *r = &l->s->regions;

	l->regions = calloc(r->n, sizeof(*l->regions));
	if (l->regions == NULL)
		return err_sys(e, "regions");
	for (size_t i = 0; i < r->n; i++) {
		l->regions[i] = (struct live_region){ l->protect, i };
		r->v[i].input =
		    (struct capture_input){ &l->regions[i], live_next, live_skip, live_read };
	}
	return 0;
}

/* ---- who can write ---- */

static int
check_region(const struct live *l, size_t i, struct memory_mapping *list, struct err *e)
{
	const struct region *r = &l->s->regions.v[i];
	const struct live_memory *m = &l->vm->regions[i];
	const struct peer_memory user = { .pid = l->vm->pid,
		.name = r->object.name,
		.dev = m->dev,
		.ino = m->ino,
		.alone = true };
	const struct memory_part part = { m->dev, m->ino, r->offset, r->object.size };
	size_t n = 0;

	for (size_t k = 0; k < l->vm->nmappings; k++) {
		const struct protect_mapping *from = &l->vm->mappings[k];

		if (from->region == i)
			list[n++] = (struct memory_mapping){ .hva = from->hva,
				.len = from->len,
				.offset = r->offset + from->offset };
	}
	if (peer_check_users(&user, e) == -1)
		return -1;
	return memory_check_mappings(l->vm->pid, &part, list, n, e);
}

/* That nobody can write to the memory but through the mappings that we have. */
static int
check_writers(const struct live *l, struct err *e)
{
	struct memory_mapping *list = calloc(l->vm->nmappings, sizeof(*list));
	int rc = 0;

	if (list == NULL)
		return err_sys(e, "mappings");
	for (size_t i = 0; rc == 0 && i < l->s->regions.n; i++) {
		rc = check_region(l, i, list, e);
		if (rc == -1)
			err_wrap(e, "region %s", l->s->regions.v[i].object.name);
	}
	free(list);
	return rc;
}

/* ---- the steps ---- */

int
live_add_region(struct live_vm *vm, dev_t dev, ino_t ino, struct err *e)
{
	struct live_memory *list;

	list = reallocarray(vm->regions, vm->nregions + 1, sizeof(*list));
	if (list == NULL)
		return err_sys(e, "regions");
	vm->regions = list;
	list[vm->nregions++] = (struct live_memory){ dev, ino };
	return 0;
}

int
live_add_object(struct live_vm *vm, const struct memory_object *o, uint64_t offset,
    uint64_t size, struct err *e)
{
	struct protect_mapping *list;
	size_t region = vm->nregions;

	if (live_add_region(vm, o->dev, o->ino, e) == -1)
		return -1;
	list = reallocarray(vm->mappings, vm->nmappings + o->nmappings + 1, sizeof(*list));
	if (list == NULL)
		return err_sys(e, "mappings");
	vm->mappings = list;
	for (size_t i = 0; i < o->nmappings; i++) {
		const struct memory_mapping *m = &o->mappings[i];
		uint64_t start = MAX(m->offset, offset);
		uint64_t end = MIN(m->offset + m->len, offset + size);

		if (!m->shared || start >= end)
			continue;
		list[vm->nmappings++] = (struct protect_mapping){
			.hva = m->hva + (start - m->offset),
			.len = end - start,
			.offset = start - offset,
			.region = region,
		};
	}
	return 0;
}

void
live_vm_fini(struct live_vm *vm)
{
	fd_close(&vm->uffd);
	free(vm->regions);
	free(vm->mappings);
}

static int
protect(struct live *l, int uffd, struct err *e)
{
	const struct regions *r = &l->s->regions;
	struct protect_region *regions = calloc(r->n, sizeof(*regions));
	int rc;

	if (regions == NULL) {
		fd_close(&uffd);
		return err_sys(e, "regions");
	}
	for (size_t i = 0; i < r->n; i++)
		regions[i] = (struct protect_region){ .source = r->v[i].source,
			.offset = r->v[i].offset,
			.size = r->v[i].object.size,
			.page_size = r->v[i].object.page_size };
	rc = protect_new(
	    &l->protect, uffd, regions, r->n, l->vm->mappings, l->vm->nmappings, POOL_SIZE, e);
	free(regions);
	return rc;
}

static int
prepare(struct live *l, int uffd, struct err *e)
{
	if (protect(l, uffd, e) == -1 || peer_check_devices(l->vm->pid, e) == -1)
		return err_wrap(e, "--pause-less");
	return check_writers(l, e) == -1 ? -1 : redirect(l, e);
}

int
live_arm(struct live *l, struct err *e)
{
	return protect_arm(l->protect, e);
}

/* After the memory was read: that it is of the moment. */
static int
check(struct live *l, struct err *e)
{
	struct protect_stats stats = protect_stats(l->protect);

	l->s->pages_written = stats.saved;
	l->s->stalls = stats.stalls;
	log_info("%" PRIu64 " pages were written before they were saved, %" PRIu64
		 " writes waited for room",
	    stats.saved, stats.stalls);
	if (protect_check(l->protect, e) == -1)
		return -1;
	/* One that has ended took its mappings with it, and has written nothing unseen. */
	return process_is_gone(l->vm->pid) ? 0 : check_writers(l, e);
}

static int
save(struct live *l, live_pause *pause, void *arg, struct err *e)
{
	if (snapshot_start(l->s, e) == -1 || pause(arg, l, e) == -1 ||
	    snapshot_memory(l->s, e) == -1)
		return -1;
	return check(l, e);
}

int
live_save(struct snapshot *s, struct live_vm *vm, live_pause *pause, void *arg, struct err *e)
{
	struct live l = { .s = s, .vm = vm };
	int uffd = vm->uffd, rc;

	vm->uffd = -1;
	rc = prepare(&l, uffd, e);
	if (rc == 0)
		rc = save(&l, pause, arg, e);
	/* The workers read through it. */
	snapshot_stop(s);
	protect_free(l.protect);
	free(l.regions);
	return rc;
}
