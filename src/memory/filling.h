/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_FILLING_H
#define GMEM_MEMORY_FILLING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * A mark on a memory object that says that a part of it is being filled, and that a hole in it
 * is not a page of zeros; whoever opens the object sees it, also where nobody maps it yet.
 *
 * It is an open file description lock (fcntl(2), F_OFD_SETLK), on bytes that no memory has: it
 * ends with the last descriptor of the same open(2), so that it does not outlive the VMM.
 * Byte i of the object is byte FILLING_BASE + i of the lock.
 */
#define FILLING_BASE (INT64_C(1) << 62)

/* Marks [off, off + len), bytes, len not 0: -1 where the object takes no locks. */
int filling_begin(int fd, uint64_t off, uint64_t len, struct err *e);

/* The part is whole.  It is no error if there was no mark. */
void filling_end(int fd, uint64_t off, uint64_t len);

/* Whether any byte of [off, off + len) is marked; len 0: from off on. */
bool filling_is(int fd, uint64_t off, uint64_t len);

#endif
