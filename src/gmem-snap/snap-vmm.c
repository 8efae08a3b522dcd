/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <inttypes.h>

#include "base/log.h"
#include "gmem-snap/stop.h"
#include "vmm/driver.h"

#define ANSWER_MS 60000

/* A VMM that is driven over its API: the driver does it all, and puts it here. */

static int
put_fact(void *arg, const char *key, const char *value, struct err *e)
{
	struct snapshot *s = arg;

	key = arena_strdup(snapshot_arena(s), key);
	return key == NULL ? err_sys(e, "facts about the VMM")
			   : snapshot_fact(s, key, value, e);
}

static int
put_command(void *arg, char *const *argv, size_t argc, struct err *e)
{
	return snapshot_command(arg, argv, argc, e);
}

static int
start(void *arg, struct err *e)
{
	return snapshot_start(arg, e);
}

static void
paused(void *arg)
{
	struct snapshot *s = arg;

	s->pause_ns = snapshot_now();
	s->vm = VMM_UNKNOWN; /* until we are told */
}

static void
releasing(void *arg)
{
	(void)arg;
	stop_noticed();
}

static void
released(void *arg, enum vmm_outcome outcome, const struct err *why)
{
	struct snapshot *s = arg;

	s->resume_ns = s->pause_ns != 0 ? snapshot_now() : 0;
	s->vm = outcome;
	if (outcome == VMM_UNKNOWN && why != NULL)
		s->resume = *why;
}

static int
state_begin(void *arg, const char *name, const char *kind, struct err *e)
{
	struct snapshot *s = arg;

	return stop_check(e) == -1 ? -1 : stream_begin(s->stream, name, kind, e);
}

static int
state_put(void *arg, const void *buf, size_t len, struct err *e)
{
	struct snapshot *s = arg;

	return stop_check(e) == -1 ? -1 : stream_put(s->stream, buf, len, e);
}

static int
state_end(void *arg, struct err *e)
{
	struct snapshot *s = arg;

	return stream_end(s->stream, e);
}

/* What the image says of it has to live as long as the image. */
static int
keep_texts(struct snapshot *s, struct object *o, const struct object *from, struct err *e)
{
	struct arena *arena = snapshot_arena(s);

	*o = *from;
	o->name = arena_strdup(arena, from->name);
	o->kind = arena_strdup(arena, from->kind);
	o->segments = NULL;
	if (o->nsegments != 0)
		o->segments = arena_array(arena, o->nsegments, sizeof(*o->segments));
	if (o->name == NULL || o->kind == NULL || (o->nsegments != 0 && o->segments == NULL))
		return err_sys(e, "region");
	for (size_t i = 0; i < o->nsegments; i++)
		o->segments[i] = from->segments[i];
	return 0;
}

static int
add_region(void *arg, const struct object *o, struct memory_source *source, uint64_t offset,
    struct err *e)
{
	struct snapshot *s = arg;
	struct object kept;

	if (keep_texts(s, &kept, o, e) == -1) {
		memory_source_free(source);
		return -1;
	}
	log_info("region %s: %" PRIu64 " bytes, %s", kept.name, kept.size, kept.kind);
	return regions_add(&s->regions, &kept, source, offset, e);
}

static int
save_memory(void *arg, struct err *e)
{
	return snapshot_memory(arg, e);
}

static int
commit(void *arg, struct err *e)
{
	return snapshot_commit(arg, e);
}

int
snap_vmm(struct snapshot *s, struct err *e)
{
	const struct vmm_save how = {
		.socket = s->o->api,
		.pid = s->o->pid,
		.leave = s->o->leave,
		.timeout_ms = ANSWER_MS,
		.stop_fd = stop_fd(),
	};
	const struct vmm_sink sink = {
		.arg = s,
		.fact = put_fact,
		.command = put_command,
		.start = start,
		.paused = paused,
		.releasing = releasing,
		.released = released,
		.state_begin = state_begin,
		.state_put = state_put,
		.state_end = state_end,
		.region = add_region,
		.memory = save_memory,
		.commit = commit,
	};

	return s->o->driver->save(&how, &sink, e);
}
