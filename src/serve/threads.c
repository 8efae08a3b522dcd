/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "serve/internal.h"

/* Threads of the server, and how they are stopped. */

/* Takes a blocked read(2) out of the kernel; the handler has nothing to do. */
#define WAKE_SIGNAL SIGURG

static void
on_wake(int sig)
{
	(void)sig;
}

void
threads_init(void)
{
	struct sigaction sa = { .sa_handler = on_wake };

	sigemptyset(&sa.sa_mask);
	sigaction(WAKE_SIGNAL, &sa, NULL);
}

/* Threads of the server take no signal but the one that wakes them. */
int
thread_start(pthread_t *thread, void *(*run)(void *), void *arg, struct err *e)
{
	/* SIGBUS comes from what the thread itself does. */
	static const int takes[] = { WAKE_SIGNAL, SIGBUS, 0 };

	if (quiet_thread(thread, run, arg, takes) == -1)
		return err_sys(e, "start a thread");
	return 0;
}

void
thread_nap(unsigned us)
{
	const struct timespec nap = { .tv_nsec = (long)us * 1000 };

	nanosleep(&nap, NULL);
}

void
thread_kick(pid_t tid)
{
	if (tid != 0)
		syscall(SYS_tgkill, getpid(), tid, WAKE_SIGNAL);
}

/* The signal may come just before the thread blocks: it is sent until the thread is gone. */
void
thread_stop(pthread_t thread)
{
	struct timespec nap = { .tv_nsec = 50000 };

	/* Not pthread_clockjoin_np: ThreadSanitizer does not know it for the end of a thread.
	 */
	for (;;) {
		pthread_kill(thread, WAKE_SIGNAL);
		if (pthread_tryjoin_np(thread, NULL) == 0)
			return;
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < 1000000)
			nap.tv_nsec *= 2;
	}
}
