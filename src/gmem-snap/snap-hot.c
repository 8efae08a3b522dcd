/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "image/pack.h"

/* The hot section of an image in the making. */

int
snapshot_pack_hot(struct snapshot *s, const struct hot_input *input, struct err *e)
{
	const struct hot_pack_params params = {
		.writer = s->writer,
		.level = s->level,
		.nthreads = s->o->nthreads,
		.input = *input,
		.step = snapshot_step,
		.arg = s,
	};
	struct manifest *m = snapshot_manifest(s);

	if (hot_pack(&s->hot, &params, e) == -1)
		return -1;
	/* Whose recording the first trace is. */
	m->hot->has_trace = true;
	memcpy(m->hot->trace, s->traces.v[0].root, DIGEST_SIZE);
	log_info("%zu hot pages, %u of them not zero", s->hot.n, s->hot.nstored);
	return hot_set_new(&s->hot_set, s->hot.pages, s->hot.n, e);
}

/* ---- of memory ---- */

struct reader {
	const struct regions *regions;
	uint8_t page[PAGE_GRANULE]; /* what is only looked at */
};

static int
reader_new(void **out, void *arg, struct err *e)
{
	struct reader *r = malloc(sizeof(*r));

	if (r == NULL)
		return err_sys(e, "hot pages");
	r->regions = arg;
	*out = r;
	return 0;
}

static int
read_page(void *reader, const struct hot_page *p, uint8_t *buf, struct err *e)
{
	struct reader *r = reader;
	const struct region *region = &r->regions->v[p->region];
	uint64_t off = p->page * PAGE_GRANULE;
	size_t len = (size_t)MIN(region->object.size - off, (uint64_t)PAGE_GRANULE);

	if (buf == NULL)
		buf = r->page;
	memset(buf + len, 0, PAGE_GRANULE - len);
	if (memory_source_read(region->source, buf, len, region->offset + off, e) == -1)
		return -1;
	return memory_is_zero(buf, len) ? 0 : 1;
}

/* What a manifest of these regions would be. */
static struct object *
list_objects(const struct regions *r, struct err *e)
{
	struct object *list = calloc(r->n, sizeof(*list));

	if (list == NULL)
		err_sys(e, "hot pages");
	for (size_t i = 0; list != NULL && i < r->n; i++)
		list[i] = r->v[i].object;
	return list;
}

int
snapshot_hot_memory(struct snapshot *s, struct err *e)
{
	static const uint8_t no_root[DIGEST_SIZE];
	const struct hot_input input = { reader_new, free, read_page, &s->regions };
	struct manifest m = { .nregions = s->regions.n };
	int rc = -1;

	m.regions = list_objects(&s->regions, e);
	if (m.regions != NULL && hot_choose(&s->hot, &s->traces, &m, no_root, e) == 0)
		rc = snapshot_pack_hot(s, &input, e);
	free(m.regions);
	return rc;
}
