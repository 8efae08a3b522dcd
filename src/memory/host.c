/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fdio.h"

/* Linux 6.8 and 6.18; the headers of Debian 12 are of 6.1. */
#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD 234
#endif
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS 244
#endif
#ifndef KVM_CREATE_GUEST_MEMFD
struct kvm_create_guest_memfd {
	uint64_t size;
	uint64_t flags;
	uint64_t reserved[6];
};
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif

/* Not in any release: the number of an experiment, and the flag of the series that was posted.
 */
#define KVM_CAP_USERFAULT_TRIAL 4000
#define KVM_MEM_USERFAULT_FLAG (1u << 3)

/* struct kvm_userspace_memory_region2 of Linux 6.8, with the bitmap of that series. */
struct region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t userfault_bitmap, pad2[13];
};
#define SET_REGION2 _IOW(KVMIO, 0x49, struct region2)

/* Not every C library's headers have it. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static int
make_guest_memfd(int vm, uint64_t size, uint32_t flags)
{
	struct kvm_create_guest_memfd args = { .size = size, .flags = flags };
	int fd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &args);

	if (fd != -1)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

/* 0, or the errno of writing one page. */
static int
try_write(int fd, size_t page)
{
	char *buf = calloc(1, page);
	ssize_t n;
	int why;

	if (buf == NULL)
		return ENOMEM;
	n = pwrite(fd, buf, page, 0);
	why = n == -1 ? errno : n == (ssize_t)page ? 0 : EIO;
	free(buf);
	return why;
}

static bool
try_mmap(int fd, size_t page)
{
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, page);
	return true;
}

/* Has the kernel store a byte at p, which must not kill us: 0, or EFAULT. */
static int
store(void *p)
{
	int fd = memfd_create("gmem-probe", MFD_CLOEXEC), why = 0;

	if (fd == -1 || pwrite(fd, "x", 1, 0) != 1 || pread(fd, p, 1, 0) != 1)
		why = errno;
	fd_close(&fd);
	return why;
}

/* Touches the first page: whether that can be done, and then whether it can be pinned. */
static bool
try_touch(int fd, size_t page, bool *pins)
{
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	bool good;

	if (p == MAP_FAILED)
		return false;
	good = store(p) == 0;
	*pins = good && madvise(p, page, MADV_POPULATE_READ) == 0;
	munmap(p, page);
	return good;
}

/* Writes the first page, and once more. */
static bool
probe_write(struct memory_host *host, int vm, uint32_t flags)
{
	size_t page = (size_t)host->page_size;
	int fd = make_guest_memfd(vm, page, flags), why;

	if (fd == -1)
		return false;
	why = try_write(fd, page);
	if (why == 0)
		host->guest_memfd_again_errno = try_write(fd, page);
	fd_close(&fd);
	if (why == 0 || host->guest_memfd_write_errno == 0)
		host->guest_memfd_write_errno = why;
	host->guest_memfd_write = why == 0;
	return why == 0;
}

/* What a flag does that is offered and has no name here. */
static void
probe_flag(struct memory_host *host, int vm, uint32_t flags, uint32_t flag)
{
	size_t page = (size_t)host->page_size;
	bool pins = false;
	int fd;

	if (!host->guest_memfd_write && probe_write(host, vm, flags | flag))
		host->guest_memfd_write_flag = flag;
	fd = make_guest_memfd(vm, page, flags | flag);
	if (fd == -1)
		return;
	if (try_touch(fd, page, &pins) && !pins && host->guest_memfd_undirect_flag == 0)
		host->guest_memfd_undirect_flag = flag;
	fd_close(&fd);
}

static void
probe_guest_memfd(struct memory_host *host, int vm)
{
	uint32_t wanted = HOST_GUEST_MEMFD_KNOWN;
	size_t page = (size_t)host->page_size;
	bool pins = false;
	int fd, flags;

	host->guest_memfd = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD) > 0;
	flags = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS);
	host->guest_memfd_flags = flags > 0 ? (uint32_t)flags : 0;
	wanted &= host->guest_memfd_flags;
	fd = make_guest_memfd(vm, page, wanted);
	host->guest_memfd_made = fd != -1;
	if (fd == -1) {
		host->guest_memfd_errno = errno;
		return;
	}
	host->guest_memfd_mmap = try_mmap(fd, page);
	host->guest_memfd_shared = try_touch(fd, page, &pins);
	fd_close(&fd);
	probe_write(host, vm, wanted);
	for (uint32_t flag = 1; flag != 0; flag <<= 1)
		if ((host->guest_memfd_flags & ~HOST_GUEST_MEMFD_KNOWN & flag) != 0)
			probe_flag(host, vm, wanted, flag);
}

