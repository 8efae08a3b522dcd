/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fdio.h"
#include "serve/claims.h"
#include "serve/uffd.h"
#include "takeover.h"

/* -1: this kernel has none with these flags. */
static int
new_guest_memfd(uint64_t size, unsigned flags)
{
	struct {
		uint64_t size, flags, reserved[6];
	} args = { .size = size, .flags = flags };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, fd = -1;

	vm = kvm != -1 ? ioctl(kvm, KVM_CREATE_VM, 0) : -1;
	if (vm != -1)
		fd = ioctl(vm, _IOWR(KVMIO, 0xd4, args), &args);
	fd_close(&vm);
	fd_close(&kvm);
	return fd;
}

int
takeover_memory(struct game *g, struct err *e)
{
	if (g->how->gmem != 0)
		g->fd = new_guest_memfd(LENGTH, g->how->gmem);
	else
		g->fd = memfd_create("test", MFD_CLOEXEC | (g->how->huge ? MFD_HUGETLB : 0));
	if (g->fd == -1 || (g->how->gmem == 0 && ftruncate(g->fd, LENGTH) == -1))
		return err_sys(e, "memory");
	return claims_create(LENGTH / g->page_size, &g->claims, e) == -1 ||
		       server_events_create(&g->events, e) == -1
		   ? -1
		   : 0;
}

static bool
huge_pages_free(void)
{
	void *p = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, LENGTH);
	return true;
}

static bool
gmem_faults(unsigned flags)
{
	int fd = new_guest_memfd(LENGTH, flags), uffd = -1;
	struct err unused;
	uint64_t features;
	bool can;
	void *p;

	p = fd == -1 ? MAP_FAILED
		     : mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	can = p != MAP_FAILED && uffd_create(&uffd, &unused) == 0 &&
	      uffd_handshake(uffd, &features, &unused) == 0 &&
	      uffd_register(uffd, (uintptr_t)p, LENGTH, &unused) == 0;
	if (p != MAP_FAILED)
		munmap(p, LENGTH);
	fd_close(&uffd);
	fd_close(&fd);
	return can;
}

const char *
takeover_lacks(const struct setup *how)
{
	if (how->huge && !huge_pages_free())
		return "no huge pages are free";
	if (how->gmem != 0 && !gmem_faults(how->gmem))
		return "this kernel has no such guest_memfd with userfaultfd";
	return NULL;
}
