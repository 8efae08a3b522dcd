/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_THREADS_H
#define GMEM_MEMORY_THREADS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Threads of a process by what they are doing. */
struct threads {
	unsigned stopped, traced, ended, running;
};

int threads_count(pid_t pid, struct threads *count, struct err *e);

/*
 * How often threads of the process have left a CPU: the same number twice means that none ran
 * in between, provided that none ran the first time.  What cannot be read counts as 0.
 */
uint64_t threads_moves(pid_t pid);

#endif
