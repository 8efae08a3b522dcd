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

/* Means "write(2)" in the series that was posted and may mean something else in other kernels.
 */
#define MAYBE_FLAG_WRITE 4u

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

/* Kernels of the posted series want to be asked for write(2) at creation. */
static void
probe_write_flag(struct memory_host *host, int vm, uint32_t flags, size_t page)
{
	int fd;

	if ((host->guest_memfd_flags & MAYBE_FLAG_WRITE) == 0)
		return;
	fd = make_guest_memfd(vm, page, flags | MAYBE_FLAG_WRITE);
	if (fd == -1)
		return;
	if (try_write(fd, page) == 0) {
		host->guest_memfd_write = true;
		host->guest_memfd_write_errno = 0;
		host->guest_memfd_write_flag = MAYBE_FLAG_WRITE;
	}
	fd_close(&fd);
}

static void
probe_guest_memfd(struct memory_host *host, int vm)
{
	uint32_t wanted = HOST_GUEST_MEMFD_MMAP | HOST_GUEST_MEMFD_INIT_SHARED;
	size_t page = (size_t)host->page_size;
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
	host->guest_memfd_write_errno = try_write(fd, page);
	host->guest_memfd_write = host->guest_memfd_write_errno == 0;
	fd_close(&fd);
	if (!host->guest_memfd_write)
		probe_write_flag(host, vm, wanted, page);
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
	else
		probe_guest_memfd(host, vm);
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
