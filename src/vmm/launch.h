/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_LAUNCH_H
#define GMEM_VMM_LAUNCH_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* Starting a VMM as an ordinary child that does not outlive us. */
struct launch {
	char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
	const int *keep; /* descriptors that stay open, at their numbers */
	int *
	    from; /* where those are until then, changed in the child; NULL: at their numbers */
	size_t nkeep;
	const char *shim; /* path for LD_PRELOAD, or NULL */
	const char *handoff; /* where the hand-off is, for the environment, or NULL */
};

/* Exit statuses as env(1) and the shells have them. */
#define LAUNCH_CANNOT_RUN 126
#define LAUNCH_NOT_FOUND 127

/*
 * Forks and executes; the child has no signal blocked, ignores those that we ignore, may leave
 * the core file that cores_forbid has forbidden us, and dies by SIGKILL when this thread's
 * process dies.  On failure *status is one of the above.
 */
int launch_start(const struct launch *l, pid_t *pid, int *status, struct err *e);

#endif
