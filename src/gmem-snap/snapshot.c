/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "gmem-snap/stop.h"
#include "gmem-snap/text.h"

#define FACTS_MAX 16

uint64_t
snapshot_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

struct manifest *
snapshot_manifest(struct snapshot *s)
{
	return image_writer_manifest(s->writer);
}

struct arena *
snapshot_arena(struct snapshot *s)
{
	return &snapshot_manifest(s)->arena;
}

static int
put_timestamp(struct snapshot *s, struct err *e)
{
	struct manifest *m = snapshot_manifest(s);
	char text[32];
	time_t now = time(NULL);
	struct tm tm;

	if (!s->o->timestamp)
		return 0;
	if (gmtime_r(&now, &tm) == NULL ||
	    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return err_set(e, ERR_FAILED, "the clock cannot be read");
	m->created = arena_strdup(&m->arena, text);
	return m->created == NULL ? err_sys(e, "time of creation") : 0;
}

/* Some bytes of a file, or of a pipe that was opened without waiting for its writer. */
static ssize_t
read_some(int fd, void *buf, size_t len, struct err *e)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = stop_fd(), .events = POLLIN },
	};

	for (;;) {
		ssize_t n;

		if (poll(p, 2, -1) == -1 && errno != EINTR)
			return err_sys(e, "poll");
		if (stop_check(e) == -1)
			return -1;
		n = read(fd, buf, len);
		if (n != -1)
			return n;
		if (errno != EAGAIN && errno != EINTR)
			return err_sys(e, "read");
	}
}

static int
copy_state(struct snapshot *s, int fd, struct err *e)
{
	static char buf[1 << 16];
	ssize_t n;

	while ((n = read_some(fd, buf, sizeof(buf), e)) > 0)
		if (stream_put(s->stream, buf, (size_t)n, e) == -1)
			return -1;
	return (int)n;
}

static int
put_state(struct snapshot *s, const struct pair *state, struct err *e)
{
	int fd, r = -1;

	fd = open(state->value, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd == -1)
		return err_sys(e, "state %s: open %s", state->key, state->value);
	if (stream_begin(s->stream, state->key, "file", e) == 0) {
		r = copy_state(s, fd, e);
		if (r == 0)
			r = stream_end(s->stream, e);
		if (r == -1 && e->kind != ERR_INTERRUPTED)
			err_wrap(e, "state %s: %s", state->key, state->value);
	}
	fd_close(&fd);
	return r;
}

int
snapshot_state(struct snapshot *s, int fd, uint64_t size, struct err *e)
{
	static char buf[1 << 16];
	size_t n;

	for (uint64_t done = 0; done < size; done += n) {
		n = (size_t)MIN(size - done, (uint64_t)sizeof(buf));
		if (stop_check(e) == -1 || fd_pread_full(fd, buf, n, done, e) == -1 ||
		    stream_put(s->stream, buf, n, e) == -1)
			return -1;
	}
	return 0;
}

int
snapshot_open(struct snapshot *s, const struct options *o, struct err *e)
{
	struct image_params params = {
		.replace = o->force, .hot = o->hot.n != 0, .digest = o->digest
	};

	*s = (struct snapshot){
		.o = o,
		.chunk_size = o->chunk_size,
		.level = o->level,
		.start_ns = snapshot_now(),
	};
	if ((o->mode == SNAP_IMAGE && snapshot_open_image(s, e) == -1) ||
	    hot_traces_read(&s->traces, o->hot.v, o->hot.n, e) == -1)
		return -1;
	params.chunk_size = s->chunk_size;
	params.level = s->level;
	if (image_writer_new(&s->writer, o->output, &params, e) == -1 ||
	    stream_new(&s->stream, s->writer, s->level, e) == -1 || put_timestamp(s, e) == -1)
		return -1;
	snapshot_manifest(s)->annotations = o->annotations;
	for (size_t i = 0; i < o->states.n; i++)
		if (put_state(s, &o->states.list[i], e) == -1)
			return -1;
	return 0;
}

void
snapshot_fini(struct snapshot *s)
{
	capture_free(s->capture);
	regions_fini(&s->regions);
	stream_free(s->stream);
	image_writer_free(s->writer);
	hot_set_free(s->hot_set);
	hot_choice_free(&s->hot);
	hot_traces_free(&s->traces);
	image_close(s->from);
}

/* Between two jobs: the user may want out, or to know how far we are. */
int
snapshot_step(void *arg, uint64_t done, struct err *e)
{
	struct snapshot *s = arg;

	progress_update(&s->progress, s->done + done, s->total);
	return stop_check(e);
}

