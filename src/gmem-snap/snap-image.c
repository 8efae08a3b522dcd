/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "codec/codec.h"
#include "gmem-snap/hot-pack.h"
#include "gmem-snap/repack.h"
#include "image/pack.h"
#include "image/reader.h"

/* Writing an image anew: with a hot section, or without the one it has. */

int
snapshot_open_image(struct snapshot *s, struct err *e)
{
	const struct options *o = s->o;
	const struct manifest *m;

	if (image_open_expected(&s->from, o->from, o->expect_root, e) == -1)
		return -1;
	m = &s->from->manifest;
	if (!o->chunk_size_given)
		s->chunk_size = s->from->g.chunk_size;
	if (!o->level_given)
		s->level = MIN(MAX(m->level, codec_level_min()), codec_level_max());
	return 0;
}

/* ---- what is said of it ---- */

/* What the user says now takes the place of what was said before. */
static int
merge_annotations(struct snapshot *s, const struct pairs *old, struct err *e)
{
	struct manifest *m = snapshot_manifest(s);
	const struct pairs *new = &s->o->annotations;
	struct pairs all = { 0 };

	all.list = arena_array(&m->arena, old->n + new->n, sizeof(*all.list));
	if (all.list == NULL)
		return err_sys(e, "annotations");
	for (size_t i = 0; i < old->n; i++)
		if (pairs_get(new, old->list[i].key) == NULL)
			all.list[all.n++] = old->list[i];
	for (size_t i = 0; i < new->n; i++)
		all.list[all.n++] = new->list[i];
	m->annotations = all;
	return 0;
}

/* All of it lives in the arena of the old image, which stays open. */
static int
copy_manifest(struct snapshot *s, struct err *e)
{
	const struct manifest *from = &s->from->manifest;
	struct manifest *m = snapshot_manifest(s);

	if (!s->o->timestamp)
		m->created = from->created;
	m->vmm = from->vmm;
	m->command = from->command;
	m->ncommand = from->ncommand;
	m->unknown = from->unknown;
	return merge_annotations(s, &from->annotations, e);
}

/* ---- hot pages ---- */

static int
reader_new(void **reader, void *arg, struct err *e)
{
	return image_reader_new((struct image_reader **)reader, arg, e);
}

static void
reader_free(void *reader)
{
	image_reader_free(reader);
}

static int
read_page(void *reader, const struct hot_page *p, uint8_t *buf, struct err *e)
{
	const struct image *img = image_reader_image(reader);
	const struct object *o = &img->manifest.regions[p->region];
	const uint8_t *page;
	struct place place;
	int there;

	there = image_reader_place(reader, o, p->page, &place, e);
	if (there != 1 || buf == NULL)
		return there;
	if (image_reader_get(reader, &place, &page, e) == -1)
		return -1;
	if (memory_is_zero(page, PAGE_GRANULE))
		return err_set(e, ERR_CORRUPT, "%s: %s: page %llu is stored and zero",
		    img->path, o->name, (unsigned long long)p->page);
	memcpy(buf, page, PAGE_GRANULE);
	return 1;
}

static int
pack_hot(struct snapshot *s, struct err *e)
{
	const struct hot_input input = { reader_new, reader_free, read_page, s->from };

	if (s->traces.n == 0)
		return 0;
	if (hot_choose(&s->hot, &s->traces, &s->from->manifest, s->from->root, e) == -1)
		return -1;
	return snapshot_pack_hot(s, &input, e);
}

/* ---- objects ---- */

/* Regions and states come as they do in the file: an index ends each of them. */
static int
copy_objects(struct snapshot *s, struct repack *r, struct err *e)
{
	const struct manifest *m = &s->from->manifest;
	size_t region = 0, state = 0;

	while (region < m->nregions || state < m->nstates) {
		const struct object *o;
		bool is_state;

		is_state = state < m->nstates &&
			   (region == m->nregions ||
			       m->states[state].top.offset <= m->regions[region].top.offset);
		o = is_state ? &m->states[state++] : &m->regions[region++];
		if (repack_object(r, o, is_state, (uint32_t)region - !is_state, e) == -1)
			return -1;
		s->done += o->size;
	}
	return 0;
}

static int
copy_image(struct snapshot *s, struct err *e)
{
	struct repack_params params = {
		.from = s->from,
		.writer = s->writer,
		.level = s->level,
		.same_level = s->level == s->from->manifest.level,
		.hot = s->hot_set,
		.nthreads = s->o->nthreads,
		.step = snapshot_step,
		.arg = s,
	};
	struct repack *r;
	int rc = -1;

	if (repack_new(&r, &params, e) == 0) {
		rc = copy_objects(s, r, e);
		repack_free(r);
	}
	return rc;
}

int
snap_image(struct snapshot *s, struct err *e)
{
	const struct manifest *m = &s->from->manifest;
	int rc;

	for (size_t i = 0; i < m->nregions; i++)
		s->total += m->regions[i].size;
	for (size_t i = 0; i < m->nstates; i++)
		s->total += m->states[i].size;
	progress_start(
	    &s->progress, "packing", s->o->log_level < LOG_LEVEL_WARN, s->o->progress_fd);
	rc = copy_manifest(s, e) == -1 || pack_hot(s, e) == -1 ? -1 : copy_image(s, e);
	progress_end(&s->progress, rc == 0);
	return rc == 0 ? snapshot_commit(s, e) : -1;
}
