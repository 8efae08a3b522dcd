/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_INJECT_H
#define GMEM_MEMORY_INJECT_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * System calls that another process makes because we say so: ptrace(2) stops its first
 * thread for the time of the calls, and its registers are put back.  The other threads run on.
 *
 * Whoever dies between inject_begin and inject_end leaves that thread in the middle of a call
 * that is not its own: to be done in a process that nobody kills (serve/uffd-take.c).  One
 * thread makes all calls.  Needs PTRACE_MODE_ATTACH; x86-64 only.
 */
struct inject;

/* Waits up to 5 s for the thread, which a system call cannot be taken out of if it is in D. */
int inject_begin(struct inject **out, pid_t pid, struct err *e);

/* *result is what the kernel returns: -errno if it fails.  -1: it could not be made. */
int inject_call(
    struct inject *in, long number, const uint64_t args[6], long *result, struct err *e);

/* The thread goes on where it was.  NULL is fine. */
void inject_end(struct inject *in);

#endif
