/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const struct {
	int sig;
	const char *name;
} signals[] = {
	{ SIGINT, "SIGINT" },
	{ SIGTERM, "SIGTERM" },
	{ SIGHUP, "SIGHUP" },
};

#define NSIGNALS (sizeof(signals) / sizeof(*signals))

static volatile sig_atomic_t asked;
static int ends[2] = { -1, -1 };

static void
on_signal(int sig)
{
	int saved = errno;

	if (asked == 0)
		asked = sig;
	alarm(STOP_GRACE_S);
	/* The pipe is never full: each signal is taken once. */
	if (write(ends[1], "", 1) == -1)
		errno = saved;
	errno = saved;
}

static void
on_alarm(int sig)
{
	static const char text[] =
	    "gmem-snap: interrupted, but stuck in a system call: giving up\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) == -1)
		_exit(128 + asked);
	_exit(128 + asked);
}

static int
take(int sig, void (*handler)(int sig), int flags, struct err *e)
{
	struct sigaction old, sa = { .sa_handler = handler, .sa_flags = flags };

	if (sigaction(sig, NULL, &old) == -1)
		return err_sys(e, "signal %d", sig);
	if (old.sa_handler == SIG_IGN)
		return 0;
	return sigaction(sig, &sa, NULL) == -1 ? err_sys(e, "signal %d", sig) : 0;
}

int
stop_init(struct err *e)
{
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == -1)
		return err_sys(e, "pipe");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGALRM, on_alarm);
	for (size_t i = 0; i < NSIGNALS; i++)
		if (take(signals[i].sig, on_signal, SA_RESTART | (int)SA_RESETHAND, e) == -1)
			return -1;
	return 0;
}

int
stop_fd(void)
{
	return ends[0];
}

static const char *
signal_name(void)
{
	for (size_t i = 0; i < NSIGNALS; i++)
		if (signals[i].sig == asked)
			return signals[i].name;
	return "a signal";
}

int
stop_check(struct err *e)
{
	if (asked == 0)
		return 0;
	err_set(e, ERR_INTERRUPTED, "interrupted by %s", signal_name());
	e->sysno = asked;
	return -1;
}

void
stop_noticed(void)
{
	alarm(0);
}
