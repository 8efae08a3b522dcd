/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/preflight.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "base/pool.h"
#include "memory/limits.h"
#include "serve/extents.h"
#include "serve/server.h"
#include "vmm/handoff.h"

/* Of the page server, the hand-off with a few processes, and what we were started with. */
#define DESCRIPTORS 64

static void
warn(void *arg, const char *text)
{
	(void)arg;
	log_warn("%s", text);
}

static int
check(const struct limits_need *need, struct err *e)
{
	struct limits *l = malloc(sizeof(*l));
	int rc;

	if (l == NULL)
		return err_sys(e, "limits");
	limits_read(l);
	rc = limits_check(l, need, warn, NULL, e);
	free(l);
	return rc;
}

int
preflight_descriptors(const struct image *img, struct err *e)
{
	const struct manifest *m = &img->manifest;
	struct limits_need need = {
		.descriptors = MAX(GUEST_FIRST_NUMBER + DESCRIPTORS + m->nregions + m->nstates,
		    HANDOFF_POLLED + DESCRIPTORS),
	};

	return check(&need, e);
}

static void
add_huge(struct limits_need *need, uint64_t page_size, uint64_t bytes)
{
	size_t i = 0;

	while (i < HUGEPAGE_POOLS - 1 && need->huge[i].page_size != 0 &&
	       need->huge[i].page_size != page_size)
		i++;
	need->huge[i].page_size = page_size;
	need->huge[i].bytes += bytes;
}

/* Where serving splits a mapping: at each end of what is registered of it. */
static uint64_t
mappings(const struct object *o)
{
	return 2 * MIN(o->size / (2 * EXTENT_BLOCK) + 1, (uint64_t)EXTENTS_MAX) + 1;
}

static void
add_region(struct limits_need *need, const struct object *o, bool ours, bool given)
{
	bool huge = strcmp(o->kind, "hugetlb") == 0;

	need->memory += o->size; /* 256 of at most 64 TiB */
	need->mappings += mappings(o);
	if (ours)
		need->file = MAX(need->file, o->size);
	if (huge && ours)
		add_huge(need, o->page_size, align_up(o->size, o->page_size));
	if (huge)
		return;
	need->charged += o->size;
	if (ours && given)
		need->given += o->top.stored * PAGE_GRANULE;
}

int
preflight_memory(const struct options *o, const struct guest *g, struct err *e)
{
	const struct manifest *m = &g->img->manifest;
	bool eager = o->engine == SERVE_EAGER, given = eager || o->background != BACKGROUND_OFF;
	struct limits_need need = { 0 };

	for (size_t i = 0; i < m->nregions; i++)
		add_region(&need, &m->regions[i], g->memory[i].used, given);
	for (size_t i = 0; i < m->nstates; i++)
		if (g->states[i].fd != -1)
			need.file = MAX(need.file, m->states[i].size);
	if (eager)
		need.mappings = 0;
	else
		need.locked =
		    server_locked_least(g->img, o->threads != 0 ? o->threads : pool_ncpus());
	return check(&need, e);
}
