/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "serve/stats.h"
#include "vmm/qemu/stream.h"

#define FD_NAME "gmem-state"
#define PIPE_SIZE (1 << 20)
#define POLL_MS_MAX 20

/* Without a byte for so long QEMU (its storage, say) hangs. */
#define STALL_S 60

/* The read end of the pipe that QEMU writes to, on its way to the caller. */
struct drain {
	struct qmp_watch watch;
	struct qemu *vm;
	struct qemu_stream *strip; /* owned; takes out RAM that was sent, or NULL */
	int (*sink)(void *arg, const void *buf, size_t len, struct err *e);
	void *arg;
	uint64_t last_ns; /* when something came last */
	char buf[PIPE_SIZE];
};

static int
drain_ready(void *arg, struct err *e)
{
	struct drain *d = arg;
	ssize_t n = read(d->watch.fd, d->buf, sizeof(d->buf));

	if (n == -1)
		return errno == EAGAIN || errno == EINTR ? 0
							 : err_sys(e, "read the VM's state");
	if (n == 0) {
		fd_close(&d->watch.fd);
		return 0;
	}
	d->last_ns = serve_now();
	if (d->strip != NULL)
		return qemu_stream_feed(d->strip, d->buf, (size_t)n, e);
	return d->sink(d->arg, d->buf, (size_t)n, e);
}

/* Takes bytes for ms, or until there are no more, unless QEMU has given none for too long. */
static int
wait_bytes(struct qemu *vm, struct drain *d, int ms, struct err *e)
{
	uint64_t now = serve_now(), end = now + (uint64_t)ms * 1000000;

	do {
		/* At least one: rounding down may leave nothing. */
		int left = (int)((end - now) / 1000000);

		if (qmp_wait(vm->qmp, MAX(left, 1), e) == -1)
			return -1;
		now = serve_now();
	} while (d->watch.fd != -1 && now < end);
	if (now - d->last_ns < STALL_S * UINT64_C(1000000000))
		return 0;
	return err_set(e, ERR_FAILED, "QEMU wrote nothing for %d s", STALL_S);
}

/* ---- RAM that QEMU sends though it is shared ---- */

static int
strip_put(void *arg, const void *buf, size_t len, struct err *e)
{
	struct drain *d = arg;

	return d->sink(d->arg, buf, len, e);
}

static int
strip_block(void *arg, struct qemu_stream_block *b, struct err *e)
{
	const struct drain *d = arg;

	for (size_t i = 0; i < d->vm->nram; i++) {
		const struct qemu_ram *ram = &d->vm->ram[i];

		if (strcmp(ram->block, b->name) != 0)
			continue;
		if (ram->size != b->size)
			return err_set(e, ERR_FAILED,
			    "RAM %s has %" PRIu64 " bytes, in the state %" PRIu64, ram->id,
			    ram->size, b->size);
		b->ours = true;
	}
	return 0;
}

static int
strip_start(struct drain *d, struct err *e)
{
	const struct qemu_stream_hooks hooks = {
		.arg = d,
		.put = strip_put,
		.block = strip_block,
	};

	for (size_t i = 0; i < d->vm->nram; i++)
		if (d->vm->ram[i].sent)
			return qemu_stream_new(&d->strip, &hooks, e);
	return 0;
}

/* That the list of blocks had each of ours, and what was sent is what we expected. */
static int
strip_check(const struct drain *d, struct err *e)
{
	const struct qemu_stream_block *b;
	size_t n, found = 0;

	if (d->strip == NULL)
		return 0;
	if (qemu_stream_end(d->strip, e) == -1)
		return -1;
	b = qemu_stream_blocks(d->strip, &n);
	for (size_t i = 0; i < n; i++)
		found += b[i].ours;
	if (found == d->vm->nram)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, "%zu of %zu RAM blocks are in the migration stream",
	    found, d->vm->nram);
}

/* Until the migration is over and all of it was read. */
static int
follow(struct qemu *vm, struct drain *d, struct err *e)
{
	char status[QEMU_STATUS_MAX];
	int r, ms = 1;
	json_t *reply;

	d->last_ns = serve_now();
	for (;;) {
		if (qemu_query_migrate(vm->qmp, status, &reply, e) == -1)
			return -1;
		if (!qemu_migrating(status))
			break;
		json_decref(reply);
		if (wait_bytes(vm, d, ms, e) == -1)
			return -1;
		ms = MIN(ms * 2, POLL_MS_MAX);
	}
	r = strcmp(status, "completed") == 0 ? 0 : qemu_migration_failed(status, reply, e);
	json_decref(reply);
	while (r == 0 && d->watch.fd != -1)
		r = wait_bytes(vm, d, POLL_MS_MAX, e);
	return r;
}

/* A pipe whose write end QEMU has under FD_NAME; *fd is our non-blocking end. */
static int
hand_over_pipe(struct qemu *vm, int *fd, struct err *e)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) == -1)
		return err_sys(e, "pipe");
	/* Only for speed: it may be refused. */
	(void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE);
	r = qmp_send_fd(vm->qmp, ends[1], FD_NAME, e);
	fd_close(&ends[1]);
	if (r == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) == -1)
		r = err_sys(e, "pipe");
	if (r == -1)
		fd_close(&ends[0]);
	else
		*fd = ends[0];
	return r;
}

