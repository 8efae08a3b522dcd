/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Loaded into an unmodified VMM by LD_PRELOAD.  It watches how the VMM maps its
 * guest memory and hands that over to gmem-restore: see gmem-handoff.h.
 *
 * The descriptors of the memory come from gmem-restore by the hand-off, to the
 * numbers that are in the VMM's arguments.  So a program that this object was
 * not loaded into (static, setuid, started with a clean environment) cannot
 * open the memory at all, rather than read zeros from it.
 *
 * Everything here runs in somebody else's process: no threads, no signal
 * handlers, no allocation, system calls made directly where wrapping a function
 * of libc could come back to us.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/falloc.h>

#include "gmem-handoff-client.h"

#define PUBLIC __attribute__((visibility("default")))

/* A mapping that was handed over. */
struct area {
	uintptr_t address;
	size_t length;
	uint32_t region;
	uint64_t offset;
};

#define AREAS_MAX 256
#define PAGE 4096u

static struct {
	pthread_mutex_t lock;
	struct gmem_handoff handoff; /* .sock -1: nobody to talk to */
	pid_t pid; /* who all this belongs to: not a child after fork */
	unsigned nareas;
	struct area areas[AREAS_MAX];
} shim = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.handoff = { .sock = -1, .lifeline = -1, .userfaultfd = -1 },
};

/* Guest memory would be wrong from here on: end, with a word about why. */
static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(line), "gmem-shim: ");
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) == -1)
		_exit(126);
	_exit(126);
}

static void *
raw_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	long result = syscall(SYS_mmap, addr, length, prot, flags, fd, offset);

	return (void *)result;
}

static void *
raw_mremap(void *old, size_t old_length, size_t new_length, int flags, void *to)
{
	long result = syscall(SYS_mremap, old, old_length, new_length, flags, to);

	return (void *)result;
}

static size_t
round_up(size_t length, uint64_t unit)
{
	return (length + (size_t)unit - 1) & ~((size_t)unit - 1);
}

/* ---- the conversation ---- */

/* Nothing to be done about an error reply: guest memory would not be served. */
static void
must(int rc)
{
	if (rc == -1)
		die("%s", shim.handoff.error);
}

static void __attribute__((noreturn, format(printf, 1, 2))) refuse(const char *fmt, ...)
{
	struct gmem_message m = { .type = GMEM_REFUSE };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	must(gmem_request(&shim.handoff, &m, NULL, 0));
	die("%s", m.text);
}

/* Moves the received descriptors out of the way of the numbers that are wanted. */
static void
clear_numbers(struct gmem_handoff *h)
{
	int above = 0;

	for (uint32_t i = 0; i < h->nregions; i++)
		if (h->fds[i] != -1 && (int)h->regions[i].fd >= above)
			above = (int)h->regions[i].fd + 1;
	for (uint32_t i = 0; i <= h->nregions; i++) {
		int *from = i < h->nregions ? &h->fds[i] : &h->lifeline, fd;

		if (*from == -1)
			continue;
		fd = fcntl(*from, F_DUPFD_CLOEXEC, above);
		if (fd == -1)
			die("descriptor: %s", strerror(errno));
		close(*from);
		*from = fd;
	}
}

/* Puts each descriptor at the number that the arguments of this program name. */
static void
place_descriptors(struct gmem_handoff *h)
{
	clear_numbers(h);
	for (uint32_t i = 0; i < h->nregions; i++) {
		int number = (int)h->regions[i].fd;

		if (h->fds[i] == -1)
			continue;
		if (dup3(h->fds[i], number, O_CLOEXEC) == -1)
			die("descriptor %d: %s", number, strerror(errno));
		close(h->fds[i]);
		h->fds[i] = number;
	}
}

static void
say_hello(void)
{
	struct gmem_handoff *h = &shim.handoff;
	const char *where = getenv(GMEM_HANDOFF_ENV);

	shim.pid = getpid();
	if (where == NULL)
		return;
	if (gmem_connect(h, where) == -1) {
		if (h->sock != -1)
			close(h->sock);
		h->sock = -1;
		return;
	}
	must(gmem_hello(h));
	place_descriptors(h);
}

/* A child after fork has its own address space and no part in our conversation. */
static void
leave_conversation(void)
{
	struct gmem_handoff *h = &shim.handoff;

	if (h->sock != -1)
		close(h->sock);
	if (h->lifeline != -1)
		close(h->lifeline);
	h->sock = h->lifeline = h->userfaultfd = -1;
	shim.nareas = 0;
}

static void
after_fork(void)
{
	pthread_mutex_init(&shim.lock, NULL);
	leave_conversation();
}

static void __attribute__((constructor)) start(void)
{
	if (getenv(GMEM_HANDOFF_ENV) == NULL)
		return;
	pthread_atfork(NULL, NULL, after_fork);
	say_hello();
}

/* ---- what the VMM does with its memory ---- */

