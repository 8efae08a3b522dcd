/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The thread that handles faults: one request at a time over the fault connection, those of
 * the guest first, and while there are none the next page in order, until all are there.
 *
 * A guest's fault that can't be served ends the VMM; a page asked for ahead that can't be had
 * ends the asking ahead, and no more.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "stand-in-cloud-hypervisor.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0)
#endif
#ifndef UFFD_FEATURE_MINOR_SHMEM
#define UFFD_FEATURE_MINOR_SHMEM (1 << 10)
#endif

static struct {
	int uffd, socket;
	bool shared; /* pages come into the files of the slots, not with the replies */
	bool minor; /* faults are resolved by UFFDIO_CONTINUE */
	uint8_t *buf;
	uint8_t *served[SLOTS_MAX]; /* for each page of the zone */
	atomic_bool stop, over;
} handler = { .uffd = -1, .socket = -1 };

enum outcome { SERVED, RETRY, FAILED };

/* ---- asking ---- */

static int
ask(uint64_t gpa, uint64_t length, struct why *why)
{
	struct range r = { gpa, length };

	atomic_fetch_add(&vmm.requests, 1);
	if (wire_request(handler.socket, PAGE_FAULT, sizeof(r), why) == -1)
		return -1;
	return wire_write(handler.socket, &r, sizeof(r), why);
}

static int
hear(uint64_t want, struct why *why)
{
	struct reply r;

	if (wire_read(handler.socket, &r, sizeof(r), why) == -1)
		return -1;
	if (r.status != STATUS_OK) {
		fail(why, "peer returned status %u for PageFault", r.status);
		return -1;
	}
	if (r.length != (handler.shared ? 0 : want)) {
		fail(why, "PageFault response length %llu", (unsigned long long)r.length);
		return -1;
	}
	return handler.shared ? 0 : wire_read(handler.socket, handler.buf, want, why);
}

/* ---- lies ---- */

static void
tell_reply(const char *name)
{
	struct reply r = { 0 };
	struct why why;

	if (wire_read(handler.socket, &r, sizeof(r), &why) == -1)
		say("%s: no reply: %s", name, why.text);
	else
		say("%s: reply status %u length %llu", name, r.status,
		    (unsigned long long)r.length);
}

static void
odd_request(const char *name, uint64_t gpa, uint64_t length)
{
	struct why why;

	if (lie(name) == NULL)
		return;
	if (ask(gpa, length, &why) == -1)
		say("%s: not sent: %s", name, why.text);
	else
		tell_reply(name);
}

/* Requests before there is an answer to the first; then all answers. */
static void
pipeline(uint64_t n)
{
	const struct slot *s = &vmm.slots[0];
	unsigned ok = 0;
	struct why why;

	for (uint64_t i = 0; i < n && ask(s->gpa + i * s->page % s->size, s->page, &why) == 0;)
		i++;
	for (uint64_t i = 0; i < n && hear(s->page, &why) == 0; i++)
		ok++;
	say("fault-pipeline: %u of %llu answered", ok, (unsigned long long)n);
}

static void
odd_messages(void)
{
	struct range r = { vmm.slots[0].gpa, vmm.slots[0].page };
	struct request q = { .command = PAGE_FAULT, .length = sizeof(r) };
	struct why why;

	if (lie("fault-command") != NULL) {
		q.command = (uint16_t)atoi(lie("fault-command"));
		wire_write(handler.socket, &q, sizeof(q), &why);
		wire_write(handler.socket, &r, sizeof(r), &why);
		tell_reply("fault-command");
	}
	if (lie("fault-payload") != NULL) {
		q.length = strtoull(lie("fault-payload"), NULL, 0);
		wire_write(handler.socket, &q, sizeof(q), &why);
		wire_write(handler.socket, &r, sizeof(r), &why);
		tell_reply("fault-payload");
	}
	if (lie("fault-abandon") != NULL) {
		wire_request(handler.socket, ABANDON, 0, &why);
		tell_reply("fault-abandon");
	}
	if (lie("fault-short") != NULL) {
		wire_write(handler.socket, &q, sizeof(q), &why);
		wire_write(handler.socket, &r, 3, &why);
		sleep_for_ever();
	}
	if (lie("fault-silent") != NULL)
		sleep_for_ever();
}

