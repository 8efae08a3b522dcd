/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/http-await.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "vmm/http.h"
#include "vmm/wait.h"

#define RETRY_MS 5

bool
http_is_late(int64_t end)
{
	return end != -1 && wait_now_ms() >= end;
}

bool
http_pause(int fd, int other, int64_t end)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = other, .events = POLLIN },
	};
	int64_t left = end == -1 ? RETRY_MS : end - wait_now_ms();

	return poll(p, 2, (int)MAX(MIN(left, (int64_t)RETRY_MS), 0)) > 0;
}

static bool
readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return fd != -1 && poll(&p, 1, 0) == 1;
}

/* Whether somebody listens there: an error unless so; its queue may be full. */
static int
knock(const char *path, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, rc = 0;

	if (path[0] == '\0' || strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, ERR_FAILED,
		    "%s: %zu bytes, the path of a socket has 1 to %zu", path, strlen(path),
		    sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock == -1)
		return err_sys(e, "socket");
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == -1 && errno != EAGAIN)
		rc = err_sys(e, "%s: connect", path);
	fd_close(&sock);
	return rc;
}

/* A socket that is not there yet, or is left of another VMM, may come to life. */
static bool
may_come(const struct err *e)
{
	return e->kind == ERR_SYS &&
	       (e->sysno == ENOENT || e->sysno == ECONNREFUSED || e->sysno == EINTR);
}

static int
await(const char *path, int pidfd, int timeout_ms, int stop_fd, struct err *e)
{
	int64_t end = timeout_ms < 0 ? -1 : wait_now_ms() + timeout_ms;
	struct err last = ERR_INIT;

	while (knock(path, &last) == -1) {
		if (!may_come(&last)) {
			*e = last;
			return -1;
		}
		if (readable(pidfd))
			return err_set(e, ERR_FAILED,
			    "%s: the VMM has ended before its API was there", path);
		if (http_is_late(end))
			return err_set(e, ERR_FAILED, "no API socket within %d s: %s",
			    (timeout_ms + 999) / 1000, last.msg);
		if (http_pause(stop_fd, pidfd, end) && readable(stop_fd))
			return wait_interrupted("API socket of the VMM", e);
	}
	return 0;
}

int
http_await(const char *socket, pid_t vmm, int timeout_ms, int stop_fd, struct err *e)
{
	int pidfd = -1, rc;

	if (vmm > 0 && (pidfd = pidfd_open(vmm, 0)) == -1)
		return err_sys(e, "the VMM's process %d", (int)vmm);
	rc = await(socket, pidfd, timeout_ms, stop_fd, e);
	fd_close(&pidfd);
	return rc;
}
