/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/uffd-protect.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

/*
 * Of memory that is a file holes are protected as well as pages (the kernel leaves a mark in
 * the page table); WP_UNPOPULATED is about anonymous memory, which we never have.
 */
static int
shake_hands(int fd, uint64_t more)
{
	struct uffdio_api api = { .api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			    UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_UNMAP | more };

	return ioctl(fd, UFFDIO_API, &api);
}

/* A child writes to the same memory unprotected: who may be told of it (CAP_SYS_PTRACE) is. */
int
uffd_protect_handshake(int fd, struct err *e)
{
	if (shake_hands(fd, UFFD_FEATURE_EVENT_FORK) == 0 ||
	    (errno == EPERM && shake_hands(fd, 0) == 0))
		return uffd_unblock(fd, e);
	if (errno == EINVAL)
		return err_set(e, ERR_UNSUPPORTED,
		    "this kernel cannot write-protect shared memory by userfaultfd (Linux 5.19 "
		    "can on x86-64, 6.10 on arm64)");
	return err_sys(e, "userfaultfd handshake");
}

int
uffd_protect_register(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_register reg = {
		.range = { .start = hva, .len = len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &reg) == 0)
		return 0;
	if (errno == EINVAL)
		return err_set(e, ERR_UNSUPPORTED,
		    "this kernel's userfaultfd cannot write-protect this kind of memory");
	if (errno == EBUSY)
		return err_set(e, ERR_UNSUPPORTED,
		    "another userfaultfd has it: it is being restored, or saved by somebody "
		    "else");
	return err_sys(e, "register %llu bytes at %#llx with userfaultfd",
	    (unsigned long long)len, (unsigned long long)hva);
}

enum uffd_result
uffd_protect(int fd, uint64_t hva, uint64_t len, bool yes, struct err *e)
{
	struct uffdio_writeprotect wp = { .range = { .start = hva, .len = len },
		.mode = yes ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) == 0)
		return UFFD_DONE;
	if (errno == EAGAIN)
		return UFFD_BUSY;
	if (errno == ENOENT)
		return UFFD_GONE;
	if (errno == ESRCH)
		return UFFD_DEAD;
	err_sys(e, "write-protect %llu bytes at %#llx", (unsigned long long)len,
	    (unsigned long long)hva);
	return UFFD_FAILED;
}
