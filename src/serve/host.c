/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fdio.h"

/* Linux 6.1; the headers may be older. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* ---- a descriptor ---- */

static int
from_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev == -1)
		return -1;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	fd_close(&dev);
	return fd;
}

static int
from_syscall(int flags)
{
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);
}

/* The best that can be had, after the handshake. */
static int
open_any(uint64_t *features)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = from_device();

	if (fd == -1)
		fd = from_syscall(0);
	if (fd == -1)
		fd = from_syscall(UFFD_USER_MODE_ONLY);
	if (fd == -1)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api) == -1)
		fd_close(&fd);
	else if (features != NULL)
		*features = api.features;
	return fd;
}

static bool
took(int fd, int *why)
{
	*why = fd == -1 ? errno : 0;
	if (fd == -1)
		return false;
	fd_close(&fd);
	return true;
}

static void
probe_ways(struct serve_host *host)
{
	int ignored, fd;

	host->device = took(from_device(), &host->device_errno);
	host->syscall = took(from_syscall(0), &host->syscall_errno);
	host->user_mode_only = took(from_syscall(UFFD_USER_MODE_ONLY), &ignored);
	fd = open_any(&host->features);
	fd_close(&fd);
}

/* ---- what registers ---- */

static bool
registers(void *p, size_t len, uint64_t mode, int *why)
{
	struct uffdio_register reg = { .range = { .start = (uintptr_t)p, .len = len },
		.mode = mode };
	int fd = open_any(NULL);
	bool good;

	good = fd != -1 && ioctl(fd, UFFDIO_REGISTER, &reg) == 0;
	if (!good && *why == 0)
		*why = errno;
	fd_close(&fd);
	return good;
}

#define MARK 0xa5
#define PAGE 4096

/* Puts a page into the file without the mapping that is watched. */
static int
put_page(struct serve_modes *modes, int file, size_t len)
{
	unsigned char mark[PAGE], *p;

	memset(mark, MARK, sizeof(mark));
	modes->writes = pwrite(file, mark, sizeof(mark), 0) == (ssize_t)sizeof(mark);
	if (modes->writes)
		return 0;
	/* Allocated first: a store that finds no memory would kill us. */
	if (fallocate(file, FALLOC_FL_KEEP_SIZE, 0, (off_t)len) == -1) {
		modes->no_memory = errno == ENOSPC || errno == ENOMEM;
		return -1;
	}
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (p == MAP_FAILED)
		return -1;
	*p = MARK;
	munmap(p, len);
	return 0;
}

/* Puts a page into the file, has it mapped, and looks whether it is there. */
static bool
resolves(struct serve_modes *modes, void *p, size_t len, int file)
{
	struct uffdio_register reg = { .range = { .start = (uintptr_t)p, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };
	struct uffdio_continue c = { .range = { .start = (uintptr_t)p, .len = len } };
	volatile unsigned char *page = p;
	int fd = open_any(NULL);
	bool good;

	good = fd != -1 && ioctl(fd, UFFDIO_REGISTER, &reg) == 0 &&
	       put_page(modes, file, len) == 0 && ioctl(fd, UFFDIO_CONTINUE, &c) == 0;
	if (!good && modes->sysno == 0)
		modes->sysno = errno;
	/* Only a page that is mapped may be touched: nobody would answer the fault. */
	good = good && *page == MARK;
	fd_close(&fd);
	return good;
}

void
serve_modes_probe(struct serve_modes *modes, int fd, size_t len)
{
	void *p;

	*modes = (struct serve_modes){ .tried = true };
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED) {
		modes->sysno = errno;
		return;
	}
	modes->missing = registers(p, len, UFFDIO_REGISTER_MODE_MISSING, &modes->sysno);
	modes->minor = registers(p, len, UFFDIO_REGISTER_MODE_MINOR, &modes->sysno);
	modes->both = registers(
	    p, len, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR, &modes->sysno);
	if (modes->both)
		modes->resolves = resolves(modes, p, len, fd);
	munmap(p, len);
}

static void
probe_memory(struct serve_modes *modes, unsigned flags, size_t len)
{
	int fd = memfd_create("gmem-probe", MFD_CLOEXEC | flags);

	if (fd == -1 || ftruncate(fd, (off_t)len) == -1)
		*modes = (struct serve_modes){ .sysno = errno };
	else
		serve_modes_probe(modes, fd, len);
	fd_close(&fd);
}

/* ---- around it ---- */

static void
probe_sysctl(struct serve_host *host)
{
	struct err ignored = ERR_INIT;
	char *text;

	host->sysctl = -1;
	if (fd_slurp("/proc/sys/vm/unprivileged_userfaultfd", 64, &text, NULL, &ignored) == -1)
		return;
	host->sysctl = atoi(text);
	free(text);
}

static bool
has_capability(unsigned cap)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &head, data) == -1)
		return false;
	return (data[cap / 32].effective >> (cap % 32) & 1) != 0;
}

static void
probe_memlock(struct serve_host *host)
{
	struct rlimit limit;

	if (has_capability(CAP_IPC_LOCK))
		host->memlock = UINT64_MAX;
	else if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
		host->memlock = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

/* "Hugepagesize: 2048 kB", in bytes, or 0. */
static size_t
default_hugepage(void)
{
	struct err ignored = ERR_INIT;
	char *text, *line;
	size_t size = 0;

	if (fd_slurp("/proc/meminfo", 65536, &text, NULL, &ignored) == -1)
		return 0;
	line = strstr(text, "Hugepagesize:");
	if (line != NULL)
		size = strtoull(line + strlen("Hugepagesize:"), NULL, 10) * 1024;
	free(text);
	return size;
}

void
serve_host_probe(struct serve_host *host)
{
	size_t huge = default_hugepage();

	*host = (struct serve_host){ 0 };
	probe_ways(host);
	probe_sysctl(host);
	host->cap_sys_ptrace = has_capability(CAP_SYS_PTRACE);
	probe_memlock(host);
	if (!serve_host_usable(host) && !host->user_mode_only)
		return;
	probe_memory(&host->memfd, 0, (size_t)sysconf(_SC_PAGESIZE));
	if (huge != 0)
		probe_memory(&host->hugetlb, MFD_HUGETLB, huge);
}

bool
serve_host_usable(const struct serve_host *host)
{
	return host->device || host->syscall;
}

const char *
serve_feature_name(unsigned bit)
{
	static const char *const names[] = { "PAGEFAULT_FLAG_WP", "EVENT_FORK", "EVENT_REMAP",
		"EVENT_REMOVE", "MISSING_HUGETLBFS", "MISSING_SHMEM", "EVENT_UNMAP", "SIGBUS",
		"THREAD_ID", "MINOR_HUGETLBFS", "MINOR_SHMEM", "EXACT_ADDRESS",
		"WP_HUGETLBFS_SHMEM", "WP_UNPOPULATED", "POISON", "WP_ASYNC", "MOVE" };

	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : NULL;
}

enum serve_engine
serve_engine_choose(const struct serve_host *host, const struct serve_modes *modes)
{
	if (!serve_host_usable(host) || !modes->both || !(modes->resolves || modes->no_memory))
		return SERVE_EAGER;
	return modes->writes ? SERVE_CONTINUE : SERVE_MAP_CONTINUE;
}

enum serve_engine
serve_engine_slots(
    const struct serve_host *host, const struct serve_modes *modes, bool kvm_userfault)
{
	if (serve_engine_choose(host, modes) == SERVE_EAGER || !kvm_userfault)
		return SERVE_EAGER;
	return SERVE_USERFAULT;
}