static const struct gmem_region *
region_of(int fd)
{
	const struct gmem_handoff *h = &shim.handoff;
	struct stat st;

	if (h->nregions == 0 || fd < 0 || fstat(fd, &st) == -1)
		return NULL;
	for (uint32_t i = 0; i < h->nregions; i++)
		if (h->regions[i].fd != GMEM_NO_FD && h->regions[i].ino == st.st_ino &&
		    h->regions[i].dev == st.st_dev)
			return &h->regions[i];
	return NULL;
}

static uint32_t
number_of(const struct gmem_region *r)
{
	return (uint32_t)(r - shim.handoff.regions);
}

static void
hand_over_userfaultfd(void)
{
	struct gmem_handoff *h = &shim.handoff;

	if (shim.pid != getpid()) {
		/* clone(2) and _Fork(3) do not call after_fork. */
		leave_conversation();
		say_hello();
	}
	if (h->userfaultfd != -1)
		return;
	if (h->sock == -1)
		die("gmem-restore does not listen any more");
	if (gmem_handoff_userfaultfd(h) == -1) {
		if (h->userfaultfd == -1)
			refuse("the VMM cannot create a %s", h->error);
		must(-1);
	}
}

static void
remember(uintptr_t address, size_t length, uint32_t region, uint64_t offset)
{
	if (shim.nareas == AREAS_MAX)
		refuse("the VMM maps its memory more than %d times", AREAS_MAX);
	shim.areas[shim.nareas++] = (struct area){ address, length, region, offset };
}

/* Forgets what was in [address, address + length); of an area both ends may stay. */
static void
forget(uintptr_t address, size_t length)
{
	uintptr_t end = address + length;

	/* Downwards: what is remembered meanwhile goes to the end of the list. */
	for (unsigned i = shim.nareas; i-- > 0;) {
		struct area a = shim.areas[i];
		uintptr_t area_end = a.address + a.length;

		if (address >= area_end || end <= a.address)
			continue;
		shim.areas[i] = shim.areas[--shim.nareas];
		if (address > a.address)
			remember(a.address, address - a.address, a.region, a.offset);
		if (end < area_end)
			remember(end, area_end - end, a.region, a.offset + (end - a.address));
	}
}

/* Calls fn for each part of [address, address + length) that was handed over. */
static void
each_area(uintptr_t address, size_t length, void (*fn)(const struct area *part))
{
	for (unsigned i = 0; i < shim.nareas; i++) {
		const struct area *a = &shim.areas[i];
		uintptr_t start = address > a->address ? address : a->address;
		uintptr_t end = address + length, area_end = a->address + a->length;
		struct area part;

		if (end > area_end)
			end = area_end;
		if (start >= end)
			continue;
		part = (struct area){ start, end - start, a->region,
			a->offset + (start - a->address) };
		fn(&part);
	}
}

static void
tell_unmap(const struct area *part)
{
	must(gmem_handoff_unmap(&shim.handoff, (void *)part->address, part->length));
}

static void
tell_discard(const struct area *part)
{
	must(gmem_handoff_discard(&shim.handoff, part->region, part->offset, part->length));
}

/* Our conversation is this process's, and there may be something to say. */
static bool
in_charge(void)
{
	return shim.nareas != 0 && shim.pid == getpid();
}

/* The range touches what was handed over. */
static bool
concerned(uintptr_t address, size_t length)
{
	for (unsigned i = 0; i < shim.nareas; i++)
		if (address < shim.areas[i].address + shim.areas[i].length &&
		    address + length > shim.areas[i].address)
			return true;
	return false;
}

/*
 * The range is not what it was any more.  Called with the lock held since
 * before the system call: nobody can have handed over the same place again.
 */
static void
unmapped(void *address, size_t length)
{
	each_area((uintptr_t)address, length, tell_unmap);
	forget((uintptr_t)address, length);
}

static void
hand_over(void *address, size_t length, const struct gmem_region *r, uint64_t offset)
{
	length = round_up(length, r->page_size);
	must(gmem_handoff_map(
	    &shim.handoff, number_of(r), address, length, offset, GMEM_NO_ADDRESS));
	remember((uintptr_t)address, length, number_of(r), offset);
}

/*
 * Until it is registered a mapping cannot be accessed: neither other threads,
 * nor MAP_POPULATE, nor an mlockall before, can fill it with zeros.
 */
static void *
map_object(void *addr, size_t length, int prot, int flags, int fd, off_t offset,
    const struct gmem_region *r)
{
	void *p;

	pthread_mutex_lock(&shim.lock);
	hand_over_userfaultfd();
	if ((flags & MAP_TYPE) == MAP_PRIVATE)
		refuse("the VMM maps %s private, it must map it shared (share=on)", r->name);
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		refuse("the VMM opens %s read-only, which userfaultfd cannot serve", r->name);
	p = raw_mmap(addr, length, PROT_NONE, flags, fd, offset);
	if (p != MAP_FAILED) {
		if ((flags & MAP_FIXED) != 0)
			unmapped(p, length);
		hand_over(p, length, r, (uint64_t)offset);
		if (syscall(SYS_mprotect, p, length, prot) == -1)
			refuse("mprotect: %s", strerror(errno));
	}
	pthread_mutex_unlock(&shim.lock);
	return p;
}

