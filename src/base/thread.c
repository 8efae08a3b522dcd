/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

int
quiet_thread(pthread_t *thread, void *(*run)(void *), void *arg, const int *takes)
{
	sigset_t mask, old;

	sigfillset(&mask);
	for (; takes != NULL && *takes != 0; takes++)
		sigdelset(&mask, *takes);
	/* A thread begins with the mask of who makes it. */
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	errno = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return errno == 0 ? 0 : -1;
}
