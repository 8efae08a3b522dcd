/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/wait.h"

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
