/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_HOST_H
#define GMEM_MEMORY_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/hugepage.h"

/* The bits of guest_memfd_flags that have a meaning everywhere. */
#define HOST_GUEST_MEMFD_MMAP 1u /* GUEST_MEMFD_FLAG_MMAP */
#define HOST_GUEST_MEMFD_INIT_SHARED 2u /* GUEST_MEMFD_FLAG_INIT_SHARED */
#define HOST_GUEST_MEMFD_KNOWN (HOST_GUEST_MEMFD_MMAP | HOST_GUEST_MEMFD_INIT_SHARED)

/*
 * What this machine's kernel offers, found by trying it out, not by version.  An *_errno is
 * 0 if the thing before it succeeded.  Nothing is left behind by the tries.
 */
struct memory_host {
	char kernel[65]; /* uname -r */
	unsigned ncpus; /* online */
	uint64_t page_size;
	uint64_t ram_total, ram_available; /* bytes; 0: not known */

	bool memfd;
	int memfd_errno;
	char shmem_huge[16]; /* the chosen word of shmem_enabled, "" if there is none */
	struct hugepage_pool hugepages[HUGEPAGE_POOLS];
	size_t nhugepages;

	bool kvm; /* /dev/kvm opens and makes a VM */
	int kvm_errno;
	bool guest_memfd; /* KVM_CAP_GUEST_MEMFD of a VM of the default type */
	uint32_t guest_memfd_flags; /* KVM_CAP_GUEST_MEMFD_FLAGS: what can be asked for */

	/* Of a guest_memfd that is made with MMAP and INIT_SHARED as far as offered. */
	bool guest_memfd_made;
	int guest_memfd_errno;
	bool guest_memfd_mmap;
	bool guest_memfd_shared; /* what is mapped can be touched: it is not private to the
				    guest */
	bool guest_memfd_write; /* a pwrite(2) of a page works … */
	int guest_memfd_write_errno;
	uint32_t guest_memfd_write_flag; /* … with this further flag, or 0: without one */
	/* Of a second write of the same page: 0, it is overwritten; else a page is written
	 * once.
	 */
	int guest_memfd_again_errno;
	/* The flag that takes pages out of the kernel's own mapping of all memory, or 0. */
	uint32_t guest_memfd_undirect_flag;

	/* vCPUs can be stopped at pages that are marked in a bitmap (experimental). */
	bool userfault_cap; /* KVM_CAP_USERFAULT, which has no number of its own yet */
	bool userfault; /* and a slot with a bitmap was taken */
	int userfault_errno;
};

/* What cannot be found out stays zero. */
void memory_host_probe(struct memory_host *host);

/*
 * A new guest_memfd of one page, made with all flags that are of use to a restore,
 * for trying out further things on it.
 */
int memory_host_guest_memfd(const struct memory_host *host, int *fd, struct err *e);

#endif
