/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_HUGEPAGE_H
#define GMEM_MEMORY_HUGEPAGE_H

#include <stddef.h>
#include <stdint.h>

/* The huge pages of one size on this machine, in pages (of all NUMA nodes together). */
struct hugepage_pool {
	uint64_t page_size; /* bytes */
	uint64_t total, free;
	uint64_t reserved; /* of the free ones: promised to mappings */
	uint64_t overcommit; /* how many more the kernel may make when asked */
	uint64_t surplus; /* how many of those exist */
};

#define HUGEPAGE_POOLS 8

/* The pools, smallest pages first, at most HUGEPAGE_POOLS; 0 if there are none. */
size_t hugepage_pools(struct hugepage_pool pools[HUGEPAGE_POOLS]);

/* Pages that a new mapping could still reserve, overcommit aside. */
uint64_t hugepage_available(const struct hugepage_pool *pool);

#endif
