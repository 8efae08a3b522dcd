/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "memory/hugepage.h"

/* Linux 6.3; not in the headers of 6.1. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define HUGE_SHIFT 26 /* where memfd_create(2) wants the logarithm of the page size */

/* memfd_create, not executable where the kernel knows of that (it may even insist). */
static int
new_memfd(const char *name, unsigned flags)
{
	int fd = memfd_create(name, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd == -1 && errno == EINVAL)
		fd = memfd_create(name, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

/* "2048 kB, 1048576 kB" into text, for messages. */
static void
list_sizes(char *text, size_t room)
{
	struct hugepage_pool pools[HUGEPAGE_POOLS];
	size_t n = hugepage_pools(pools), len = 0;

	snprintf(text, room, "none");
	for (size_t i = 0; i < n && len < room; i++)
		len += (size_t)snprintf(text + len, room - len, "%s%llu kB", i == 0 ? "" : ", ",
		    (unsigned long long)(pools[i].page_size >> 10));
}

static int
new_hugetlb(const char *name, uint64_t page_size, int *fd, struct err *e)
{
	unsigned flags = MFD_HUGETLB;
	char sizes[128];

	if (page_size != 0 && !is_pow2(page_size))
		return err_set(e, ERR_FAILED, "a huge page of %llu bytes: not a power of two",
		    (unsigned long long)page_size);
	if (page_size != 0)
		flags |= (unsigned)__builtin_ctzll(page_size) << HUGE_SHIFT;
	*fd = new_memfd(name, flags);
	if (*fd != -1)
		return 0;
	if (errno != ENODEV && errno != EINVAL && errno != ENOENT)
		return err_sys(e, "create hugetlb memfd '%s'", name);
	list_sizes(sizes, sizeof(sizes));
	return err_set(e, ERR_FAILED, "no huge pages of %llu kB on this machine (it has: %s)",
	    (unsigned long long)(page_size >> 10), sizes);
}

/* Why `need` huge pages could not be had, and what to do about it. */
static int
too_few(uint64_t need, uint64_t page_size, struct err *e)
{
	struct hugepage_pool pools[HUGEPAGE_POOLS];
	unsigned long long kib = page_size >> 10;
	size_t n = hugepage_pools(pools);

	for (size_t i = 0; i < n; i++) {
		uint64_t have = hugepage_available(&pools[i]);

		if (pools[i].page_size != page_size || have >= need)
			continue;
		return err_set(e, ERR_FAILED,
		    "%llu huge pages of %llu kB are needed, %llu are free; as root: "
		    "echo %llu > /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
		    (unsigned long long)need, kib, (unsigned long long)have,
		    (unsigned long long)(pools[i].total + need - have), kib);
	}
	return err_set(e, ERR_FAILED,
	    "%llu huge pages of %llu kB cannot be had: see the limits of the cgroup, and "
	    "/sys/kernel/mm/hugepages/hugepages-%llukB",
	    (unsigned long long)need, kib, kib);
}

/* A shared mapping reserves the pages for the file, and the file keeps them. */
static int
reserve(int fd, uint64_t size, uint64_t page_size, struct err *e)
{
	void *p = mmap(NULL, (size_t)size, PROT_NONE, MAP_SHARED, fd, 0);

	if (p != MAP_FAILED) {
		munmap(p, (size_t)size);
		return 0;
	}
	if (errno != ENOMEM)
		return err_sys(e, "map %llu bytes of huge pages", (unsigned long long)size);
	return too_few(size / page_size, page_size, e);
}

/* Gives a fresh memfd its size, once and for all. */
static int
set_size(int fd, enum memory_kind kind, uint64_t size, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) == -1)
		return err_sys(e, "stat");
	if (kind == MEMORY_HUGETLB && size % (uint64_t)st.st_blksize != 0)
		return err_set(e, ERR_FAILED,
		    "%llu bytes are not a multiple of the huge page, %llu bytes",
		    (unsigned long long)size, (unsigned long long)st.st_blksize);
	if (size > INT64_MAX || ftruncate(fd, (off_t)size) == -1)
		return err_sys(e, "give it %llu bytes", (unsigned long long)size);
	if (kind == MEMORY_HUGETLB && reserve(fd, size, (uint64_t)st.st_blksize, e) == -1)
		return -1;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == -1)
		return err_sys(e, "seal the size");
	return 0;
}

int
memory_create(const char *name, enum memory_kind kind, uint64_t size, uint64_t page_size,
    int *fd, struct err *e)
{
	int new = -1;

	if (kind != MEMORY_MEMFD && kind != MEMORY_HUGETLB)
		return err_set(e, ERR_FAILED, "memory of kind %s cannot be created",
		    memory_kind_name(kind));
	if (kind == MEMORY_HUGETLB) {
		if (new_hugetlb(name, page_size, &new, e) == -1)
			return -1;
	} else {
		new = new_memfd(name, 0);
		if (new == -1)
			return err_sys(e, "create memfd '%s'", name);
	}
	if (set_size(new, kind, size, e) == -1) {
		fd_close(&new);
		return err_wrap(e, "memory '%s'", name);
	}
	*fd = new;
	return 0;
}

int
memory_blob(const char *name, int *fd, struct err *e)
{
	int new = new_memfd(name, 0);

	if (new == -1)
		return err_sys(e, "create memfd '%s'", name);
	*fd = new;
	return 0;
}

int
memory_seal_readonly(int fd, struct err *e)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

	if (fcntl(fd, F_ADD_SEALS, seals) == 0)
		return 0;
	if (errno == EBUSY)
		return err_sys(e, "seal: it is still mapped writable somewhere");
	return err_sys(e, "seal");
}
