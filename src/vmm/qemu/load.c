/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/load.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "serve/stats.h"
#include "vmm/qemu/impl.h"

#define FD_NAME "gmem-state"
#define POLL_MS_MAX 10

/* The write end of the pipe that QEMU reads, and what waits to go into it. */
struct feed {
	struct qmp_watch watch;
	const struct qemu_load *how;
	uint64_t last_ns; /* when QEMU took something last */
	size_t at, len; /* of buf */
	char buf[1 << 16];
};

/* write(2), but EPIPE is no signal: what the program does with SIGPIPE is not ours to decide.
 */
static ssize_t
write_quietly(int fd, const void *buf, size_t len)
{
	const struct timespec now = { 0 };
	sigset_t sigpipe, old;
	ssize_t n;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &sigpipe, &old);
	n = write(fd, buf, len);
	if (n == -1 && errno == EPIPE) {
		sigtimedwait(&sigpipe, NULL, &now);
		errno = EPIPE;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return n;
}

static int
feed_ready(void *arg, struct err *e)
{
	struct feed *f = arg;
	ssize_t n;

	if (f->at == f->len) {
		f->at = 0;
		if (f->how->read(f->how->arg, f->buf, sizeof(f->buf), &f->len, e) == -1)
			return -1;
		if (f->len == 0) {
			fd_close(&f->watch.fd);
			return 0;
		}
	}
	n = write_quietly(f->watch.fd, f->buf + f->at, f->len - f->at);
	if (n > 0) {
		f->at += (size_t)n;
		f->last_ns = serve_now();
	} else if (n == -1 && errno == EPIPE) {
		/* QEMU wants no more: query-migrate will tell why. */
		fd_close(&f->watch.fd);
	} else if (n == -1 && errno != EAGAIN && errno != EINTR) {
		return err_sys(e, "write the VM's state");
	}
	return 0;
}

static int
set_ignore_shared(struct qmp *q, bool state, struct err *e)
{
	return qmp_command(q, "migrate-set-capabilities",
	    json_pack("{s:o}", "capabilities", qemu_capability("x-ignore-shared", state)), NULL,
	    e);
}

/* Must be waiting for a state, and leave out the RAM as the saved VM did. */
static int
prepare(struct qmp *q, struct err *e)
{
	char status[QEMU_STATUS_MAX];

	if (qemu_query_status(q, status, e) == -1)
		return -1;
	if (strcmp(status, "inmigrate") != 0)
		return err_set(e, ERR_FAILED,
		    "QEMU is \"%s\" and waits for no state: start it with -incoming defer",
		    status);
	return set_ignore_shared(q, true, e);
}

/* A pipe whose read end QEMU has under FD_NAME; *fd is our non-blocking end. */
static int
hand_over_pipe(struct qmp *q, int *fd, struct err *e)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) == -1)
		return err_sys(e, "pipe");
	r = qmp_send_fd(q, ends[0], FD_NAME, e);
	fd_close(&ends[0]);
	if (r == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == -1)
		r = err_sys(e, "pipe");
	if (r == -1)
		fd_close(&ends[1]);
	else
		*fd = ends[1];
	return r;
}

static json_t *
incoming_args(const struct qmp *q)
{
	json_t *args = json_pack("{s:s}", "uri", "fd:" FD_NAME);

	/* Since 9.1 QEMU can stay to tell what was wrong; before it exits. */
	if (qmp_at_least(q, 9, 1))
		json_object_set_new(args, "exit-on-error", json_false());
	return args;
}

/* Until the state is in. */
static int
follow(struct qmp *q, struct feed *f, struct err *e)
{
	char status[QEMU_STATUS_MAX];
	json_t *reply;
	int r, ms = 1;

	for (;;) {
		if (qemu_query_migrate(q, status, &reply, e) == -1)
			return -1;
		if (strcmp(status, "none") != 0 && !qemu_migrating(status))
			break;
		json_decref(reply);
		if (qmp_wait(q, ms, e) == -1)
			return -1;
		if (serve_now() - f->last_ns > (uint64_t)f->how->incoming_ms * 1000000)
			return err_set(e, ERR_FAILED, "no progress within %d ms (%s)",
			    f->how->incoming_ms, status);
		if (f->watch.fd == -1)
			ms = MIN(ms * 2, POLL_MS_MAX);
	}
	r = strcmp(status, "completed") == 0 ? 0 : qemu_migration_failed(status, reply, e);
	json_decref(reply);
	return r;
}

static int
incoming(struct qmp *q, const struct qemu_load *how, struct err *e)
{
	struct feed *f;
	int r = -1;

	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return err_sys(e, "the VM's state");
	f->watch =
	    (struct qmp_watch){ .fd = -1, .events = POLLOUT, .ready = feed_ready, .arg = f };
	f->how = how;
	f->last_ns = serve_now();
	if (hand_over_pipe(q, &f->watch.fd, e) == 0) {
		qmp_watch(q, &f->watch);
		r = qmp_command(q, "migrate-incoming", incoming_args(q), NULL, e);
		if (r == 0)
			r = follow(q, f, e);
		qmp_watch(q, NULL);
		fd_close(&f->watch.fd);
	}
	free(f);
	return r;
}

/* Makes it run, or stay paused, whatever the state says. */
static int
settle(struct qmp *q, bool resume, struct err *e)
{
	char status[QEMU_STATUS_MAX];
	bool running;

	if (qemu_query_status(q, status, e) == -1)
		return -1;
	running = strcmp(status, "running") == 0;
	if (running != resume &&
	    (qmp_command(q, resume ? "cont" : "stop", NULL, NULL, e) == -1 ||
		qemu_query_status(q, status, e) == -1))
		return -1;
	running = strcmp(status, "running") == 0;
	if (resume && !running)
		return err_set(e, ERR_FAILED, "the VM is \"%s\" after \"cont\"", status);
	return 0;
}

static int
load(struct qmp *q, const struct qemu_load *how, struct qemu_load_times *t, struct err *e)
{
	if (prepare(q, e) == -1)
		return -1;
	if (how->before_incoming != NULL && how->before_incoming(how->arg, e) == -1)
		return -1;
	t->ready = serve_now();
	qmp_set_timeout(q, how->incoming_ms);
	if (incoming(q, how, e) == -1)
		return err_wrap(e, "loading the VM's state");
	t->loaded = serve_now();
	/* A later migration of this VM to elsewhere must not leave out its RAM. */
	if (set_ignore_shared(q, false, e) == -1)
		return -1;
	if (settle(q, how->resume, e) == -1)
		return -1;
	if (how->resume)
		t->running = serve_now();
	return 0;
}

int
qemu_load(const struct qemu_load *how, struct qemu_load_times *times, struct err *e)
{
	struct qmp_dial dial = {
		.timeout_ms = how->connect_ms,
		.retry = true,
		.stop_fd = how->stop_fd,
		.vmm_pidfd = how->vmm_pidfd,
	};
	struct qemu_load_times t = { 0 };
	struct qmp *q;
	int r;

	if (qmp_connect(&q, how->socket, &dial, e) == -1)
		return -1;
	t.connected = serve_now();
	r = load(q, how, &t, e);
	qmp_close(q);
	if (r == -1)
		return err_wrap(e, "VM at %s", how->socket);
	*times = t;
	return 0;
}
