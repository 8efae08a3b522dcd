/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "touch-own.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gmem-handoff-client.h"

/* Linux 6.8 and 6.18; the headers may be older. */
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
struct create_guest_memfd {
	uint64_t size, flags, reserved[6];
};
#define MAPPABLE 3u /* GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED */

static struct {
	pthread_mutex_t lock;
	bool open, complete;
	struct gmem_handoff h;
} own = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int
make_guest_memfd(uint64_t size, uint64_t flags)
{
	struct create_guest_memfd c = { .size = size, .flags = MAPPABLE | flags };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, fd;

	vm = kvm != -1 ? ioctl(kvm, KVM_CREATE_VM, 0) : -1;
	if (vm == -1)
		err(65, "KVM");
	fd = ioctl(vm, CREATE_GUEST_MEMFD, &c);
	if (fd == -1)
		err(65, "KVM_CREATE_GUEST_MEMFD");
	return fd;
}

static int
make_memory(const char *kind, uint64_t size, uint64_t flags)
{
	int fd;

	if (strcmp(kind, "guest_memfd") == 0)
		return make_guest_memfd(size, flags);
	if (strcmp(kind, "file") == 0)
		fd = open(getenv("OWN_FILE"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	else
		fd = memfd_create("own", strcmp(kind, "hugetlb") == 0 ? MFD_HUGETLB : 0);
	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		err(65, "%s", kind);
	return fd;
}

static void
must(int rc)
{
	if (rc == -1)
		errx(65, "%s", own.h.error);
}

int
own_open(const char *arg)
{
	char kind[16], flags[16] = "";
	uint64_t mib;
	bool slots;
	int fd, rc;

	if (sscanf(arg, "%15[^,],%lu,%15s", kind, &mib, flags) < 2)
		errx(64, "own=%s", arg);
	slots = strcmp(flags, "slots") == 0;
	rc = gmem_handoff_open(&own.h);
	must(rc);
	if (rc == 0)
		errx(65, "there is no " GMEM_HANDOFF_ENV);
	fd = make_memory(kind, mib << 20, slots ? 0 : strtoull(flags, NULL, 0));
	rc = gmem_handoff_memory(&own.h, 0, fd, 0, -1, slots ? GMEM_SLOTS : 0);
	must(rc);
	own.complete = rc == 1;
	if (!own.complete)
		must(gmem_handoff_userfaultfd(&own.h));
	own.open = true;
	return fd;
}

void
own_join(void)
{
	int rc = gmem_handoff_open(&own.h);

	must(rc == 0 ? -1 : rc);
	must(gmem_handoff_userfaultfd(&own.h));
}

bool
own_memory(void)
{
	return own.open;
}

void
own_map(const void *at, size_t len, uint64_t offset)
{
	pthread_mutex_lock(&own.lock);
	if (!own.complete)
		must(gmem_handoff_map(&own.h, 0, at, len, offset, GMEM_NO_ADDRESS));
	pthread_mutex_unlock(&own.lock);
}

void
own_unmap(const void *at, size_t len)
{
	pthread_mutex_lock(&own.lock);
	if (!own.complete)
		must(gmem_handoff_unmap(&own.h, at, len));
	pthread_mutex_unlock(&own.lock);
}

void
own_discard(uint64_t offset, uint64_t len)
{
	pthread_mutex_lock(&own.lock);
	must(gmem_handoff_discard(&own.h, 0, offset, len));
	pthread_mutex_unlock(&own.lock);
}
