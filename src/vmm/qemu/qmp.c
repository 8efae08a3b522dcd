/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/fdpass.h"
#include "vmm/qemu/qmp-frame.h"
#include "vmm/wait.h"

#define RETRY_MS 20

struct qmp {
	int fd;
	int timeout_ms;
	int stop_fd; /* borrowed, or -1 */
	int vmm_pidfd; /* borrowed, or -1 */
	uint64_t serial;
	pid_t peer;
	struct qmp_watch *watch; /* borrowed, or NULL */
	struct qmp_version version;
	struct qmp_frame in;
	bool lenient; /* the stream may begin anywhere: skip what is not JSON */
	uint64_t moves; /* events RESUME and RESET */
};

/* What a wait is about, for its messages, and when it ends. */
struct wait {
	int64_t end_ms;
	int limit_ms;
	const char *what;
};

static struct wait
wait_begin(int limit_ms, const char *what)
{
	return (struct wait){ wait_now_ms() + limit_ms, limit_ms, what };
}

static int
vmm_hung_up(const char *what, struct err *e)
{
	return err_set(
	    e, ERR_FAILED, "the VMM closed the connection while we waited for the %s", what);
}

static int
vmm_exited(const char *what, struct err *e)
{
	return err_set(e, ERR_FAILED, "the VMM exited while we waited for the %s", what);
}

/*
 * Polls our descriptors until one wants us: 1 if the socket is ready for
 * events, 0 if the watch was served or the time is over, -1 on an error.
 * A VMM that exited may have left a last word: the socket goes first.
 */
static int
wait_step(struct qmp *q, short events, const struct wait *w, struct err *e)
{
	int64_t left = w->end_ms - wait_now_ms();
	struct pollfd p[4] = {
		{ .fd = q->fd, .events = events },
		{ .fd = q->stop_fd, .events = POLLIN },
		{ .fd = q->vmm_pidfd, .events = POLLIN },
		{ .fd = q->watch ? q->watch->fd : -1,
		    .events = q->watch ? q->watch->events : 0 },
	};

	if (poll(p, 4, left > 0 ? (int)left : 0) == -1) {
		if (errno == EINTR)
			return 0;
		return err_sys(e, "poll for %s", w->what);
	}
	if (p[1].revents != 0)
		return wait_interrupted(w->what, e);
	if (p[3].revents != 0 && q->watch->ready(q->watch->arg, e) == -1)
		return -1;
	if (p[0].revents != 0)
		return 1;
	if (p[2].revents != 0)
		return vmm_exited(w->what, e);
	return 0;
}

/* Until the socket is ready for events; 0, or -1. */
static int
wait_socket(struct qmp *q, short events, const struct wait *w, struct err *e)
{
	do {
		int r = wait_step(q, events, w, e);

		if (r != 0)
			return r == -1 ? -1 : 0;
	} while (wait_now_ms() < w->end_ms);
	return err_set(e, ERR_FAILED, "no %s within %d ms", w->what, w->limit_ms);
}

/* Reads what is there; waits if there is nothing. */
static int
receive(struct qmp *q, const struct wait *w, struct err *e)
{
	size_t room;
	ssize_t n;
	char *at;

	at = qmp_frame_room(&q->in, &room, e);
	if (at == NULL)
		return -1;
	for (;;) {
		n = recv(q->fd, at, room, MSG_DONTWAIT);
		if (n > 0) {
			qmp_frame_filled(&q->in, (size_t)n);
			return 0;
		}
		if (n == 0 || errno == ECONNRESET)
			return vmm_hung_up(w->what, e);
		if (errno == EAGAIN) {
			if (wait_socket(q, POLLIN, w, e) == -1)
				return -1;
		} else if (errno != EINTR) {
			return err_sys(e, "receive %s", w->what);
		}
	}
}

