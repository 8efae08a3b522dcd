/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_LAB_H
#define GMEM_TESTS_LAB_H

/*
 * What the checks of the lab kernel share: the interface of a kernel newer than
 * the headers, a server for userfaultfd events, and small guests in real mode.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tap.h"

#define PAGE 4096UL

/* The interface, under names of our own: the headers may have it or not. */

struct lab_create_gmem {
	uint64_t size, flags, reserved[6];
};

struct lab_region {
	uint32_t slot, flags;
	uint64_t gpa, size, userspace_addr, gmem_offset;
	uint32_t gmem, pad1;
	uint64_t userfault_bitmap, pad2[13];
};

struct lab_pre_fault {
	uint64_t gpa, size, flags, padding[5];
};

struct lab_memory_fault {
	uint64_t flags, gpa, size;
};

#define LAB_CREATE_GMEM _IOWR(KVMIO, 0xd4, struct lab_create_gmem)
#define LAB_SET_REGION _IOW(KVMIO, 0x49, struct lab_region)
#define LAB_PRE_FAULT _IOWR(KVMIO, 0xd5, struct lab_pre_fault)

#define LAB_CAP_GMEM 234
#define LAB_CAP_GMEM_FLAGS 244
#define LAB_CAP_USERFAULT 4000

#define LAB_GMEM_MMAP (1ULL << 0)
#define LAB_GMEM_SHARED (1ULL << 1)
#define LAB_GMEM_WRITE (1ULL << 2)
#define LAB_GMEM_NO_DIRECT_MAP (1ULL << 3)

#define LAB_MEM_GMEM (1U << 2)
#define LAB_MEM_USERFAULT (1U << 3)

#define LAB_EXIT_MEMORY_FAULT 39
#define LAB_EXIT_FLAG_USERFAULT (1ULL << 4)
#define LAB_MADV_POPULATE_READ 22
#define LAB_REGISTER_MISSING_MINOR (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

/* Fill a page so that each page has contents of its own, never zero. */
static inline void
fill(void *page, unsigned long number)
{
	for (size_t i = 0; i < PAGE / sizeof(uint32_t); i++)
		((uint32_t *)page)[i] =
		    (uint32_t)(i + (number >> 8 << 10)) << 16 | 0xa500U | (number & 0xff);
}

static inline bool
is_filled(const void *page, unsigned long number)
{
	uint32_t want[PAGE / sizeof(uint32_t)];

	fill(want, number);
	return memcmp(page, want, PAGE) == 0;
}

static inline bool
is_zero(const void *page)
{
	static const char zeroes[PAGE];

	return memcmp(page, zeroes, PAGE) == 0;
}

/* A word of a page, which may fault. */
static inline uint32_t
word32(const void *page, size_t index)
{
	return ((const volatile uint32_t *)page)[index];
}

static inline uint16_t
word16(const void *page, size_t index)
{
	return ((const volatile uint16_t *)page)[index];
}

static inline void
set_word32(void *page, size_t index, uint32_t value)
{
	((volatile uint32_t *)page)[index] = value;
}

/* Each returns the result of the call, or -errno. */

static inline long
result(long value)
{
	return value < 0 ? -errno : value;
}

static inline int
open_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0) {
		skip(1, "no /dev/kvm");
		exit(done());
	}
	return kvm;
}

static inline int
create_gmem(int vm, uint64_t size, uint64_t flags)
{
	struct lab_create_gmem args = { .size = size, .flags = flags };

	return (int)result(ioctl(vm, LAB_CREATE_GMEM, &args));
}

/* An INIT_SHARED guest_memfd; ends the test if the kernel has no such thing. */
static inline int
create_shared(int vm, uint64_t size)
{
	int fd = create_gmem(vm, size, LAB_GMEM_MMAP | LAB_GMEM_SHARED);

	if (fd < 0) {
		skip(1, "no guest_memfd to map: %s", strerror(-fd));
		exit(done());
	}
	return fd;
}

static inline char *
map_shared(int fd, size_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED) {
		ok(false, "mmap: %s", strerror(errno));
		exit(done());
	}
	return map;
}

/* A page of ordinary memory. */
static inline char *
page_alloc(size_t pages)
{
	return mmap(
	    NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static inline long
write_pages(int fd, const void *data, size_t size, off_t offset)
{
	return result(pwrite(fd, data, size, offset));
}

/* Write one page filled by its number. */
static inline long
write_page(int fd, unsigned long number)
{
	_Alignas(PAGE) char data[PAGE];

	fill(data, number);
	return write_pages(fd, data, PAGE, (off_t)(number * PAGE));
}

static inline long
punch(int fd, unsigned long number, unsigned long count)
{
	return result(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	    (off_t)(number * PAGE), (off_t)(count * PAGE)));
}

static inline long
preallocate(int fd, unsigned long number, unsigned long count)
{
	return result(
	    fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)(number * PAGE), (off_t)(count * PAGE)));
}