/* Whoever fills it may begin at any time: before it is read, and after that. */
static int
check_whole(const struct regions *regions, struct err *e)
{
	for (size_t i = 0; i < regions->n; i++) {
		const struct region *r = &regions->v[i];

		if (r->source != NULL &&
		    memory_source_is_filling(r->source, r->offset, r->object.size))
			return err_set(e, ERR_UNSUPPORTED,
			    "%s is itself still being restored: wait until gmem-restore says "
			    "that it is complete",
			    r->object.name);
	}
	return 0;
}

int
snapshot_start(struct snapshot *s, struct err *e)
{
	struct capture_params params = {
		.writer = s->writer,
		.level = s->level,
		.nthreads = s->o->nthreads,
		.step = snapshot_step,
		.arg = s,
	};

	progress_start(
	    &s->progress, "saving", s->o->log_level < LOG_LEVEL_WARN, s->o->progress_fd);
	return check_whole(&s->regions, e) == -1 ? -1 : capture_new(&s->capture, &params, e);
}

void
snapshot_stop(struct snapshot *s)
{
	capture_free(s->capture);
	s->capture = NULL;
}

static int
put_region(struct snapshot *s, struct region *r, struct err *e)
{
	const struct hot_region hot = { s->hot_set, (uint32_t)(r - s->regions.v) };
	const struct object *o = &r->object;

	if (r->input.read == NULL)
		r->input = capture_source(r->source);
	if (image_writer_begin(s->writer, o, false, e) == -1 ||
	    capture_memory(s->capture, &r->input, r->offset, o->size, &hot, e) == -1 ||
	    image_writer_end(s->writer, 0, e) == -1)
		return -1;
	s->done += o->size;
	return 0;
}

int
snapshot_memory(struct snapshot *s, struct err *e)
{
	struct regions *r = &s->regions;
	int rc = stop_check(e);

	s->total = regions_size(r);
	if (rc == 0 && s->traces.n != 0)
		rc = snapshot_hot_memory(s, e);
	for (size_t i = 0; rc == 0 && i < r->n; i++)
		rc = put_region(s, &r->v[i], e);
	if (rc == 0)
		rc = check_whole(r, e);
	progress_end(&s->progress, rc == 0);
	return rc;
}

int
snapshot_commit(struct snapshot *s, struct err *e)
{
	int rc;

	if (stop_check(e) == -1)
		return -1;
	rc = image_writer_commit(s->writer, s->root, e);
	s->image_size = image_writer_size(s->writer);
	s->committed = image_writer_published(s->writer);
	return rc;
}

int
snapshot_fact(struct snapshot *s, const char *key, const char *value, struct err *e)
{
	struct manifest *m = snapshot_manifest(s);
	struct pairs *vmm = &m->vmm;

	if (*value == '\0' || !text_is_utf8(value))
		return 0;
	if (vmm->list == NULL)
		vmm->list = arena_array(&m->arena, FACTS_MAX, sizeof(*vmm->list));
	if (vmm->list == NULL)
		return err_sys(e, "facts about the VMM");
	if (vmm->n == FACTS_MAX)
		return err_set(e, ERR_FAILED, "more than %d facts about the VMM", FACTS_MAX);
	value = arena_strdup(&m->arena, value);
	if (value == NULL)
		return err_sys(e, "facts about the VMM");
	vmm->list[vmm->n++] = (struct pair){ key, value };
	return 0;
}

int
snapshot_command(struct snapshot *s, char *const *argv, size_t argc, struct err *e)
{
	struct manifest *m = snapshot_manifest(s);
	const char **copy;
	size_t bytes = 0;

	for (size_t i = 0; i < argc; i++) {
		bytes += strlen(argv[i]);
		if (strlen(argv[i]) > TEXT_LENGTH_MAX || !text_is_utf8(argv[i]))
			return 0;
	}
	if (argc > TEXT_LENGTH_MAX || bytes > MANIFEST_SIZE_MAX / 4)
		return 0;
	copy = arena_array(&m->arena, argc, sizeof(*copy));
	for (size_t i = 0; copy != NULL && i < argc; i++) {
		copy[i] = arena_strdup(&m->arena, argv[i]);
		if (copy[i] == NULL)
			copy = NULL;
	}
	if (copy == NULL)
		return err_sys(e, "command line of the VMM");
	m->command = copy;
	m->ncommand = argc;
	return 0;
}