/* 0, or the errno of a slot whose page is held back by *bitmap. */
static int
try_slot(int vm, void *page, size_t len, uintptr_t bitmap)
{
	struct region2 r = { .flags = KVM_MEM_USERFAULT_FLAG,
		.memory_size = len,
		.userspace_addr = (uintptr_t)page,
		.userfault_bitmap = bitmap };

	return ioctl(vm, SET_REGION2, &r) == 0 ? 0 : errno;
}

/*
 * Bits may mean something else in a later kernel: only one that offers the
 * capability, refuses a bitmap that is not aligned, and takes one that is, has it.
 */
static void
probe_userfault(struct memory_host *host, int vm)
{
	size_t len = (size_t)host->page_size;
	uint64_t bitmap[2] = { UINT64_MAX, UINT64_MAX };
	uintptr_t at = (uintptr_t)bitmap;
	void *page;

	host->userfault_cap = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_USERFAULT_TRIAL) > 0;
	page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED) {
		host->userfault_errno = errno;
		return;
	}
	host->userfault_errno = EINVAL;
	if (try_slot(vm, page, len, at + 1) != 0)
		host->userfault_errno = try_slot(vm, page, len, at);
	if (!host->userfault_cap && host->userfault_errno == 0)
		host->userfault_errno = EOPNOTSUPP;
	host->userfault = host->userfault_errno == 0;
	munmap(page, len);
}

int
memory_host_guest_memfd(const struct memory_host *host, int *fd, struct err *e)
{
	uint32_t flags = host->guest_memfd_flags & HOST_GUEST_MEMFD_KNOWN;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1, new = -1;

	if (kvm != -1)
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm != -1)
		new =
		    make_guest_memfd(vm, host->page_size, flags | host->guest_memfd_write_flag);
	if (new == -1)
		err_sys(e, "guest_memfd");
	fd_close(&vm);
	fd_close(&kvm);
	*fd = new;
	return new == -1 ? -1 : 0;
}

static void
probe_kvm(struct memory_host *host)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1;

	if (kvm != -1)
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
	host->kvm = vm != -1;
	if (vm == -1)
		host->kvm_errno = errno;
	if (vm != -1) {
		probe_guest_memfd(host, vm);
		probe_userfault(host, vm);
	}
	fd_close(&vm);
	fd_close(&kvm);
}

static void
probe_memfd(struct memory_host *host)
{
	int fd = memfd_create("gmem-probe", MFD_CLOEXEC);

	host->memfd = fd != -1;
	host->memfd_errno = fd == -1 ? errno : 0;
	fd_close(&fd);
}

/* "always [never] deny": the word in brackets. */
static void
probe_shmem_huge(struct memory_host *host)
{
	struct err ignored = ERR_INIT;
	char *text, *word, *end;

	if (fd_slurp("/sys/kernel/mm/transparent_hugepage/shmem_enabled", 4096, &text, NULL,
		&ignored) == -1)
		return;
	word = strchr(text, '[');
	end = word != NULL ? strchr(word, ']') : NULL;
	if (end != NULL)
		snprintf(host->shmem_huge, sizeof(host->shmem_huge), "%.*s",
		    (int)(end - word - 1), word + 1);
	free(text);
}

/* A line "Name:   123 kB" of /proc/meminfo, in bytes. */
static uint64_t
meminfo(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10) * 1024;
}

static void
probe_ram(struct memory_host *host)
{
	struct err ignored = ERR_INIT;
	char *text;

	if (fd_slurp("/proc/meminfo", 65536, &text, NULL, &ignored) == -1)
		return;
	host->ram_total = meminfo(text, "MemTotal:");
	host->ram_available = meminfo(text, "MemAvailable:");
	free(text);
}

void
memory_host_probe(struct memory_host *host)
{
	struct utsname name;
	long ncpus = sysconf(_SC_NPROCESSORS_ONLN);

	*host = (struct memory_host){ .page_size = (uint64_t)sysconf(_SC_PAGESIZE) };
	if (uname(&name) == 0)
		snprintf(host->kernel, sizeof(host->kernel), "%s", name.release);
	host->ncpus = ncpus > 0 ? (unsigned)ncpus : 1;
	host->nhugepages = hugepage_pools(host->hugepages);
	probe_ram(host);
	probe_memfd(host);
	probe_shmem_huge(host);
	probe_kvm(host);
}