/* The next message (the caller's), whatever it is. */
static int
next_message(struct qmp *q, const struct wait *w, json_t **out, struct err *e)
{
	for (;;) {
		int r = qmp_frame_next(&q->in, q->lenient, out, e);

		if (r != 0)
			return r == -1 ? -1 : 0;
		if (wait_now_ms() >= w->end_ms)
			return err_set(
			    e, ERR_FAILED, "no %s within %d ms", w->what, w->limit_ms);
		if (receive(q, w, e) == -1)
			return -1;
	}
}

/* Sends everything; fd is passed with the first byte if it is not -1. */
static int
transmit(
    struct qmp *q, const char *text, size_t len, int fd, const struct wait *w, struct err *e)
{
	struct fd_room room;
	struct iovec iov;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	size_t done = 0;
	ssize_t n;

	fd_attach(&m, &room, &fd, fd == -1 ? 0 : 1);
	while (done < len) {
		iov.iov_base = (char *)(uintptr_t)text + done;
		iov.iov_len = len - done;
		n = sendmsg(q->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			done += (size_t)n;
			m.msg_control = NULL;
			m.msg_controllen = 0;
		} else if (errno == EAGAIN) {
			if (wait_socket(q, POLLOUT, w, e) == -1)
				return -1;
		} else if (errno == EPIPE || errno == ECONNRESET) {
			return err_set(e, ERR_FAILED, "the VMM has closed the connection");
		} else if (errno != EINTR) {
			return err_sys(e, "send");
		}
	}
	return 0;
}

/* A message that nobody waits for; takes it. */
static void
skip_message(struct qmp *q, json_t *msg)
{
	const char *event = json_string_value(json_object_get(msg, "event"));

	if (event != NULL && (strcmp(event, "RESUME") == 0 || strcmp(event, "RESET") == 0))
		q->moves++;
	json_decref(msg);
}

/* True for the reply to the command with this id. */
static bool
is_reply(const json_t *msg, const char *id)
{
	const char *have = json_string_value(json_object_get(msg, "id"));

	return have != NULL && strcmp(have, id) == 0;
}

