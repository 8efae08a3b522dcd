/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/layout.h"
#include "serve/stats.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Linux 6.6; the headers may be older. */
#ifndef UFFDIO_POISON
#define UFFD_FEATURE_POISON (1 << 14)
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#define EVENTS_MAX 16

static int kept = -1; /* /dev/userfaultfd */
static bool looked; /* and there is no looking again */

static int
open_device(void)
{
	return open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
}

bool
uffd_keep_device(void)
{
	if (!looked)
		kept = open_device();
	looked = true;
	return kept != -1;
}

int
uffd_create(int *fd, struct err *e)
{
	int dev = looked ? kept : open_device();

	*fd = -1;
	if (dev != -1)
		*fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	if (dev != kept)
		close(dev);
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
	return uffd_block(fd, e);
}

int
uffd_block(int fd, struct err *e)
{
	/* Whoever reads it waits in read(2). */
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == -1)
		return err_sys(e, "userfaultfd");
	return 0;
}

int
uffd_unblock(int fd, struct err *e)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags == -1 ||
	    ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1))
		return err_sys(e, "userfaultfd");
	return 0;
}

bool
uffd_is_ready(int fd, struct err *e)
{
	/* It wakes nobody, and only a userfaultfd after its handshake does that. */
	struct uffdio_range somewhere = { .start = UINT64_C(1) << 30, .len = PAGE_GRANULE };

	if (ioctl(fd, UFFDIO_WAKE, &somewhere) == 0)
		return true;
	err_sys(e, "the descriptor is no userfaultfd, or had no handshake");
	return false;
}

int
uffd_adopt(int fd, struct err *e)
{
	return uffd_is_ready(fd, e) ? uffd_unblock(fd, e) : -1;
}

static int
register_mode(int fd, uint64_t hva, uint64_t len, uint64_t mode, struct err *e)
{
	struct uffdio_register reg = {
		.range = { .start = hva, .len = len },
		.mode = mode,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &reg) == -1)
		return err_sys(e, "register %llu bytes at %#llx with userfaultfd",
		    (unsigned long long)len, (unsigned long long)hva);
	return 0;
}

int
uffd_register(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	return register_mode(
	    fd, hva, len, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR, e);
}

