/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_CREATE_H
#define GMEM_MEMORY_CREATE_H

#include <stdint.h>

#include "base/err.h"
#include "memory/kind.h"

/*
 * A new, empty memory object for a guest: MEMORY_MEMFD or MEMORY_HUGETLB, of size bytes (not
 * 0), close-on-exec, sealed against growing and shrinking; more seals may be added.
 *
 * page_size (bytes, a power of two) is for hugetlb, where 0 means the system's default; size
 * must be a multiple of it.  The huge pages are reserved here: who maps the
 * object later cannot run out of them.  The error says how many are missing.
 */
int memory_create(const char *name, enum memory_kind kind, uint64_t size, uint64_t page_size,
    int *fd, struct err *e);

/* An empty memfd for bytes that are no guest memory (VMM state): write it, then seal it. */
int memory_blob(const char *name, int *fd, struct err *e);

/* Makes a memfd constant for ever, for every holder.  No writable mapping may exist. */
int memory_seal_readonly(int fd, struct err *e);

#endif
