/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"

struct guard {
	pid_t pid;
	int line; /* a byte on it tells the guardian to go */
};

static int
compare_fds(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Closes every descriptor that is not in fds[], which it sorts. */
static void
close_others(int *fds, size_t n)
{
	unsigned next = 0;

	qsort(fds, n, sizeof(*fds), compare_fds);
	for (size_t i = 0; i < n; i++) {
		unsigned fd = (unsigned)fds[i];

		if (fds[i] < 0)
			continue;
		if (fd > next)
			close_range(next, fd - 1, 0);
		next = fd + 1;
	}
	close_range(next, UINT_MAX, 0);
}

/* Nothing stops the guardian but SIGKILL and its own faults. */
static void
ignore_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGCHLD && sig != SIGSEGV && sig != SIGBUS && sig != SIGABRT)
			signal(sig, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Waits for the end of the parent: true if it died, false if it said goodbye.
 * Its pidfd tells, and not only the end of the line: a further child of the
 * parent may hold a copy of the parent's end.
 */
static bool
wait_for_death(int line, int parent)
{
	struct pollfd p[2] = {
		{ .fd = line, .events = POLLIN },
		{ .fd = parent, .events = POLLIN },
	};
	char byte;

	while (poll(p, 2, -1) == -1)
		if (errno != EINTR)
			return false;
	/* It may have said goodbye and died since. */
	return recv(line, &byte, 1, MSG_DONTWAIT) != 1;
}

static _Noreturn void
guardian(int line, int parent, int (*resume)(void *arg), void *arg)
{
	if (!wait_for_death(line, parent))
		_exit(0);
	_exit(resume(arg) == -1);
}

/* In the child: leave everything of the parent behind but what is needed. */
static void
detach(int *fds, size_t n)
{
	int null;

	setsid();
	ignore_signals();
	prctl(PR_SET_NAME, "gmem-guard");
	close_others(fds, n);
	null = open("/dev/null", O_RDWR); /* takes the place of 0 */
	if (null == 0)
		dup2(null, 1);
	/* The current folder must not keep a file system busy. */
	if (chdir("/") == -1)
		return;
}

static int
spawn(struct guard *g, int *fds, size_t n, int (*resume)(void *arg), void *arg, struct err *e)
{
	int line = fds[0], parent = fds[1];
	sigset_t all, old;
	int r = 0;

	/* A handler of the parent must not run in the child before it has left. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	g->pid = fork();
	if (g->pid == 0) {
		detach(fds, n);
		if (send(line, "r", 1, MSG_NOSIGNAL) != 1)
			_exit(1);
		guardian(line, parent, resume, arg);
	}
	if (g->pid == -1)
		r = err_sys(e, "fork");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* Until then it may still die of what is meant for us: SIGKILL to the process group, say. */
static int
await_detached(const struct guard *g, struct err *e)
{
	char byte;
	ssize_t n;

	do
		n = recv(g->line, &byte, 1, 0);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		return err_sys(e, "guardian: it does not answer");
	return n == 1 ? 0 : err_set(e, ERR_FAILED, "guardian: it died");
}

int
guard_start(struct guard **out, int (*resume)(void *arg), void *arg, const int *keep,
    size_t nkeep, struct err *e)
{
	int ends[2] = { -1, -1 }, self = -1, r = -1;
	struct guard *g = NULL;
	int *fds = NULL;

	g = calloc(1, sizeof(*g));
	fds = calloc(nkeep + 3, sizeof(*fds));
	if (g == NULL || fds == NULL) {
		err_sys(e, "guardian");
		goto out;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1 ||
	    (self = pidfd_open(getpid(), 0)) == -1) {
		err_sys(e, "guardian");
		goto out;
	}
	fds[0] = ends[0];
	fds[1] = self;
	fds[2] = STDERR_FILENO;
	if (nkeep > 0)
		memcpy(fds + 3, keep, nkeep * sizeof(*fds));
	r = spawn(g, fds, nkeep + 3, resume, arg, e);
	fd_close(&ends[0]);
	if (r == -1) {
		err_wrap(e, "guardian");
		goto out;
	}
	g->line = ends[1];
	ends[1] = -1;
	r = await_detached(g, e);
	if (r == 0)
		*out = g;
	else
		guard_stop(g);
	g = NULL;
out:
	fd_close(&self);
	fd_close(&ends[0]);
	fd_close(&ends[1]);
	free(fds);
	free(g);
	return r;
}

void
guard_stop(struct guard *g)
{
	if (g == NULL)
		return;
	/* If it was killed there is nobody to tell. */
	(void)send(g->line, "x", 1, MSG_NOSIGNAL);
	fd_close(&g->line);
	while (waitpid(g->pid, NULL, 0) == -1 && errno == EINTR)
		;
	free(g);
}
