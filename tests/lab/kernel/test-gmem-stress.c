/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "lab.h"

/*
 * Readers, a vCPU, somebody who punches holes, somebody who allocates, two
 * writers and two threads that answer faults, all on the same pages.  Nobody may
 * ever see anything but the data of a page.
 *
 * usage: test-gmem-stress [SECONDS]
 */

enum { PAGES = 256 };

static int kvm, vm, gmem, uffd;
static char *map;
static atomic_bool stop, stop_answering;
static atomic_long reads, vcpu_reads, bad, missing, minor, writes, exists, holes, punched_again,
    unexpected;

static void
write_one(unsigned long number)
{
	long r = write_page(gmem, number);

	if (r == (long)PAGE)
		writes++;
	else if (r == -EEXIST)
		exists++;
	else
		unexpected++;
}

static void *
answer(void *arg)
{
	struct pollfd fds = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	(void)arg;
	while (!stop_answering) {
		unsigned long address, number;
		long r;

		if (poll(&fds, 1, 50) <= 0 ||
		    read(uffd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
			continue;
		address = msg.arg.pagefault.address & ~(PAGE - 1);
		number = (address - (uintptr_t)map) / PAGE;
		if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR)
			minor++;
		else
			missing++;
		do {
			write_one(number);
			r = uffd_continue(uffd, (void *)address, PAGE);
			if (r == -EFAULT)
				punched_again++;
		} while (r == -EFAULT || r == -EAGAIN);
		if (r == -EEXIST)
			r = uffd_wake(uffd, (void *)address, PAGE);
		if (r < 0)
			unexpected++;
	}
	return NULL;
}

static void *
read_pages(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stop) {
		unsigned long number = (unsigned)rand_r(&seed) % PAGES;
		uint32_t i = (unsigned)rand_r(&seed) % 1024;
		uint32_t value = word32(map + number * PAGE, i);

		reads++;
		if (value != (i << 16 | 0xa500U | number) && bad++ < 5)
			printf("# page %lu, word %u is 0x%x\n", number, i, value);
	}
	return NULL;
}

static void *
punch_holes(void *arg)
{
	unsigned seed = 77;

	(void)arg;
	while (!stop) {
		unsigned long number = (unsigned)rand_r(&seed) % (PAGES - 4);

		if (punch(gmem, number, 1 + (unsigned)rand_r(&seed) % 4) == 0)
			holes++;
		if (rand_r(&seed) % 4 == 0)
			preallocate(gmem, number, 2);
		usleep(200);
	}
	return NULL;
}

static void *
write_ahead(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stop) {
		write_one((unsigned)rand_r(&seed) % PAGES);
		usleep(300);
	}
	return NULL;
}

/* mov ax, 0x1000; mov ds, ax; 1: xor bx, bx; 2: mov ax, [bx]; out 0x10, ax;
 * add bx, 0x1000; jnc 2b; jmp 1b */
static const uint8_t guest_reads_all[] = { 0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x31, 0xdb, 0x8b, 0x07,
	0xe7, 0x10, 0x81, 0xc3, 0x00, 0x10, 0x73, 0xf6, 0xeb, 0xf2 };

static void *
run_vcpu(void *arg)
{
	unsigned number = 0;
	uint16_t value;
	struct vcpu v;

	(void)arg;
	if (!vcpu_create(&v, kvm, vm, 0, 0, CODE_GPA, 0)) {
		unexpected++;
		return NULL;
	}
	while (!stop) {
		if (ioctl(v.fd, KVM_RUN, 0) < 0 || v.run->exit_reason != KVM_EXIT_IO) {
			printf("# KVM_RUN: %s, exit reason %u\n", strerror(errno),
			    v.run->exit_reason);
			unexpected++;
			break;
		}
		memcpy(&value, (char *)v.run + v.run->io.data_offset, sizeof(value));
		if (value != GUEST_VALUE(number) && bad++ < 5)
			printf("# vCPU: page %u is 0x%x\n", number, value);
		number = (number + 1) % 16;
		vcpu_reads++;
	}
	return NULL;
}

static void
stress(uint64_t flags, unsigned seconds, const char *name)
{
	void *(*const work[])(void *) = { read_pages, read_pages, punch_holes, write_ahead,
		write_ahead, run_vcpu };
	bool runs_vcpu = (flags & LAB_GMEM_NO_DIRECT_MAP) == 0;
	size_t workers = runs_vcpu ? 6 : 5;
	char *code = page_alloc(1);
	pthread_t threads[6], answering[2];

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	gmem = create_gmem(vm, PAGES * PAGE, LAB_GMEM_MMAP | LAB_GMEM_SHARED | flags);
	if (gmem < 0) {
		skip(3, "%s: not offered", name);
		return;
	}
	map = map_shared(gmem, PAGES * PAGE);
	memcpy(code, guest_reads_all, sizeof(guest_reads_all));
	set_region(vm, 0, 0, CODE_GPA, PAGE, code, 0, 0, NULL);
	set_region(vm, 1, 0, DATA_GPA, 16 * PAGE, map, 0, 0, NULL);
	uffd = uffd_open(0, 0);
	uffd_register(uffd, map, PAGES * PAGE, LAB_REGISTER_MISSING_MINOR);

	stop = stop_answering = false;
	reads = vcpu_reads = bad = missing = minor = writes = exists = holes = punched_again =
	    0;
	unexpected = 0;
	for (size_t i = 0; i < 2; i++)
		pthread_create(&answering[i], NULL, answer, NULL);
	for (uintptr_t i = 0; i < workers; i++)
		pthread_create(&threads[i], NULL, work[i], (void *)(i + 1));
	sleep(seconds);
	stop = true;
	for (size_t i = 0; i < workers; i++)
		pthread_join(threads[i], NULL);
	stop_answering = true;
	for (size_t i = 0; i < 2; i++)
		pthread_join(answering[i], NULL);

	ok(bad == 0, "%s: each of %ld reads, %ld of them by the vCPU, finds data", name,
	    reads + vcpu_reads, (long)vcpu_reads);
	ok(unexpected == 0, "%s: %ld missing and %ld minor faults are answered", name,
	    (long)missing, (long)minor);
	ok(missing > 0 && reads > 0 && (vcpu_reads > 0 || !runs_vcpu), "%s: something happened",
	    name);
	printf(
	    "# %ld writes, %ld of present pages, %ld holes, %ld between write and CONTINUE\n",
	    (long)writes, (long)exists, (long)holes, (long)punched_again);
	close(uffd);
	munmap(map, PAGES * PAGE);
	munmap(code, PAGE);
	close(gmem);
	close(vm);
}

int
main(int argc, char **argv)
{
	unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 2;

	kvm = open_kvm();
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	close(create_shared(vm, PAGE));
	close(vm);
	stress(0, seconds, "direct map");
	stress(LAB_GMEM_NO_DIRECT_MAP, seconds, "no direct map");
	return done();
}