void
qmp_one_line(char *to, size_t size, const char *text)
{
	size_t n = 0;

	while (n < size - 1 && text[n] != '\0') {
		unsigned char c = (unsigned char)text[n];

		to[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
	}
	while (n > 0 && to[n - 1] == ' ')
		n--;
	to[n] = '\0';
}

/* Takes msg. */
static int
take_reply(json_t *msg, const char *name, json_t **ret, struct err *e)
{
	json_t *value = json_object_get(msg, "return");
	json_t *error = json_object_get(msg, "error");
	const char *desc = json_string_value(json_object_get(error, "desc"));
	char why[sizeof(e->msg)];
	int r = 0;

	if (error != NULL) {
		qmp_one_line(why, sizeof(why), desc != NULL ? desc : "it does not say why");
		r = err_set(e, ERR_FAILED, "QEMU refused \"%s\": %s", name, why);
	} else if (value == NULL) {
		r = err_set(e, ERR_CORRUPT,
		    "the reply to \"%s\" is neither a result nor an error", name);
	} else if (ret != NULL) {
		*ret = json_incref(value);
	}
	json_decref(msg);
	return r;
}

static int
command_fd(struct qmp *q, const char *name, json_t *args, int fd, json_t **ret, struct err *e)
{
	char id[48], what[96];
	json_t *msg;
	struct wait w;
	size_t len;
	char *text;
	int r;

	snprintf(id, sizeof(id), "gmem-%d-%" PRIu64, (int)getpid(), ++q->serial);
	snprintf(what, sizeof(what), "reply to \"%s\"", name);
	w = wait_begin(q->timeout_ms, what);
	if (args == NULL)
		args = json_object();
	msg = json_pack("{s:s, s:o, s:s}", "execute", name, "arguments", args, "id", id);
	text = msg != NULL ? json_dumps(msg, JSON_COMPACT) : NULL;
	json_decref(msg);
	if (text == NULL)
		return err_set(e, ERR_FAILED, "command \"%s\" can't be written as JSON", name);
	/* A line end in place of the NUL, for servers and tools that go by lines. */
	len = strlen(text);
	text[len++] = '\n';
	r = transmit(q, text, len, fd, &w, e);
	free(text);
	if (r == -1)
		return err_wrap(e, "\"%s\"", name);
	for (;;) {
		if (next_message(q, &w, &msg, e) == -1)
			return -1;
		if (is_reply(msg, id))
			break;
		skip_message(q, msg);
	}
	q->lenient = false;
	return take_reply(msg, name, ret, e);
}

int
qmp_command(struct qmp *q, const char *name, json_t *args, json_t **ret, struct err *e)
{
	return command_fd(q, name, args, -1, ret, e);
}

int
qmp_send_fd(struct qmp *q, int fd, const char *name, struct err *e)
{
	return command_fd(q, "getfd", json_pack("{s:s}", "fdname", name), fd, NULL, e);
}

int
qmp_hmp(struct qmp *q, const char *line, char **text, struct err *e)
{
	json_t *ret, *args = json_pack("{s:s}", "command-line", line);

	if (qmp_command(q, "human-monitor-command", args, &ret, e) == -1)
		return err_wrap(e, "monitor command \"%s\"", line);
	if (!json_is_string(ret)) {
		json_decref(ret);
		return err_set(
		    e, ERR_CORRUPT, "the reply to monitor command \"%s\" is not text", line);
	}
	*text = strdup(json_string_value(ret));
	json_decref(ret);
	if (*text == NULL)
		return err_sys(e, "monitor command \"%s\"", line);
	return 0;
}

/* A version number; false if it is none. */
static bool
get_number(const json_t *object, const char *key, unsigned *out)
{
	json_t *v = json_object_get(object, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 9999)
		return false;
	*out = (unsigned)json_integer_value(v);
	return true;
}

static bool
parse_greeting(const json_t *msg, struct qmp_version *v)
{
	json_t *version = json_object_get(json_object_get(msg, "QMP"), "version");
	json_t *qemu = json_object_get(version, "qemu");
	const char *package = json_string_value(json_object_get(version, "package"));

	snprintf(v->package, sizeof(v->package), "%s", package != NULL ? package : "");
	return get_number(qemu, "major", &v->major) && get_number(qemu, "minor", &v->minor) &&
	       get_number(qemu, "micro", &v->micro);
}

static int
greet(struct qmp *q, struct err *e)
{
	struct wait w = wait_begin(q->timeout_ms,
	    "greeting (QEMU talks with one client at a time: is another one connected?)");
	json_t *msg;
	bool ok;

	if (next_message(q, &w, &msg, e) == -1)
		return -1;
	ok = parse_greeting(msg, &q->version);
	json_decref(msg);
	if (!ok)
		return err_set(e, ERR_CORRUPT, "this is not a QMP server: no QMP greeting");
	return qmp_command(q, "qmp_capabilities", NULL, NULL, e);
}

int
qmp_connect_fd(struct qmp **out, int fd, const struct qmp_dial *how, struct err *e)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	struct qmp *q;

	q = calloc(1, sizeof(*q));
	if (q == NULL) {
		err_sys(e, "QMP client");
		fd_close(&fd);
		return -1;
	}
	q->fd = fd;
	q->timeout_ms = how->timeout_ms;
	q->stop_fd = how->stop_fd;
	q->vmm_pidfd = how->vmm_pidfd;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		q->peer = peer.pid;
	if (greet(q, e) == -1) {
		qmp_close(q);
		return -1;
	}
	*out = q;
	return 0;
}