/* Whether the page at @address is in the page cache and has contents. */
static inline bool
is_present(void *address)
{
	unsigned char state = 0;

	return mincore(address, PAGE, &state) == 0 && (state & 1) != 0;
}

/* userfaultfd */

static inline int
uffd_open(int flags, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

static inline long
uffd_register(int fd, void *address, size_t size, uint64_t mode)
{
	struct uffdio_register args = { .range = { .start = (uintptr_t)address, .len = size },
		.mode = mode };

	return result(ioctl(fd, UFFDIO_REGISTER, &args));
}

static inline long
uffd_unregister(int fd, void *address, size_t size)
{
	struct uffdio_range args = { .start = (uintptr_t)address, .len = size };

	return result(ioctl(fd, UFFDIO_UNREGISTER, &args));
}

static inline long
uffd_continue(int fd, void *address, size_t size)
{
	struct uffdio_continue args = { .range = { .start = (uintptr_t)address, .len = size } };

	return result(ioctl(fd, UFFDIO_CONTINUE, &args));
}

static inline long
uffd_wake(int fd, void *address, size_t size)
{
	struct uffdio_range args = { .start = (uintptr_t)address, .len = size };

	return result(ioctl(fd, UFFDIO_WAKE, &args));
}

/*
 * A thread that answers events on a mapping of a guest_memfd: an absent page is
 * written, filled by its number, and then UFFDIO_CONTINUE.  It remembers the
 * last event and counts them.
 */
struct server {
	int uffd, gmem, stop[2];
	char *map;
	pthread_t thread;
	atomic_int missing, minor, errors, foreign;
	_Atomic uint64_t address, flags;
	_Atomic pid_t tid;
	_Atomic pid_t expected; /* events of other threads are foreign */
	bool foreigner; /* another process answers: nothing is known here */
};

static inline void
server_answer(struct server *s, const struct uffd_msg *msg)
{
	char *address = (char *)(uintptr_t)(msg->arg.pagefault.address & ~(PAGE - 1));
	unsigned long number = (unsigned long)(address - s->map) / PAGE;
	bool minor = (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0;
	long r;

	s->address = msg->arg.pagefault.address;
	s->flags = msg->arg.pagefault.flags;
	s->tid = (pid_t)msg->arg.pagefault.feat.ptid;
	if (s->tid != s->expected)
		s->foreign++;
	if (minor)
		s->minor++;
	else
		s->missing++;
	do {
		if (!minor) {
			r = write_page(s->gmem, number);
			if (r != (long)PAGE && r != -EEXIST)
				s->errors++;
		}
		r = uffd_continue(s->uffd, address, PAGE);
		minor = false; /* if it has been punched in between */
	} while (r == -EFAULT || r == -EAGAIN);
	if (r == -EEXIST)
		r = uffd_wake(s->uffd, address, PAGE);
	if (r < 0)
		s->errors++;
}

static inline void *
server_main(void *arg)
{
	struct server *s = arg;
	struct pollfd fds[] = { { .fd = s->uffd, .events = POLLIN },
		{ .fd = s->stop[0], .events = POLLIN } };
	struct uffd_msg msg;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			return NULL;
		if (read(s->uffd, &msg, sizeof(msg)) == (ssize_t)sizeof(msg) &&
		    msg.event == UFFD_EVENT_PAGEFAULT)
			server_answer(s, &msg);
	}
}

/* Returns 0, or -errno if @map can't be registered. */
static inline long
server_start(struct server *s, int gmem, char *map, size_t size)
{
	long r;

	memset(s, 0, sizeof(*s));
	s->gmem = gmem;
	s->map = map;
	s->uffd = uffd_open(0, UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EXACT_ADDRESS);
	if (s->uffd < 0)
		return s->uffd;
	r = uffd_register(s->uffd, map, size, LAB_REGISTER_MISSING_MINOR);
	if (r < 0)
		return r;
	if (pipe(s->stop) < 0 || pthread_create(&s->thread, NULL, server_main, s) != 0)
		return -EAGAIN;
	return 0;
}

static inline void
server_clear(struct server *s)
{
	s->missing = s->minor = s->errors = s->foreign = 0;
	s->address = s->flags = 0;
	s->tid = s->expected = 0;
}

/* So many events since server_clear; -1: any number. */
static inline bool
server_saw(struct server *s, int missing, int minor)
{
	if (s->foreigner ||
	    (s->missing == missing && (minor == -1 || s->minor == minor) && s->errors == 0))
		return true;
	printf("# missing %d, minor %d, errors %d\n", s->missing, s->minor, s->errors);
	return false;
}

static inline void
server_stop(struct server *s)
{
	if (write(s->stop[1], "", 1) == 1)
		pthread_join(s->thread, NULL);
	close(s->stop[0]);
	close(s->stop[1]);
	close(s->uffd);
}

/* Guests */

#define CODE_GPA 0x1000UL
#define DATA_GPA 0x10000UL

/*
 *	mov ax, 0x1000; mov ds, ax; xor bx, bx
 * 1:	mov ax, [bx]; out 0x10, ax; add bx, 0x1000; cmp bx, 0x4000; jne 1b
 *	mov word [bx], 0x1234; out 0x11, ax; hlt
 */
static const uint8_t guest_reads_four[] = { 0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x31, 0xdb, 0x8b,
	0x07, 0xe7, 0x10, 0x81, 0xc3, 0x00, 0x10, 0x81, 0xfb, 0x00, 0x40, 0x75, 0xf2, 0xc7,
	0x07, 0x34, 0x12, 0xe7, 0x11, 0xf4 };

/* What it sends to port 0x10 for a page that was filled. */
#define GUEST_VALUE(number) ((uint16_t)(0xa500U | ((number)&0xff)))

struct vcpu {
	int fd;
	struct kvm_run *run;
	pid_t tid;
	uint16_t out[16];
	int outs, mmio;
	bool finished; /* wrote to port 0x11 or halted */
	long error;
};

static inline long
set_region(int vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, void *address,
    int gmem, uint64_t offset, void *bitmap)
{
	struct lab_region args = { .slot = slot,
		.flags = flags,
		.gpa = gpa,
		.size = size,
		.userspace_addr = (uintptr_t)address,
		.gmem_offset = offset,
		.gmem = (uint32_t)gmem,
		.userfault_bitmap = (uintptr_t)bitmap };

	return result(ioctl(vm, LAB_SET_REGION, &args));
}

static inline bool
vcpu_create(struct vcpu *v, int kvm, int vm, int id, uint16_t cs, uint64_t rip, uint64_t rflags)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_regs regs = { .rip = rip, .rflags = rflags | 2, .rsp = 0x800 };
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE }; /* with an irqchip */
	struct kvm_sregs sregs;

	memset(v, 0, sizeof(*v));
	v->fd = ioctl(vm, KVM_CREATE_VCPU, id);
	if (v->fd < 0 || size < 0)
		return false;
	v->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED || ioctl(v->fd, KVM_GET_SREGS, &sregs) < 0)
		return false;
	sregs.cs.base = (uint64_t)cs << 4;
	sregs.cs.selector = cs;
	if (id > 0)
		ioctl(v->fd, KVM_SET_MP_STATE, &runnable);
	return ioctl(v->fd, KVM_SET_SREGS, &sregs) == 0 &&
	       ioctl(v->fd, KVM_SET_REGS, &regs) == 0;
}

