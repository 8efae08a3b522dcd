/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

int64_t
wait_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int
wait_interrupted(const char *what, struct err *e)
{
	err_set(e, ERR_INTERRUPTED, "interrupted while waiting for the %s", what);
	e->sysno = SIGINT;
	return -1;
}

struct wait_limit
wait_at_most(int ms, int stop_fd)
{
	return (struct wait_limit){
		.end_ms = ms == -1 ? -1 : wait_now_ms() + ms,
		.ms = ms,
		.stop_fd = stop_fd,
	};
}

int
wait_ready(
    int fd, short events, const struct wait_limit *limit, const char *what, struct err *e)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = events },
		{ .fd = limit->stop_fd, .events = POLLIN },
	};

	for (;;) {
		int64_t left = limit->end_ms == -1 ? -1 : limit->end_ms - wait_now_ms();

		if (limit->end_ms != -1 && left <= 0)
			return err_set(e, ERR_FAILED, "no %s within %d ms", what, limit->ms);
		if (poll(p, 2, (int)left) == -1 && errno != EINTR)
			return err_sys(e, "poll for %s", what);
		if (p[1].revents != 0)
			return wait_interrupted(what, e);
		if (p[0].revents != 0)
			return 0;
	}
}
