/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_THREAD_H
#define GMEM_BASE_THREAD_H

#include <pthread.h>

/*
 * A thread that signals do not come to, for they are for those who wait for them; but for those
 * of `takes`, which ends with 0 (NULL: none).  It never runs with another mask, and the
 * caller's is what it was.
 *
 * Who touches memory that may be gone takes SIGBUS: where that is blocked, it ends the process.
 *
 * 0, or -1 with errno set and nothing started.
 */
int quiet_thread(pthread_t *thread, void *(*run)(void *), void *arg, const int *takes);

#endif
