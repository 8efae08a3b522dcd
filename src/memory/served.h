/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_SERVED_H
#define GMEM_MEMORY_SERVED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * Whether a mapping of dev:ino (as fstat tells) in the process is registered
 * with a userfaultfd for missing pages: somebody is still filling the memory,
 * and a hole in it is not a page of zeros.  Needs what memory_list needs.  Takes time,
 * for the kernel walks the page tables: about 10 ms for each GiB that is there.
 */
int memory_is_served(pid_t pid, dev_t dev, ino_t ino, bool *served, struct err *e);

/* Addresses of a process; bytes. */
struct memory_range {
	uint64_t hva, len;
};

/*
 * Whether whoever touches a missing page of these ranges waits for a userfaultfd, in all of
 * them: else he gets zeros.  The ranges don't overlap.  -1 if the process can't be seen.
 */
int memory_is_registered(
    pid_t pid, const struct memory_range *ranges, size_t n, bool *registered, struct err *e);

#endif