/* Run until the guest has finished, or KVM_RUN fails. */
static inline void
vcpu_run(struct vcpu *v)
{
	v->error = 0;
	v->tid = (pid_t)syscall(SYS_gettid);
	while (!v->finished && v->error == 0) {
		if (ioctl(v->fd, KVM_RUN, 0) < 0) {
			if (errno != EINTR)
				v->error = -errno;
			continue;
		}
		switch (v->run->exit_reason) {
		case KVM_EXIT_IO:
			if (v->run->io.port == 0x11)
				v->finished = true;
			else if (v->outs < 16)
				memcpy(&v->out[v->outs++],
				    (char *)v->run + v->run->io.data_offset, sizeof(v->out[0]));
			break;
		case KVM_EXIT_MMIO:
			v->mmio++;
			memset(v->run->mmio.data, 0x5a, sizeof(v->run->mmio.data));
			break;
		case KVM_EXIT_HLT:
			v->finished = true;
			break;
		default:
			printf("# exit reason %u\n", v->run->exit_reason);
			v->error = -EPROTO;
		}
	}
}

/* Of KVM_EXIT_MEMORY_FAULT. */
static inline const struct lab_memory_fault *
vcpu_memory_fault(const struct vcpu *v)
{
	return (const void *)&v->run->hw;
}

static inline void
vcpu_destroy(int kvm, struct vcpu *v)
{
	munmap(v->run, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(v->fd);
}

static inline long
vcpu_set_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
	_Alignas(struct kvm_msrs) char
	    room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] = { 0 };
	struct kvm_msrs *msrs = (void *)room;

	msrs->nmsrs = 1;
	msrs->entries[0] = (struct kvm_msr_entry){ .index = index, .data = value };
	return result(ioctl(v->fd, KVM_SET_MSRS, msrs));
}

#endif