static void
odd_requests(void)
{
	const struct slot *s = &vmm.slots[0], *last = &vmm.slots[vmm.nslots - 1];
	const char *length = lie("fault-length"), *n = lie("fault-pipeline");

	odd_request("fault-outside", last->gpa + last->size, s->page);
	odd_request("fault-straddle", last->gpa + last->size - s->page, 2 * s->page);
	odd_request("fault-wrap", UINT64_MAX - s->page + 1, s->page);
	odd_request("fault-misaligned", s->gpa + 1, s->page);
	odd_request("fault-length", s->gpa, length == NULL ? 0 : strtoull(length, NULL, 0));
	odd_request("fault-huge", s->gpa, (uint64_t)1 << 30);
	odd_messages();
	if (n != NULL)
		pipeline(strtoull(n, NULL, 0));
}

/* What happens after so many requests. */
static void
early_end(void)
{
	const char *close_after = lie("fault-close"), *die_after = lie("fault-die");
	unsigned long n = vmm.requests;

	if (close_after != NULL && n == strtoul(close_after, NULL, 0))
		shutdown(handler.socket, SHUT_RDWR);
	if (die_after != NULL && n == strtoul(die_after, NULL, 0))
		raise(SIGKILL);
}

/* ---- resolving ---- */

static void
wake(uint64_t at, uint64_t len)
{
	struct uffdio_range r = { at, len };

	ioctl(handler.uffd, UFFDIO_WAKE, &r);
}

static int
put_page(uint64_t at, uint64_t len)
{
	struct uffdio_continue cont = { .range = { at, len } };
	struct uffdio_copy copy = { .dst = at, .src = (uintptr_t)handler.buf, .len = len };

	if (!handler.shared)
		return ioctl(handler.uffd, UFFDIO_COPY, &copy);
	if (handler.minor)
		return ioctl(handler.uffd, UFFDIO_CONTINUE, &cont);
	wake(at, len);
	return 0;
}

static enum outcome
resolve(const struct slot *s, uint64_t page, struct why *why)
{
	uint64_t at = (uintptr_t)s->mem + page * s->page;

	early_end();
	if (ask(s->gpa + page * s->page, s->page, why) == -1 || hear(s->page, why) == -1)
		return FAILED;
	if (lie("fault-twice") != NULL &&
	    (ask(s->gpa + page * s->page, s->page, why) == -1 || hear(s->page, why) == -1))
		return FAILED;
	if (put_page(at, s->page) == 0)
		return SERVED;
	if (errno == EEXIST) {
		wake(at, s->page);
		return SERVED;
	}
	if (errno == EAGAIN)
		return RETRY;
	fail(why, "cannot put the page of gpa %llx in: %s",
	    (unsigned long long)(s->gpa + page * s->page), strerror(errno));
	return FAILED;
}

static int
serve_fault(uint64_t address, struct why *why)
{
	for (size_t i = 0; i < vmm.nslots; i++) {
		const struct slot *s = &vmm.slots[i];
		uint64_t off = address - (uintptr_t)s->mem;
		enum outcome o;

		if (address < (uintptr_t)s->mem || off >= s->size)
			continue;
		while ((o = resolve(s, off / s->page, why)) == RETRY)
			sched_yield();
		if (o == FAILED)
			return -1;
		handler.served[i][off / s->page] = 1;
		atomic_fetch_add(&vmm.faults, 1);
		return 0;
	}
	fail(why, "fault at %llx does not belong to any registered range",
	    (unsigned long long)address);
	return -1;
}

/* One message at most; 1: there was one. */
static int
next_fault(int timeout, struct why *why)
{
	struct pollfd p = { handler.uffd, POLLIN, 0 };
	struct uffd_msg m;

	if (poll(&p, 1, timeout) <= 0)
		return 0;
	if (read(handler.uffd, &m, sizeof(m)) != sizeof(m))
		return 0;
	if (m.event != UFFD_EVENT_PAGEFAULT)
		return 1;
	return serve_fault(m.arg.pagefault.address, why) == -1 ? -1 : 1;
}

/* The next page nobody has; false: there is none. */
static bool
advance(size_t *slot, uint64_t *page)
{
	for (; *slot < vmm.nslots; (*slot)++, *page = 0)
		for (; *page < vmm.slots[*slot].size / vmm.slots[*slot].page; (*page)++)
			if (!handler.served[*slot][*page])
				return true;
	return false;
}

static void
prefault(size_t slot, uint64_t *page, struct why *why)
{
	switch (resolve(&vmm.slots[slot], *page, why)) {
	case SERVED:
		handler.served[slot][*page] = 1;
		atomic_fetch_add(&vmm.prefaulted, 1);
		break;
	case RETRY: /* a fault will ask for it */
		break;
	case FAILED:
		say("prefault: %s; abandoning it", why->text);
		vmm.gave_up = true;
	}
	(*page)++;
}

