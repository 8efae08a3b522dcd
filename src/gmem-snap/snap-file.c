/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"

/* Importing raw memory files. */

static int
name_files(struct snapshot *s, struct err *e)
{
	const struct pairs *files = &s->o->files;
	const char **names;
	int rc;

	names = calloc(files->n, sizeof(*names));
	if (names == NULL)
		return err_sys(e, "names of regions");
	for (size_t i = 0; i < files->n; i++)
		names[i] = files->list[i].key != NULL ? files->list[i].key : "ram";
	rc = region_names(names, files->n, snapshot_arena(s), e);
	for (size_t i = 0; rc == 0 && i < files->n; i++)
		s->regions.v[i].object.name = names[i];
	free(names);
	return rc;
}

static int
open_file(struct region *r, const char *path, struct err *e)
{
	int fd;

	/* Not to wait for whoever might write to a pipe. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1)
		return err_sys(e, "open %s", path);
	if (memory_source_open(&r->source, fd, MEMORY_FILE, 0, e) == -1)
		return err_wrap(e, "%s", path);
	r->object.size = memory_source_size(r->source);
	r->object.kind = memory_kind_name(MEMORY_FILE);
	r->object.page_size = PAGE_GRANULE;
	if (r->object.size == 0)
		return err_set(e, ERR_FAILED, "%s: is empty", path);
	return 0;
}

static int
open_diff(struct region *r, const char *path, struct err *e)
{
	uint64_t holes;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1)
		return err_sys(e, "open %s", path);
	if (memory_source_add_layer(r->source, fd, &holes, e) == -1)
		return err_wrap(e, "%s", path);
	if (holes == 0)
		log_warn("%s: has no holes, so it replaces all that is below it", path);
	log_info("%s: replaces %" PRIu64 " bytes, leaves %" PRIu64, path,
	    r->object.size - holes, holes);
	return 0;
}

static int
open_diffs(struct snapshot *s, struct err *e)
{
	for (size_t i = 0; i < s->o->ndiffs; i++) {
		const struct diff *d = &s->o->diffs[i];

		if (open_diff(&s->regions.v[d->file], d->path, e) == -1)
			return -1;
	}
	return 0;
}

int
snap_files(struct snapshot *s, struct err *e)
{
	const struct pairs *files = &s->o->files;

	if (regions_alloc(&s->regions, files->n, e) == -1 || name_files(s, e) == -1)
		return -1;
	for (size_t i = 0; i < files->n; i++)
		if (open_file(&s->regions.v[i], files->list[i].value, e) == -1)
			return -1;
	if (open_diffs(s, e) == -1)
		return -1;
	if (snapshot_start(s, e) == -1 || snapshot_memory(s, e) == -1)
		return -1;
	return snapshot_commit(s, e);
}
