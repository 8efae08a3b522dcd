/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/ckd.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define EVENTS_MAX 16

int
uffd_create(int *fd, struct err *e)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	*fd = -1;
	if (dev != -1) {
		*fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
		close(dev);
	}
	if (*fd == -1)
		*fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (*fd != -1)
		return 0;
	if (errno == EPERM)
		return err_set(
		    e, ERR_FAILED, "no permission for userfaultfd: %s", UFFD_PERMISSION_HELP);
	return err_sys(e, "create a userfaultfd");
}

int
uffd_handshake(int fd, uint64_t *features, struct err *e)
{
	const uint64_t wanted = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
				UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS;
	struct uffdio_api api = { .api = UFFD_API, .features = wanted };

	if (ioctl(fd, UFFDIO_API, &api) == -1) {
		if (errno == EINVAL)
			return err_set(e, ERR_UNSUPPORTED,
			    "this kernel has no userfaultfd minor faults (Linux 5.14 has "
			    "them); "
			    "use --eager");
		return err_sys(e, "userfaultfd handshake");
	}
	*features = api.features;
	/* Whoever reads it waits in read(2). */
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == -1)
		return err_sys(e, "userfaultfd");
	return 0;
}

int
uffd_register(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_register reg = {
		.range = { .start = hva, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &reg) == -1)
		return err_sys(e, "register %llu bytes at %#llx with userfaultfd",
		    (unsigned long long)len, (unsigned long long)hva);
	return 0;
}

int
uffd_unregister(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_range range = { .start = hva, .len = len };

	if (ioctl(fd, UFFDIO_UNREGISTER, &range) == -1)
		return err_sys(e, "unregister %llu bytes at %#llx from userfaultfd",
		    (unsigned long long)len, (unsigned long long)hva);
	return 0;
}

static int
read_events(int fd, struct uffd_fault *list, size_t max, int flags, struct err *e)
{
	struct uffd_msg msgs[EVENTS_MAX];
	struct iovec iov = { msgs, MIN(max, EVENTS_MAX) * sizeof(msgs[0]) };
	ssize_t got;
	int n = 0;

	got = preadv2(fd, &iov, 1, -1, flags);
	if (got == -1 &&
	    (errno == EINTR || errno == EAGAIN || (flags != 0 && errno == EOPNOTSUPP)))
		return 0;
	if (got == -1)
		return err_sys(e, "read userfaultfd");
	for (size_t i = 0; i < (size_t)got / sizeof(msgs[0]); i++) {
		uint64_t bits = msgs[i].arg.pagefault.flags;

		/* No other event was asked for in the handshake. */
		if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
			continue;
		list[n].hva = msgs[i].arg.pagefault.address;
		list[n].write = (bits & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
		list[n].minor = (bits & UFFD_PAGEFAULT_FLAG_MINOR) != 0;
		n++;
	}
	return n;
}

int
uffd_read(int fd, struct uffd_fault *list, size_t max, struct err *e)
{
	return read_events(fd, list, max, 0, e);
}

int
uffd_peek(int fd, struct uffd_fault *list, size_t max, struct err *e)
{
	return read_events(fd, list, max, RWF_NOWAIT, e);
}

enum uffd_result
uffd_wake(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_range range = { .start = hva, .len = len };

	if (ioctl(fd, UFFDIO_WAKE, &range) == 0)
		return UFFD_DONE;
	err_sys(
	    e, "wake %llu bytes at %#llx", (unsigned long long)len, (unsigned long long)hva);
	return UFFD_FAILED;
}

/* kernel.md §6.3 has every return value of these ioctls, measured. */
enum uffd_result
uffd_continue(
    int fd, uint64_t hva, uint64_t len, uint64_t page_size, uint64_t *done, struct err *e)
{
	uint64_t at = 0;
	enum uffd_result r = UFFD_DONE;

	while (at < len && r == UFFD_DONE) {
		struct uffdio_continue c = { .range = { .start = hva + at, .len = len - at } };

		if (ioctl(fd, UFFDIO_CONTINUE, &c) == 0) {
			at = len;
		} else if (errno == EAGAIN) {
			/* Some were mapped, or the address space is changing right now. */
			if (c.mapped > 0)
				at += (uint64_t)c.mapped;
			else
				sched_yield();
		} else if (errno == EEXIST) {
			r = uffd_wake(fd, hva + at, page_size, e);
			at += page_size;
		} else if (errno == EFAULT) {
			r = UFFD_HOLE;
		} else if (errno == ENOENT) {
			r = UFFD_GONE;
		} else if (errno == ESRCH) {
			r = UFFD_DEAD;
		} else {
			err_sys(e, "map %llu bytes at %#llx", (unsigned long long)(len - at),
			    (unsigned long long)(hva + at));
			r = UFFD_FAILED;
		}
	}
	*done = MIN(at, len);
	return r;
}

enum uffd_result
uffd_zeropage(int fd, uint64_t hva, uint64_t len, bool *present, struct err *e)
{
	uint64_t at = 0;

	*present = false;
	while (at < len) {
		struct uffdio_zeropage z = { .range = { .start = hva + at, .len = len - at } };

		if (ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0)
			return UFFD_DONE;
		if (errno == EAGAIN) {
			if (z.zeropage > 0)
				at += (uint64_t)z.zeropage;
			else
				sched_yield();
		} else if (errno == EEXIST) {
			*present = true;
			return UFFD_DONE;
		} else if (errno == ENOENT) {
			return UFFD_GONE;
		} else if (errno == ESRCH) {
			return UFFD_DEAD;
		} else {
			err_sys(e, "zero %llu bytes at %#llx", (unsigned long long)(len - at),
			    (unsigned long long)(hva + at));
			return UFFD_FAILED;
		}
	}
	return UFFD_DONE;
}
