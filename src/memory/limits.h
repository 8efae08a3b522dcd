/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_LIMITS_H
#define GMEM_MEMORY_LIMITS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/hugepage.h"

/* What may stop a process or its children on the way, as far as it can be known before. */

#define LIMITS_NONE UINT64_MAX /* there is no such limit, or it cannot be known */

/* Of our cgroup (version 2) and all above it, the one that leaves least. */
struct limits_cgroup {
	uint64_t memory; /* memory.max, bytes */
	char memory_of[PATH_MAX]; /* whose that is */
	uint64_t swap; /* memory.swap.max of the same, bytes */
	/* hugetlb.SIZE.max of each pool of huge pages, in their order, bytes */
	uint64_t hugetlb[HUGEPAGE_POOLS];
};

struct limits {
	/* RLIMIT_*, the soft ones; hard_as: how far a child could raise it */
	uint64_t descriptors, file_size, address_space, hard_address_space;
	uint64_t locked; /* bytes; CAP_IPC_LOCK is no limit */
	uint64_t mappings; /* vm.max_map_count */
	uint64_t ram, ram_free; /* bytes; of the machine, and what could be had of it now */
	uint64_t swap, swap_free;
	uint64_t commit; /* bytes that may still be committed; a limit with overcommit off */
	struct hugepage_pool pools[HUGEPAGE_POOLS];
	size_t npools;
	struct limits_cgroup cgroup;
};

void limits_read(struct limits *l);

/*
 * The part of the cgroup, from the folder `dir` upwards, as far as folders are cgroups; sizes
 * of huge pages are those of the pools.
 */
void limits_read_cgroup(
    struct limits_cgroup *c, const char *dir, const struct hugepage_pool *pools, size_t npools);

/* What a guest and its page server need; what is not known, or not wanted, is 0. */
struct limits_need {
	uint64_t descriptors;
	uint64_t file; /* bytes of the largest object of ours */
	uint64_t memory; /* bytes of all of the guest's memory, which the VMM maps */
	uint64_t locked; /* bytes, at least, of the page server's */
	uint64_t mappings; /* that the VMM's memory may be split into, at most */
	uint64_t
	    charged; /* bytes of ordinary pages that are charged to us when they are touched */
	uint64_t given; /* of these, those that are given whether they are touched or not */
	struct {
		uint64_t page_size, bytes;
	} huge[HUGEPAGE_POOLS]; /* page_size 0: no more */
};

/* Is told in a sentence what may go wrong. */
typedef void limits_warn(void *arg, const char *text);

/* ERR_FAILED, with the number that is wrong and what to do, if it cannot work. */
int limits_check(const struct limits *l, const struct limits_need *need, limits_warn *warn,
    void *arg, struct err *e);

/* What the file system of a file has left for it; LIMITS_NONE for a memfd, and if unknown. */
uint64_t limits_of_file(int fd);

#endif
