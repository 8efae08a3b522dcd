/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * What memory/host.c finds out about kernels that this machine does not run: open, ioctl,
 * pwrite and madvise take the place of the C library's, and a memfd plays the guest_memfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "memory/host.h"
#include "serve/host.h"
#include "tap.h"

/* A kernel. */
static struct {
	bool no_kvm;
	bool guest_memfd;
	unsigned flags; /* offered */
	unsigned write_with; /* write(2) works with these flags, 0: never */
	int again; /* errno of a second write of a page */
	unsigned undirect; /* the flag that takes pages out of the direct map */
	bool userfault_cap, userfault;
	bool
	    bit_is_something_else; /* the flag of KVM userfault is taken, and means no bitmap */
} k;

#define VM 900 /* no descriptor */
#define ALWAYS 0x80000000u

/* The guest_memfd that was made last. */
static struct {
	int fd;
	unsigned flags;
	bool written;
} gmem;

struct create {
	uint64_t size, flags, reserved[6];
};

int
open(const char *path, int flags, ...)
{
	if (strcmp(path, "/dev/kvm") == 0 && k.no_kvm) {
		errno = EACCES;
		return -1;
	}
	if (strcmp(path, "/dev/kvm") == 0)
		path = "/dev/null";
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0);
}

static int
fail(int sysno)
{
	errno = sysno;
	return -1;
}

static int
create(const struct create *c)
{
	if (!k.guest_memfd)
		return fail(EINVAL);
	if ((c->flags & ~(uint64_t)k.flags) != 0)
		return fail(EINVAL);
	gmem.fd = memfd_create("stand-in", MFD_CLOEXEC);
	gmem.flags = (unsigned)c->flags;
	gmem.written = false;
	/* One that is private has pages, but SIGBUS is what touching them gives. */
	if ((gmem.flags & 2) != 0 && ftruncate(gmem.fd, (off_t)c->size) == -1)
		return -1;
	return gmem.fd;
}

static int
check_extension(unsigned long cap)
{
	switch (cap) {
	case 234:
		return k.guest_memfd;
	case 244:
		return (int)k.flags;
	case 4000:
		return k.userfault_cap;
	default:
		return 0;
	}
}

static int
set_region2(const uint32_t *region)
{
	uint64_t bitmap;

	memcpy(&bitmap, region + 12, sizeof(bitmap));
	if (region[1] != 8 || (!k.userfault && !k.bit_is_something_else))
		return fail(EINVAL);
	if (!k.bit_is_something_else && bitmap % 8 != 0)
		return fail(EINVAL);
	return 0;
}

int
ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	switch (request) {
	case KVM_CREATE_VM:
		return (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
	case KVM_CHECK_EXTENSION:
		return check_extension((unsigned long)(uintptr_t)arg);
	case _IOWR(KVMIO, 0xd4, struct create):
		return create(arg);
	case _IOW(KVMIO, 0x49, char[160]):
		return set_region2(arg);
	default:
		return (int)syscall(SYS_ioctl, fd, request, arg);
	}
}

ssize_t
pwrite(int fd, const void *buf, size_t len, off_t off)
{
	if (fd != gmem.fd)
		return syscall(SYS_pwrite64, fd, buf, len, off);
	if (k.write_with == 0)
		return fail(ESPIPE);
	if (k.write_with != ALWAYS && (gmem.flags & k.write_with) == 0)
		return fail(ENODEV);
	if (len % 4096 != 0)
		return fail(EINVAL);
	if (gmem.written && k.again != 0)
		return fail(k.again);
	gmem.written = true;
	return (ssize_t)len;
}

int
madvise(void *p, size_t len, int advice)
{
	if (advice == 22 && k.undirect != 0 && (gmem.flags & k.undirect) != 0)
		return fail(EFAULT);
	return (int)syscall(SYS_madvise, p, len, advice);
}

static struct memory_host
probe(void)
{
	struct memory_host host;

	gmem.fd = -1;
	memory_host_probe(&host);
	gmem.fd = -1;
	return host;
}

static void
test_none(void)
{
	struct memory_host h;

	memset(&k, 0, sizeof(k));
	k.no_kvm = true;
	h = probe();
	ok(!h.kvm && h.kvm_errno == EACCES && !h.guest_memfd, "no KVM");
	memset(&k, 0, sizeof(k));
	h = probe();
	ok(h.kvm && !h.guest_memfd && !h.guest_memfd_made && !h.userfault, "6.7");
	k.guest_memfd = true;
	h = probe();
	ok(h.guest_memfd_made && !h.guest_memfd_shared && !h.guest_memfd_write, "6.8");
	ok(h.guest_memfd_write_errno == ESPIPE, "6.8: write says %s",
	    strerror(h.guest_memfd_write_errno));
}