static int
handle(struct why *why)
{
	uint64_t page = 0;
	size_t slot = 0;

	while (!handler.stop) {
		int rc = next_fault(vmm.gave_up ? 100 : 0, why);

		if (rc == -1)
			return -1;
		if (rc == 1 || vmm.gave_up)
			continue;
		if (!advance(&slot, &page))
			return 0;
		prefault(slot, &page, why);
	}
	return 0;
}

static void *
run(void *arg)
{
	struct why why;
	int rc;

	odd_requests();
	rc = handle(&why);
	if (rc == 0 && !handler.stop)
		vmm.handler_done = true;
	if (lie("fault-never-close") == NULL) {
		shutdown(handler.socket, SHUT_RDWR);
		close(handler.socket);
	}
	if (rc == -1) {
		say("uffd handler exited with error: %s", why.text);
		quit(4);
		return arg; /* the userfaultfd stays: nobody may see what is not there */
	}
	close(handler.uffd);
	handler.uffd = -1;
	handler.over = true;
	return arg;
}

/* ---- setting up ---- */

static int
open_uffd(uint64_t features, struct why *why)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd = -1;

	if (dev != -1) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
	}
	if (fd == -1)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd != -1 && ioctl(fd, UFFDIO_API, &api) == 0)
		return fd;
	fail(why, "start_postcopy_serving: Failed to create userfaultfd: %s", strerror(errno));
	return -1;
}

static uint64_t
features(void)
{
	uint64_t f = 0;

	for (size_t i = 0; i < vmm.nslots; i++) {
		if (vmm.slots[i].page > PAGE)
			f |= UFFD_FEATURE_MISSING_HUGETLBFS |
			     (handler.minor ? UFFD_FEATURE_MINOR_HUGETLBFS : 0);
		else
			f |= UFFD_FEATURE_MISSING_SHMEM |
			     (handler.minor ? UFFD_FEATURE_MINOR_SHMEM : 0);
	}
	return f;
}

static int
register_slots(struct why *why)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING, biggest = PAGE;

	if (handler.minor)
		mode |= UFFDIO_REGISTER_MODE_MINOR;
	for (size_t i = 0; i < vmm.nslots; i++) {
		struct slot *s = &vmm.slots[i];
		struct uffdio_register reg = { { (uintptr_t)s->mem, s->size }, mode, 0 };

		if (ioctl(handler.uffd, UFFDIO_REGISTER, &reg) == -1) {
			fail(why, "start_postcopy_serving: Failed to register region at %p: %s",
			    (void *)s->mem, strerror(errno));
			return -1;
		}
		handler.served[i] = calloc(s->size / s->page + 1, 1);
		biggest = s->page > biggest ? s->page : biggest;
	}
	handler.buf = malloc(biggest);
	return 0;
}

int
fault_start(int socket, bool with_fds, struct why *why)
{
	pthread_t thread;

	handler.socket = socket;
	handler.shared = with_fds;
	handler.minor = with_fds && vmm.version >= MAIN;
	handler.uffd = open_uffd(features(), why);
	if (handler.uffd == -1 || register_slots(why) == -1)
		return -1;
	if (pthread_create(&thread, NULL, run, NULL) != 0)
		return -1;
	pthread_detach(thread);
	vmm.handler = true;
	return 0;
}

void
fault_stop(void)
{
	handler.stop = true;
	if (vmm.handler && !handler.over)
		shutdown(handler.socket, SHUT_RDWR);
	for (unsigned ms = 0; vmm.handler && !handler.over && ms < 1000; ms++)
		poll(NULL, 0, 1);
}

/* ---- bench ---- */

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int
bench_slot(const struct slot *s, struct why *why)
{
	for (uint64_t page = 0; page < s->size / s->page; page++) {
		if (ask(s->gpa + page * s->page, s->page, why) == -1 ||
		    hear(s->page, why) == -1)
			return -1;
		if (!handler.shared)
			memcpy(s->mem + page * s->page, handler.buf, s->page);
	}
	return 0;
}

int
fault_bench(int socket, bool with_fds, struct why *why)
{
	double begin = now(), end;

	handler.socket = socket;
	handler.shared = with_fds;
	handler.buf = malloc((size_t)1 << 30);
	for (size_t i = 0; i < vmm.nslots; i++)
		if (bench_slot(&vmm.slots[i], why) == -1)
			return -1;
	end = now();
	printf("stand-in: bench: %lu requests in %.3f s: %.0f requests/s\n", vmm.requests,
	    end - begin, (double)vmm.requests / (end - begin));
	fflush(stdout);
	close(socket);
	return 0;
}