int
uffd_register_missing(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	return register_mode(fd, hva, len, UFFDIO_REGISTER_MODE_MISSING, e);
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

	crossing();
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

static const char *
name_other(const struct uffd_msg *msg)
{
	if (msg->event == UFFD_EVENT_REMAP)
		return "moves memory (mremap)";
	if (msg->event != UFFD_EVENT_FORK)
		return "does something unknown with its memory";
	return "makes a child (fork) that has its memory";
}

/* Of a child; without it, it would see zeros.  Not of a message that another process has read.
 */
static void
close_child(const struct uffd_msg *msg)
{
	int fd = (int)msg->arg.fork.ufd;

	if (msg->event == UFFD_EVENT_FORK)
		fd_close(&fd);
}

static void
understand(struct uffd_event *ev, const struct uffd_msg *msg)
{
	*ev = (struct uffd_event){ .kind = UFFD_EV_FAULT };
	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		ev->fault.hva = msg->arg.pagefault.address;
		ev->fault.write = (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		ev->kind = msg->event == UFFD_EVENT_REMOVE ? UFFD_EV_REMOVE : UFFD_EV_UNMAP;
		ev->start = msg->arg.remove.start;
		ev->end = msg->arg.remove.end;
		break;
	default:
		ev->kind = UFFD_EV_OTHER;
		ev->name = name_other(msg);
	}
}

int
uffd_slot_events(const void *slot, struct uffd_event list[UFFD_EVENTS_MAX])
{
	const struct uffd_msg *msgs = slot;
	int n = 0;

	/* There is no event 0. */
	for (; n < UFFD_EVENTS_MAX && msgs[n].event != 0; n++)
		understand(&list[n], &msgs[n]);
	return n;
}

int
uffd_read_events(int fd, void *slot, struct uffd_event list[UFFD_EVENTS_MAX], struct err *e)
{
	struct uffd_msg own[UFFD_EVENTS_MAX], *msgs = slot != NULL ? slot : own;
	struct iovec iov = { msgs, sizeof(own) };
	ssize_t got;
	int n;

	_Static_assert(sizeof(own) == UFFD_EVENTS_BYTES, "the slot's size");
	/* What was in there was applied. */
	memset(msgs, 0, sizeof(own));
	crossing();
	/* Its owner may have made it block; before Linux 6.10 there is no other way. */
	got = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	if (got == -1 && errno == EOPNOTSUPP)
		got = read(fd, msgs, sizeof(own));
	if (got == -1 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (got == -1)
		return err_sys(e, "read userfaultfd");
	n = (int)((size_t)got / sizeof(msgs[0]));
	for (int i = 0; i < n; i++) {
		understand(&list[i], &msgs[i]);
		close_child(&msgs[i]);
	}
	return n;
}

enum uffd_result
uffd_wake(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_range range = { .start = hva, .len = len };

	crossing();
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

		crossing();
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

/* What the errors of COPY and ZEROPAGE mean; bytes: what the call told. */
static enum uffd_result
outcome(int64_t bytes, uint64_t *done)
{
	switch (errno) {
	case EAGAIN:
		/* The error that stopped it is told by the next call. */
		*done = bytes > 0 ? (uint64_t)bytes : 0;
		return bytes > 0 ? UFFD_DONE : UFFD_BUSY;
	case EEXIST:
		return UFFD_PRESENT;
	case ENOENT:
		return UFFD_GONE;
	case ESRCH:
		return UFFD_DEAD;
	default:
		return UFFD_FAILED;
	}
}

/* Fields are 0 before the call: not every kernel fills them in when it fails. */
enum uffd_result
uffd_zeropage(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_zeropage z = { .range = { .start = hva, .len = len } };
	enum uffd_result r;
	uint64_t done;

	crossing();
	if (ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0)
		return UFFD_DONE;
	r = outcome(z.zeropage, &done);
	if (r == UFFD_DONE)
		return UFFD_PRESENT;
	if (r == UFFD_FAILED)
		err_sys(e, "%llu bytes of zeros at %#llx", (unsigned long long)len,
		    (unsigned long long)hva);
	return r;
}

enum uffd_result
uffd_copy(int fd, uint64_t hva, const void *from, uint64_t len, uint64_t *done, struct err *e)
{
	struct uffdio_copy c = { .dst = hva, .src = (uintptr_t)from, .len = len };
	enum uffd_result r;

	*done = 0;
	crossing();
	if (ioctl(fd, UFFDIO_COPY, &c) == 0) {
		*done = len;
		return UFFD_DONE;
	}
	/* So kernels say it that have no huge page left. */
	if (errno == ENOSPC)
		errno = ENOMEM;
	r = outcome(c.copy, done);
	if (r == UFFD_FAILED)
		err_sys(e, "copy %llu bytes to %#llx", (unsigned long long)len,
		    (unsigned long long)hva);
	return r;
}

bool
uffd_can_poison(uint64_t features)
{
	return (features & UFFD_FEATURE_POISON) != 0;
}

enum uffd_result
uffd_poison(int fd, uint64_t hva, uint64_t len, struct err *e)
{
	struct uffdio_poison p = { .range = { .start = hva, .len = len } };
	enum uffd_result r;
	uint64_t done;

	crossing();
	if (ioctl(fd, UFFDIO_POISON, &p) == 0)
		return UFFD_DONE;
	r = outcome(p.updated, &done);
	if (r == UFFD_DONE)
		return UFFD_PRESENT;
	if (r == UFFD_FAILED && (errno == EINVAL || errno == ENOTTY))
		err_set(e, ERR_UNSUPPORTED,
		    "this kernel cannot poison pages of this memory (UFFDIO_POISON, Linux "
		    "6.6)");
	else if (r == UFFD_FAILED)
		err_sys(e, "poison %llu bytes at %#llx", (unsigned long long)len,
		    (unsigned long long)hva);
	return r;
}
