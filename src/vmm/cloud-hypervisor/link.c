/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/fdpass.h"
#include "vmm/wait.h"

#define READ_FIRST (64u << 10) /* bytes of a payload; then twice as many */

static int
hung_up(const char *what, struct err *e)
{
	return err_set(
	    e, ERR_FAILED, "the VMM closed the connection while we waited for the %s", what);
}

int
ch_link_read(
    const struct ch_link *l, void *buf, size_t len, bool *eof, const char *what, struct err *e)
{
	struct wait_limit limit = wait_at_most(l->timeout_ms, l->stop_fd);
	size_t done = 0;

	if (eof != NULL)
		*eof = false;
	while (done < len) {
		/* Without room for them the kernel closes descriptors that come along. */
		ssize_t n = recv(l->fd, (char *)buf + done, len - done, MSG_DONTWAIT);

		if (n > 0) {
			done += (size_t)n;
		} else if (n == 0 || errno == ECONNRESET) {
			if (done != 0 || eof == NULL)
				return hung_up(what, e);
			*eof = true;
			return 0;
		} else if (errno == EAGAIN) {
			if (wait_ready(l->fd, POLLIN, &limit, what, e) == -1)
				return -1;
		} else if (errno != EINTR) {
			return err_sys(e, "receive %s", what);
		}
	}
	return 0;
}

void *
ch_link_read_new(const struct ch_link *l, uint64_t len, const char *what, struct err *e)
{
	uint64_t room = MIN(len, (uint64_t)READ_FIRST), done = 0;
	char *buf = NULL, *bigger;

	for (;;) {
		bigger = realloc(buf, room);
		if (bigger == NULL) {
			err_sys(e, "%s of %" PRIu64 " bytes", what, len);
			break;
		}
		buf = bigger;
		if (ch_link_read(l, buf + done, room - done, NULL, what, e) == -1)
			break;
		if (room == len)
			return buf;
		done = room;
		room = MIN(len, 2 * room);
	}
	free(buf);
	return NULL;
}

/* *count grows by the descriptors that came along: the first into *fd if that is -1. */
static ssize_t
receive_fds(int socket, void *buf, size_t len, int *fd, size_t *count)
{
	struct fd_room room;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf),
	};
	ssize_t n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n >= 0)
		*count += fd_detach(&m, fd, *fd == -1 ? 1 : 0);
	return n;
}

int
ch_link_read_fd(
    const struct ch_link *l, void *buf, size_t len, int *fd, const char *what, struct err *e)
{
	struct wait_limit limit = wait_at_most(l->timeout_ms, l->stop_fd);
	size_t done = 0, count = 0;
	int r = 0;

	*fd = -1;
	while (r == 0 && done < len) {
		ssize_t n = receive_fds(l->fd, (char *)buf + done, len - done, fd, &count);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno == ECONNRESET)
			r = hung_up(what, e);
		else if (errno == EAGAIN)
			r = wait_ready(l->fd, POLLIN, &limit, what, e);
		else if (errno != EINTR)
			r = err_sys(e, "receive %s", what);
	}
	if (r == 0 && count != 1)
		r = err_set(e, ERR_CORRUPT, "the VMM sent %zu descriptors with the %s, not one",
		    count, what);
	if (r == -1)
		fd_close(fd);
	return r;
}

static ssize_t
transmit(int socket, const void *buf, size_t len, int fd)
{
	struct fd_room room;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	fd_attach(&m, &room, &fd, fd == -1 ? 0 : 1);
	return sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int
ch_link_write(const struct ch_link *l, const void *buf, size_t len, int fd, const char *what,
    struct err *e)
{
	struct wait_limit limit = wait_at_most(l->timeout_ms, l->stop_fd);
	size_t done = 0;

	while (done < len) {
		ssize_t n = transmit(l->fd, (const char *)buf + done, len - done, fd);

		if (n > 0) {
			done += (size_t)n;
			fd = -1;
		} else if (errno == EAGAIN) {
			if (wait_ready(l->fd, POLLOUT, &limit, what, e) == -1)
				return err_wrap(e, "sending");
		} else if (errno == EPIPE || errno == ECONNRESET) {
			err_set(e, ERR_FAILED,
			    "the VMM has closed the connection before the %s", what);
			e->sysno = EPIPE;
			return -1;
		} else if (errno != EINTR) {
			return err_sys(e, "send %s", what);
		}
	}
	return 0;
}

int
ch_link_request(
    const struct ch_link *l, struct ch_request *r, bool *eof, const char *what, struct err *e)
{
	uint8_t header[CH_HEADER_SIZE];

	if (ch_link_read(l, header, sizeof(header), eof, what, e) == -1)
		return -1;
	return eof != NULL && *eof ? 0 : ch_request_parse(r, header, e);
}

int
ch_link_respond(const struct ch_link *l, bool ok, uint64_t length, struct err *e)
{
	uint8_t header[CH_HEADER_SIZE];

	ch_response_format(header, ok, length);
	return ch_link_write(l, header, sizeof(header), -1, "answer", e);
}

static int
refused(enum ch_command command, struct err *e)
{
	return err_set(e, ERR_FAILED, "%s: the VMM refused it; its log tells why",
	    ch_command_name(command));
}

int
ch_link_expect_ok(const struct ch_link *l, enum ch_command command, struct err *e)
{
	uint8_t header[CH_HEADER_SIZE];
	uint64_t length;
	bool ok;

	if (ch_link_read(l, header, sizeof(header), NULL, "answer", e) == -1 ||
	    ch_response_parse(&ok, &length, header, e) == -1)
		return err_wrap(e, "%s", ch_command_name(command));
	if (!ok)
		return refused(command, e);
	if (length != 0)
		return err_set(e, ERR_CORRUPT,
		    "%s: the VMM answered with %" PRIu64 " bytes that nobody asked for",
		    ch_command_name(command), length);
	return 0;
}

/* It may have refused a request before it had all of it, and hung up. */
static bool
was_refused(const struct ch_link *l)
{
	const struct ch_link now = { .fd = l->fd, .timeout_ms = 0, .stop_fd = -1 };
	struct err ignored = ERR_INIT;
	uint8_t header[CH_HEADER_SIZE];
	uint64_t length;
	bool ok;

	return ch_link_read(&now, header, sizeof(header), NULL, "answer", &ignored) == 0 &&
	       ch_response_parse(&ok, &length, header, &ignored) == 0 && !ok;
}

static int
write_request(const struct ch_link *l, enum ch_command command, const void *payload, size_t len,
    int fd, struct err *e)
{
	const char *name = ch_command_name(command);
	uint8_t header[CH_HEADER_SIZE];

	ch_request_format(header, command, len);
	if (ch_link_write(l, header, sizeof(header), -1, name, e) == -1)
		return -1;
	return len != 0 ? ch_link_write(l, payload, len, fd, name, e) : 0;
}

int
ch_link_command(const struct ch_link *l, enum ch_command command, const void *payload,
    size_t len, int fd, struct err *e)
{
	if (write_request(l, command, payload, len, fd, e) == -1)
		return e->kind == ERR_FAILED && was_refused(l) ? refused(command, e) : -1;
	return ch_link_expect_ok(l, command, e);
}