static void
test_release(void)
{
	struct memory_host h;
	struct err e = ERR_INIT;
	int fd;

	memset(&k, 0, sizeof(k));
	k.guest_memfd = true;
	k.flags = 1;
	h = probe();
	ok(h.guest_memfd_mmap && !h.guest_memfd_shared, "mapped, but private");
	k.flags = 3;
	h = probe();
	ok(h.guest_memfd_mmap && h.guest_memfd_shared && !h.guest_memfd_write &&
		h.guest_memfd_write_errno == ESPIPE && !h.userfault && !h.userfault_cap &&
		h.guest_memfd_undirect_flag == 0,
	    "6.18 and 7.3");
	ok(memory_host_guest_memfd(&h, &fd, &e) == 0 && gmem.flags == 3,
	    "one to try things on: %s", e.msg);
	close(fd);
}

static void
test_write(void)
{
	struct memory_host h;
	struct err e = ERR_INIT;
	int fd;

	memset(&k, 0, sizeof(k));
	k.guest_memfd = true;
	k.flags = 3;
	k.write_with = ALWAYS;
	k.again = EEXIST;
	h = probe();
	ok(h.guest_memfd_write && h.guest_memfd_write_flag == 0 &&
		h.guest_memfd_again_errno == EEXIST,
	    "write(2) without a flag, once: EEXIST");
	k.again = ENOSPC;
	h = probe();
	ok(h.guest_memfd_write && h.guest_memfd_again_errno == ENOSPC, "once: ENOSPC");
	k.again = 0;
	h = probe();
	ok(h.guest_memfd_write && h.guest_memfd_again_errno == 0, "overwrites");
	k.write_with = 4;
	h = probe();
	ok(!h.guest_memfd_write && h.guest_memfd_write_errno == ENODEV,
	    "a flag that is not offered is not tried");
	k.flags = 7;
	h = probe();
	ok(h.guest_memfd_write && h.guest_memfd_write_errno == 0 &&
		h.guest_memfd_write_flag == 4 && h.guest_memfd_undirect_flag == 0,
	    "write(2) with flag 4");
	ok(memory_host_guest_memfd(&h, &fd, &e) == 0 && gmem.flags == 7,
	    "which one to try things on has: %s", e.msg);
	close(fd);
}

static void
test_undirect(void)
{
	struct memory_host h;

	memset(&k, 0, sizeof(k));
	k.guest_memfd = true;
	k.flags = 0xb;
	k.undirect = 8;
	k.write_with = ALWAYS;
	k.again = EEXIST;
	h = probe();
	ok(h.guest_memfd_undirect_flag == 8 && h.guest_memfd_write &&
		h.guest_memfd_write_flag == 0,
	    "flag 8 takes pages out of the direct map");
	k.flags = 7;
	k.undirect = 4;
	k.write_with = 0;
	h = probe();
	ok(h.guest_memfd_undirect_flag == 4 && !h.guest_memfd_write,
	    "flag 4 may be that one, too");
}

static void
test_userfault(void)
{
	struct memory_host h;

	memset(&k, 0, sizeof(k));
	k.userfault = true;
	h = probe();
	ok(!h.userfault && !h.userfault_cap, "a flag without the capability is not enough");
	k.userfault_cap = true;
	h = probe();
	ok(h.userfault && h.userfault_cap && h.userfault_errno == 0, "KVM userfault");
	k.userfault = false;
	h = probe();
	ok(!h.userfault && h.userfault_cap && h.userfault_errno == EINVAL,
	    "nor is the capability alone");
	k.bit_is_something_else = true;
	h = probe();
	ok(!h.userfault, "nor a flag that takes any bitmap");
}

/* What follows for a restore. */
static void
test_engine(void)
{
	struct serve_host host = { .device = true };
	struct serve_modes modes = { .tried = true };

	ok(serve_engine_slots(&host, &modes, true) == SERVE_EAGER,
	    "slots: eager, without userfaultfd KVM's own accesses would see zeros");
	modes.both = true;
	ok(serve_engine_choose(&host, &modes) == SERVE_EAGER,
	    "eager: what is put there cannot be mapped");
	modes.resolves = true;
	ok(serve_engine_choose(&host, &modes) == SERVE_MAP_CONTINUE, "map-continue");
	ok(serve_engine_slots(&host, &modes, true) == SERVE_USERFAULT, "slots: userfault");
	ok(serve_engine_slots(&host, &modes, false) == SERVE_EAGER, "slots: eager");
	modes.writes = true;
	ok(serve_engine_choose(&host, &modes) == SERVE_CONTINUE, "continue");
	host.device = false;
	ok(serve_engine_choose(&host, &modes) == SERVE_EAGER, "no userfaultfd");
	ok(strcmp(serve_engine_name(SERVE_USERFAULT), "userfault") == 0, "its name");
}

int
main(void)
{
	test_none();
	test_release();
	test_write();
	test_undirect();
	test_userfault();
	test_engine();
	return done();
}
