/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* Messages of Cloud Hypervisor's migration protocol. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

void
fail(struct why *why, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why->text, sizeof(why->text), format, ap);
	va_end(ap);
}

int
wire_read(int fd, void *buf, size_t len, struct why *why)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			fail(why, "%s",
			    n == 0 ? "failed to fill whole buffer" : strerror(errno));
			return -1;
		}
		done += (size_t)n;
	}
	return 0;
}

int
wire_write(int fd, const void *buf, size_t len, struct why *why)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(fd, (const char *)buf + done, len - done, MSG_NOSIGNAL);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1) {
			fail(why, "%s", strerror(errno));
			return -1;
		}
		done += (size_t)n;
	}
	return 0;
}

int
wire_request(int fd, enum command command, uint64_t length, struct why *why)
{
	struct request q = { .command = (uint16_t)command, .length = length };

	return wire_write(fd, &q, sizeof(q), why);
}

int
wire_reply(int fd, enum status status, uint64_t length, struct why *why)
{
	struct reply r = { .status = (uint16_t)status, .length = length };

	return wire_write(fd, &r, sizeof(r), why);
}

int
wire_await_ok(int fd, const char *what, struct why *why)
{
	struct reply r;

	if (wire_read(fd, &r, sizeof(r), why) == -1)
		return -1;
	if (r.status == STATUS_OK)
		return 0;
	if (r.status == STATUS_ERROR)
		fail(why, "Error during %s", what);
	else
		fail(why, "received response with unknown status");
	return -1;
}

int
wire_call(int fd, enum command command, const void *payload, size_t len, const char *what,
    struct why *why)
{
	if (wire_request(fd, command, len, why) == -1 ||
	    wire_write(fd, payload, len, why) == -1)
		return -1;
	return wire_await_ok(fd, what, why);
}

int
wire_send_slot(int fd, uint32_t slot, const int *fds, size_t n, struct why *why)
{
	struct cmsghdr head = { CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	char control[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec iov = { &slot, sizeof(slot) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n > 0) {
		memcpy(control, &head, sizeof(head));
		memcpy(control + CMSG_LEN(0), fds, n * sizeof(int));
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) == sizeof(slot))
		return 0;
	fail(why, "Error sending memory fd: %s", strerror(errno));
	return -1;
}

int
wire_recv_slot(int fd, uint32_t *slot, int *received, struct why *why)
{
	/* Room for one, as there is in the real one. */
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { slot, sizeof(*slot) };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (n <= 0) {
		fail(why, "Error receiving slot from socket: %s",
		    n == 0 ? "end of file" : strerror(errno));
		return -1;
	}
	if (c == NULL || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(sizeof(int))) {
		fail(why, "Failed to receive socket");
		return -1;
	}
	memcpy(received, CMSG_DATA(c), sizeof(*received));
	return 0;
}

static int
address(const char *path, struct sockaddr_un *a, struct why *why)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(a->sun_path)) {
		fail(why, "path must be shorter than SUN_LEN");
		return -1;
	}
	memcpy(a->sun_path, path, strlen(path) + 1);
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int
wire_connect(const char *path, struct why *why)
{
	struct sockaddr_un a;
	int fd = address(path, &a, why);

	if (fd == -1 || connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	fail(why, "Error connecting to UNIX socket: %s", strerror(errno));
	close(fd);
	return -1;
}

int
wire_listen(const char *path, struct why *why)
{
	struct sockaddr_un a;
	int fd = address(path, &a, why);

	if (fd == -1 ||
	    (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 128) == 0))
		return fd;
	fail(why, "Error binding to UNIX socket: %s", strerror(errno));
	close(fd);
	return -1;
}

char *
wire_payload(int fd, uint64_t len, struct why *why)
{
	char *buf = len < (uint64_t)1 << 30 ? malloc(len + 1) : NULL;

	if (buf == NULL) {
		fail(why, "a payload of %llu bytes", (unsigned long long)len);
		return NULL;
	}
	if (wire_read(fd, buf, len, why) == -1) {
		free(buf);
		return NULL;
	}
	buf[len] = '\0';
	return buf;
}
