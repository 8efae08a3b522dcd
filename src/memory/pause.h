/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_PAUSE_H
#define GMEM_MEMORY_PAUSE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * Pausing any process from outside.
 *
 * PAUSE_FREEZER freezes the process's cgroup (version 2), with every process in
 * it and below.  PAUSE_STOP sends SIGSTOP: its parent notices, and anybody's SIGCONT undoes
 * it.  PAUSE_AUTO freezes if the process is alone in a cgroup that is not ours, and stops
 * it otherwise.  PAUSE_NONE does nothing: the VM is known to be paused.
 */
enum pause_method {
	PAUSE_NONE,
	PAUSE_AUTO,
	PAUSE_FREEZER,
	PAUSE_STOP,
};

#define PAUSE_TIMEOUT_MS 5000 /* what to pass for timeout_ms when nobody said anything */

/*
 * Plain data: a child made by fork(2) has a valid copy as long as it inherits the
 * descriptors.  So a guardian can run pause_release when this process dies:
 *
 *	pause_prepare(&p, pid, method, e);	nothing is paused yet
 *	fork the guardian
 *	pause_enter(&p, PAUSE_TIMEOUT_MS, e);
 *	...
 *	pause_resume(&p, e);
 */
struct pause {
	enum pause_method method; /* never PAUSE_AUTO once prepared */
	pid_t pid;
	int fd; /* FREEZER: cgroup.freeze; STOP: a pidfd; else -1; owned */
	int events; /* FREEZER: cgroup.events; else -1; owned */
	int lock; /* /proc/PID under flock(2); else -1; owned */
	uint64_t moves; /* STOP: threads_moves, since pause_enter */
	bool was_paused; /* before us: left so by release and resume */
};

#define PAUSE_INIT                                                                             \
	{                                                                                      \
		.method = PAUSE_NONE, .fd = -1, .events = -1, .lock = -1                       \
	}

/* "none", "auto", "freezer", "stop". */
const char *pause_method_name(enum pause_method method);
int pause_method_parse(const char *name, enum pause_method *method, struct err *e);

/*
 * Chooses the method and opens what it takes.  Of all who do this to a process one at a time
 * succeeds, until pause_resume: who finds it paused by another would read on when that one lets
 * it run, and not notice if a third has paused it again.  On failure *p is PAUSE_INIT.
 */
int pause_prepare(struct pause *p, pid_t pid, enum pause_method method, struct err *e);

/*
 * Pauses, and returns when no thread of the process runs any more; after timeout_ms
 * milliseconds, or any other failure, the process runs again and it is an error.
 */
int pause_enter(struct pause *p, unsigned timeout_ms, struct err *e);

/*
 * That nobody else has let it run since pause_enter, by another SIGCONT, say, also if it was
 * paused again; who begins to trace it counts as well.  Not for NONE.
 */
int pause_check(const struct pause *p, struct err *e);

/* prepare and enter in one; on failure *p is PAUSE_INIT. */
int pause_process(
    struct pause *p, pid_t pid, enum pause_method method, unsigned timeout_ms, struct err *e);

/*
 * Lets the process run, if it was us who paused it.  Async-signal-safe, may be called
 * any number of times.  0, or an errno; that the process is gone is no error.
 */
int pause_release(const struct pause *p);

/* The same, and closes the descriptors; *p is PAUSE_INIT then, also on failure. */
int pause_resume(struct pause *p, struct err *e);

#endif