/* Between two attempts: false if there is no point in a further one. */
static int
pause_before_retry(const struct qmp_dial *how, const struct wait *w, struct err *e)
{
	struct pollfd p[2] = {
		{ .fd = how->stop_fd, .events = POLLIN },
		{ .fd = how->vmm_pidfd, .events = POLLIN },
	};

	if (poll(p, 2, RETRY_MS) == -1 && errno != EINTR)
		return err_sys(e, "poll for %s", w->what);
	if (p[0].revents != 0)
		return wait_interrupted(w->what, e);
	if (p[1].revents != 0)
		return vmm_exited(w->what, e);
	return 0;
}

/* A connected socket, or -1. */
static int
dial(const char *path, const struct qmp_dial *how, struct err *e)
{
	struct wait w = wait_begin(how->timeout_ms, "QMP socket");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, ERR_USAGE, "the name of a socket has at most %zu bytes",
		    sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	for (;;) {
		/* Non-blocking: connect(2) waits without limit for a full backlog. */
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd == -1)
			return err_sys(e, "socket");
		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
			return fd;
		err_sys(e, "connect");
		fd_close(&fd);
		if (e->sysno != EAGAIN && e->sysno != EINTR &&
		    !(how->retry && (e->sysno == ENOENT || e->sysno == ECONNREFUSED)))
			return -1;
		if (wait_now_ms() >= w.end_ms)
			return err_wrap(e, "no %s within %d ms", w.what, w.limit_ms);
		if (pause_before_retry(how, &w, e) == -1)
			return -1;
	}
}

int
qmp_connect(struct qmp **out, const char *path, const struct qmp_dial *how, struct err *e)
{
	int fd = dial(path, how, e);

	if (fd == -1 || qmp_connect_fd(out, fd, how, e) == -1)
		return err_wrap(e, "QMP socket %s", path);
	return 0;
}

void
qmp_close(struct qmp *q)
{
	if (q == NULL)
		return;
	fd_close(&q->fd);
	qmp_frame_fini(&q->in);
	free(q);
}

const struct qmp_version *
qmp_version(const struct qmp *q)
{
	return &q->version;
}

bool
qmp_at_least(const struct qmp *q, unsigned major, unsigned minor)
{
	return q->version.major > major ||
	       (q->version.major == major && q->version.minor >= minor);
}

pid_t
qmp_peer_pid(const struct qmp *q)
{
	return q->peer;
}

int
qmp_fd(const struct qmp *q)
{
	return q->fd;
}

int
qmp_set_timeout(struct qmp *q, int timeout_ms)
{
	int old = q->timeout_ms;

	q->timeout_ms = timeout_ms;
	return old;
}

int
qmp_set_stop(struct qmp *q, int stop_fd)
{
	int old = q->stop_fd;

	q->stop_fd = stop_fd;
	return old;
}

uint64_t
qmp_moves(const struct qmp *q)
{
	return q->moves;
}

void
qmp_watch(struct qmp *q, struct qmp_watch *watch)
{
	q->watch = watch;
}

/* Takes what has come from the socket, so that poll does not report it again. */
static int
skip_messages(struct qmp *q, const struct wait *w, struct err *e)
{
	json_t *msg;
	int r;

	if (receive(q, w, e) == -1)
		return -1;
	while ((r = qmp_frame_next(&q->in, q->lenient, &msg, e)) == 1)
		skip_message(q, msg);
	return r;
}

int
qmp_wait(struct qmp *q, int ms, struct err *e)
{
	struct wait w = wait_begin(ms, "VMM");
	bool watching = q->watch != NULL && q->watch->fd != -1;
	int r;

	do {
		r = wait_step(q, POLLIN, &w, e);
		if (r == 1)
			r = skip_messages(q, &w, e);
		if (r == -1)
			return -1;
	} while (!watching && wait_now_ms() < w.end_ms);
	return 0;
}

int
qmp_resync(struct qmp *q, struct err *e)
{
	struct wait w = wait_begin(q->timeout_ms, "room in the socket");

	qmp_frame_fini(&q->in);
	q->lenient = true;
	return transmit(q, "\xff", 1, -1, &w, e);
}