static int
migrate(struct qemu *vm, struct drain *d, struct err *e)
{
	int r;

	if (hand_over_pipe(vm, &d->watch.fd, e) == -1)
		return -1;
	qmp_watch(vm->qmp, &d->watch);
	r = qmp_command(vm->qmp, "migrate", json_pack("{s:s}", "uri", "fd:" FD_NAME), NULL, e);
	if (r == 0)
		r = follow(vm, d, e);
	qmp_watch(vm->qmp, NULL);
	/* Before any further command: QEMU may hold its big lock while it writes. */
	fd_close(&d->watch.fd);
	return r;
}

/* Bytes of the blocks that QEMU is to send: others, and ours that it can't leave out. */
static int
sent_bytes(struct qemu *vm, uint64_t *sum, struct err *e)
{
	struct qemu_blocks blocks;
	char *text;
	int r;

	if (qmp_hmp(vm->qmp, "info ramblock", &text, e) == -1)
		return -1;
	r = qemu_text_blocks(text, &blocks, e);
	free(text);
	if (r == -1)
		return -1;
	*sum = 0;
	for (size_t i = 0; i < blocks.n; i++)
		if (*blocks.v[i].name != '\0')
			*sum += blocks.v[i].used;
	for (size_t i = 0; i < vm->nram && r == 0; i++) {
		const struct qemu_block *b = qemu_blocks_find(&blocks, vm->ram[i].block);

		if (b == NULL || b->used != vm->ram[i].size)
			r = err_set(
			    e, ERR_FAILED, "RAM %s was changed meanwhile", vm->ram[i].id);
		else if (!vm->ram[i].sent)
			*sum -= b->used;
	}
	qemu_blocks_fini(&blocks);
	return r;
}

/* The block that explains why so many bytes too many were sent. */
static const char *
culprit(const struct qemu *vm, uint64_t excess)
{
	for (size_t i = 0; i < vm->nram; i++)
		if (vm->ram[i].size == excess)
			return vm->ram[i].id;
	return vm->ram[0].id;
}

/* Bytes of all blocks that QEMU did not leave out. */
static int
migrated_bytes(struct qemu *vm, uint64_t *total, struct err *e)
{
	char status[QEMU_STATUS_MAX];
	const json_t *value;
	json_t *reply;
	int r = 0;

	if (qemu_query_migrate(vm->qmp, status, &reply, e) == -1)
		return -1;
	value = json_object_get(json_object_get(reply, "ram"), "total");
	if (json_is_integer(value) && json_integer_value(value) >= 0)
		*total = (uint64_t)json_integer_value(value);
	else
		r = err_set(e, ERR_CORRUPT, "\"query-migrate\" does not tell ram.total");
	json_decref(reply);
	return r;
}

/*
 * ram.total of query-migrate is the size of all blocks that are not left out
 * (measured: to the byte, 7.2), computed when asked: x-ignore-shared must still be on.
 * More means that RAM went into the stream, less that QEMU left out what we don't save.
 */
static int
check_left_out(struct qemu *vm, struct err *e)
{
	uint64_t sum, total;

	if (sent_bytes(vm, &sum, e) == -1 || migrated_bytes(vm, &total, e) == -1)
		return -1;
	if (total > sum)
		return err_set(e, ERR_UNSUPPORTED,
		    "QEMU put RAM %s into its state in spite of x-ignore-shared "
		    "(%" PRIu64 " bytes of RAM instead of %" PRIu64
		    "): use memory-backend-file,share=on,mem-path=/dev/shm/NAME",
		    culprit(vm, total - sum), total, sum);
	if (total < sum)
		return err_set(e, ERR_UNSUPPORTED,
		    "QEMU left %" PRIu64 " bytes of a device's shared memory out of its state",
		    sum - total);
	return 0;
}

/* After a failure: whatever is left of the migration must go. */
static void
clean_up(struct qemu *vm)
{
	struct err ignored = ERR_INIT;
	int stop_fd = qmp_set_stop(vm->qmp, -1);

	/* A descriptor that no migration used up stays with QEMU until it is closed. */
	if (qemu_cancel(vm, &ignored) == 0) {
		qmp_command(
		    vm->qmp, "closefd", json_pack("{s:s}", "fdname", FD_NAME), NULL, &ignored);
		qemu_restore_settings(vm, &ignored);
	}
	qmp_set_stop(vm->qmp, stop_fd);
}

int
qemu_save_state(struct qemu *vm,
    int (*sink)(void *arg, const void *buf, size_t len, struct err *e), void *arg,
    struct err *e)
{
	struct drain *d;
	int r = -1;

	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return err_sys(e, "the VM's state");
	d->watch =
	    (struct qmp_watch){ .fd = -1, .events = POLLIN, .ready = drain_ready, .arg = d };
	d->vm = vm;
	d->sink = sink;
	d->arg = arg;
	if (strip_start(d, e) == 0 && qemu_change_settings(vm, e) == 0 &&
	    migrate(vm, d, e) == 0 && check_left_out(vm, e) == 0 && strip_check(d, e) == 0 &&
	    qemu_restore_settings(vm, e) == 0)
		r = 0;
	if (r == -1)
		clean_up(vm);
	qemu_stream_free(d->strip);
	free(d);
	return r == 0 ? 0 : err_wrap(e, "saving the VM's state");
}
