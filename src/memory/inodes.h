/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_INODES_H
#define GMEM_MEMORY_INODES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * Which elements of a list have a file of that number: a process may have tens of thousands of
 * files mapped.  All zero is empty.
 */
struct inodes {
	struct inode_slot {
		ino_t ino;
		size_t number; /* plus 1; 0: free */
	} * slots; /* owned */
	size_t n, nslots; /* a power of two, at least twice n; or 0 */
};

int inodes_add(struct inodes *t, ino_t ino, size_t number, struct err *e);

/* One after the other of that ino; *at is 0 before the first.  False when there is no other. */
bool inodes_next(const struct inodes *t, ino_t ino, size_t *at, size_t *number);

/* Leaves it empty. */
void inodes_fini(struct inodes *t);

#endif
