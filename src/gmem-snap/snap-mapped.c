/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "gmem-snap/stop.h"
#include "memory/kind.h"
#include "vmm/qemu/mapped.h"

/* Importing a VM that QEMU has saved with mapped-ram. */

static int
name_regions(struct snapshot *s, const struct qemu_stream_block *const *blocks, size_t n,
    const char **names, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		names[i] = qemu_mapped_id(blocks[i]);
	return region_names(names, n, snapshot_arena(s), e);
}

static int
add_regions(struct snapshot *s, struct qemu_mapped *m, const char **names, struct err *e)
{
	const struct qemu_stream_block *const *blocks;
	size_t n;

	blocks = qemu_mapped_regions(m, &n);
	for (size_t i = 0; i < n; i++) {
		const struct object o = { .name = names[i],
			.kind = memory_kind_name(MEMORY_FILE),
			.size = blocks[i]->size,
			.page_size = PAGE_GRANULE };
		struct memory_source *source;

		if (qemu_mapped_source(m, i, &source, e) == -1 ||
		    regions_add(&s->regions, &o, source, 0, e) == -1)
			return err_wrap(e, "%s", s->o->mapped_ram);
		log_info("RAM %s: %" PRIu64 " bytes at 0x%" PRIx64, names[i], blocks[i]->size,
		    blocks[i]->gpa);
	}
	return 0;
}

static int
open_regions(struct snapshot *s, struct qemu_mapped *m, struct err *e)
{
	const struct qemu_stream_block *const *blocks;
	const char **names;
	size_t n;
	int r = -1;

	blocks = qemu_mapped_regions(m, &n);
	names = calloc(n, sizeof(*names));
	if (names == NULL)
		return err_sys(e, "names of regions");
	if (name_regions(s, blocks, n, names, e) == 0)
		r = add_regions(s, m, names, e);
	free(names);
	return r;
}

static int
sink(void *arg, const void *buf, size_t len, struct err *e)
{
	return stop_check(e) == -1 ? -1 : stream_put(arg, buf, len, e);
}

static int
put_state(struct snapshot *s, struct qemu_mapped *m, struct err *e)
{
	if (snapshot_fact(s, "kind", "qemu", e) == -1 ||
	    snapshot_fact(s, "machine", qemu_mapped_machine(m), e) == -1 ||
	    stream_begin(s->stream, "device", "qemu-migration", e) == -1)
		return -1;
	if (qemu_mapped_state(m, sink, s->stream, e) == -1)
		return err_wrap(e, "%s", s->o->mapped_ram);
	return stream_end(s->stream, e);
}

int
snap_mapped(struct snapshot *s, struct err *e)
{
	const struct arg_list *ids = &s->o->regions;
	struct qemu_mapped *m;
	int r = -1;

	if (qemu_mapped_open(&m, s->o->mapped_ram, ids->v, ids->n, e) == -1)
		return -1;
	if (put_state(s, m, e) == 0 && open_regions(s, m, e) == 0 &&
	    snapshot_start(s, e) == 0 && snapshot_memory(s, e) == 0)
		r = snapshot_commit(s, e);
	qemu_mapped_close(m);
	return r;
}
