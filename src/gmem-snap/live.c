/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/live.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/fdio.h"
#include "base/log.h"
#include "gmem-snap/objects.h"
#include "gmem-snap/peer.h"
#include "memory/mapped.h"
#include "serve/protect.h"

#define POOL_SIZE ((size_t)64 << 20) /* for pages that the VM writes before we come to them */

struct live_region {
	struct protect *protect;
	size_t number;
};

struct live {
	struct snapshot *s;
	struct control *vm;
	struct protect *protect;
	struct live_region *regions;
	struct control_mapping *mappings;
	size_t nmappings;
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
	const struct control_region *r;
	struct peer_memory m = { .pid = control_pid(l->vm), .alone = true };
	struct memory_part part;
	size_t nregions, n = 0;

	r = &control_regions(l->vm, &nregions)[i];
	part = (struct memory_part){ r->dev, r->ino, r->offset, r->size };
	m.name = r->name;
	m.dev = r->dev;
	m.ino = r->ino;
	for (size_t k = 0; k < l->nmappings; k++)
		if (l->mappings[k].region == i)
			list[n++] = (struct memory_mapping){ .hva = l->mappings[k].address,
				.len = l->mappings[k].length,
				.offset = r->offset + l->mappings[k].offset };
	if (peer_check_users(&m, e) == -1)
		return -1;
	return memory_check_mappings(m.pid, &part, list, n, e);
}

/* That nobody can write to the memory but through the mappings that we have. */
static int
check_writers(const struct live *l, struct err *e)
{
	struct memory_mapping *list = calloc(l->nmappings, sizeof(*list));
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

static int
protect(struct live *l, int uffd, struct err *e)
{
	const struct regions *r = &l->s->regions;
	struct protect_region *regions = calloc(r->n, sizeof(*regions));
	struct protect_mapping *mappings = calloc(l->nmappings, sizeof(*mappings));
	int rc = -1;

	for (size_t i = 0; regions != NULL && i < r->n; i++)
		regions[i] = (struct protect_region){ .source = r->v[i].source,
			.offset = r->v[i].offset,
			.size = r->v[i].object.size,
			.page_size = r->v[i].object.page_size };
	for (size_t i = 0; mappings != NULL && i < l->nmappings; i++)
		mappings[i] = (struct protect_mapping){ .hva = l->mappings[i].address,
			.len = l->mappings[i].length,
			.offset = l->mappings[i].offset,
			.region = l->mappings[i].region };
	if (regions == NULL || mappings == NULL) {
		err_sys(e, "mappings");
		fd_close(&uffd);
	} else {
		rc = protect_new(
		    &l->protect, uffd, regions, r->n, mappings, l->nmappings, POOL_SIZE, e);
	}
	free(regions);
	free(mappings);
	return rc;
}

static int
prepare(struct live *l, struct err *e)
{
	int uffd;

	if (!control_can_protect(l->vm))
		return err_set(e, ERR_UNSUPPORTED,
		    "the VMM (%s) cannot have its memory protected: leave out --pause-less",
		    control_vmm(l->vm));
	if (control_pid(l->vm) == 0)
		return err_set(e, ERR_UNSUPPORTED,
		    "the VMM's process cannot be seen from here, nor who else writes to its "
		    "memory: leave out --pause-less");
	if (control_protect(l->vm, &uffd, &l->mappings, &l->nmappings, e) == -1)
		return -1;
	if (protect(l, uffd, e) == -1)
		return err_wrap(e, "--pause-less");
	return check_writers(l, e) == -1 ? -1 : redirect(l, e);
}

int
live_prepare(struct live **out, struct snapshot *s, struct control *vm, struct err *e)
{
	struct live *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return err_sys(e, "write protection");
	l->s = s;
	l->vm = vm;
	if (prepare(l, e) == -1) {
		live_free(l);
		return -1;
	}
	*out = l;
	return 0;
}

int
live_arm(struct live *l, struct err *e)
{
	return protect_arm(l->protect, e);
}

int
live_check(struct live *l, struct err *e)
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
	return process_is_gone(control_pid(l->vm)) ? 0 : check_writers(l, e);
}

void
live_free(struct live *l)
{
	if (l == NULL)
		return;
	protect_free(l->protect);
	free(l->regions);
	free(l->mappings);
	free(l);
}