/* What is mapped there takes the place of something of ours, maybe. */
static void *
map_over(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *p;

	pthread_mutex_lock(&shim.lock);
	p = raw_mmap(addr, length, prot, flags, fd, offset);
	if (p != MAP_FAILED)
		unmapped(p, round_up(length, PAGE));
	pthread_mutex_unlock(&shim.lock);
	return p;
}

/* ---- functions of libc that are replaced ---- */

PUBLIC void *
mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	const struct gmem_region *r = NULL;
	int saved = errno;

	if ((flags & MAP_ANONYMOUS) == 0)
		r = region_of(fd);
	errno = saved;
	if (r != NULL)
		return map_object(addr, length, prot, flags, fd, offset, r);
	if ((flags & MAP_FIXED) != 0 && in_charge())
		return map_over(addr, length, prot, flags, fd, offset);
	return raw_mmap(addr, length, prot, flags, fd, offset);
}

PUBLIC void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off64_t offset)
    __attribute__((alias("mmap")));

PUBLIC int
munmap(void *addr, size_t length)
{
	int rc;

	if (!in_charge())
		return (int)syscall(SYS_munmap, addr, length);
	pthread_mutex_lock(&shim.lock);
	rc = (int)syscall(SYS_munmap, addr, length);
	if (rc == 0)
		unmapped(addr, round_up(length, PAGE));
	pthread_mutex_unlock(&shim.lock);
	return rc;
}

/* The new place would not be registered; a length of 0 asks for a second mapping. */
static void *
move_mapping(void *old, size_t old_length, size_t new_length, int flags, void *to)
{
	void *p = MAP_FAILED;

	pthread_mutex_lock(&shim.lock);
	if (concerned((uintptr_t)old, old_length != 0 ? old_length : 1))
		errno = ENOTSUP;
	else
		p = raw_mremap(old, old_length, new_length, flags, to);
	if (p != MAP_FAILED && (flags & MREMAP_FIXED) != 0)
		unmapped(p, round_up(new_length, PAGE));
	pthread_mutex_unlock(&shim.lock);
	return p;
}

PUBLIC void *
mremap(void *old, size_t old_length, size_t new_length, int flags, ...)
{
	void *to = NULL;
	va_list ap;

	if ((flags & MREMAP_FIXED) != 0) {
		va_start(ap, flags);
		to = va_arg(ap, void *);
		va_end(ap);
	}
	if (in_charge())
		return move_mapping(old, old_length, new_length, flags, to);
	return raw_mremap(old, old_length, new_length, flags, to);
}

/*
 * What was told cannot be taken back, so a call that would fail must not be
 * told: MADV_DONTNEED fails where MADV_REMOVE does, and keeps the content of a
 * shared mapping.
 */
static int
discard_range(void *addr, size_t length)
{
	int rc;

	rc = (int)syscall(SYS_madvise, addr, length, MADV_DONTNEED);
	if (rc == -1)
		return rc;
	each_area((uintptr_t)addr, round_up(length, PAGE), tell_discard);
	rc = (int)syscall(SYS_madvise, addr, length, MADV_REMOVE);
	if (rc == -1)
		refuse("MADV_REMOVE: %s", strerror(errno));
	return rc;
}

PUBLIC int
madvise(void *addr, size_t length, int advice)
{
	bool ours;
	int rc;

	if ((advice != MADV_REMOVE && advice != MADV_DOFORK) || !in_charge())
		return (int)syscall(SYS_madvise, addr, length, advice);
	pthread_mutex_lock(&shim.lock);
	ours = concerned((uintptr_t)addr, length);
	if (ours && advice == MADV_DOFORK) {
		errno = ENOTSUP;
		rc = -1;
	} else if (ours) {
		rc = discard_range(addr, length);
	} else {
		rc = (int)syscall(SYS_madvise, addr, length, advice);
	}
	pthread_mutex_unlock(&shim.lock);
	return rc;
}

/* Here too: only what will succeed is told. */
static bool
punches(int fd, int mode, off_t offset, off_t length)
{
	return mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && offset >= 0 &&
	       length > 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

static int
punch(int fd, int mode, off_t offset, off_t length, const struct gmem_region *r)
{
	struct area part = {
		.region = number_of(r), .offset = (uint64_t)offset, .length = (size_t)length
	};
	int rc;

	pthread_mutex_lock(&shim.lock);
	tell_discard(&part);
	rc = (int)syscall(SYS_fallocate, fd, mode, offset, length);
	if (rc == -1)
		refuse("fallocate: %s", strerror(errno));
	pthread_mutex_unlock(&shim.lock);
	return rc;
}

PUBLIC int
fallocate(int fd, int mode, off_t offset, off_t length)
{
	const struct gmem_region *r = NULL;
	int saved = errno;

	if ((mode & FALLOC_FL_PUNCH_HOLE) != 0 && shim.handoff.sock != -1 &&
	    shim.pid == getpid() && punches(fd, mode, offset, length))
		r = region_of(fd);
	errno = saved;
	if (r != NULL)
		return punch(fd, mode, offset, length, r);
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

PUBLIC int fallocate64(int fd, int mode, off64_t offset, off64_t length)
    __attribute__((alias("fallocate")));
