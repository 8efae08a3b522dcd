/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "lab.h"

/* write(2) on guest_memfd: what it does, and each way to be refused. */

enum { PAGES = 256 };

static int vm, gmem;
static char *map;

static void
test_basics(void)
{
	_Alignas(PAGE) static char data[4 * PAGE];
	struct iovec odd[] = { { data, 1000 }, { data + 1000, 2 * PAGE - 1000 } };
	char byte;

	ok(write_page(gmem, 0) == (long)PAGE, "a page is written");
	ok(is_present(map), "and present");
	ok(is_filled(map, 0), "and read through a mapping");
	fill(data, 77);
	ok(write_pages(gmem, data, PAGE, 0) == -EEXIST && is_filled(map, 0),
	    "a second write is refused and changes nothing");
	ok(punch(gmem, 0, 1) == 0 && !is_present(map), "a hole is absent");
	ok(write_pages(gmem, data, PAGE, 0) == (long)PAGE && is_filled(map, 77),
	    "and can be written again");

	for (unsigned long i = 0; i < 4; i++)
		fill(data + i * PAGE, 4 + i);
	ok(write_pages(gmem, data, 4 * PAGE, 4 * PAGE) == 4 * (long)PAGE, "several pages");
	ok(is_filled(map + 4 * PAGE, 4) && is_filled(map + 7 * PAGE, 7), "each in its place");
	ok(write_page(gmem, 10) == (long)PAGE &&
		write_pages(gmem, data, 4 * PAGE, 8 * PAGE) == 2 * (long)PAGE,
	    "a present page cuts a write short");
	ok(write_pages(gmem, data, 2 * PAGE, 10 * PAGE) == -EEXIST,
	    "or refuses it as the first");
	ok(!is_present(map + 11 * PAGE), "nothing after it is written");

	ok(result(pwritev(gmem, odd, 2, 12 * PAGE)) == 2 * (long)PAGE &&
		is_filled(map + 12 * PAGE, 4) && is_filled(map + 13 * PAGE, 5),
	    "odd segments make whole pages");
	ok(lseek(gmem, 16 * PAGE, SEEK_SET) == 16 * PAGE &&
		result(write(gmem, data, 2 * PAGE)) == 2 * (long)PAGE &&
		lseek(gmem, 0, SEEK_CUR) == 18 * PAGE,
	    "write moves the file position");
	ok(result(pwrite(gmem, data, 0, 0)) == 0, "nothing is written for a length of 0");
	ok(result(lseek(gmem, 0, SEEK_DATA)) == -EINVAL &&
		result(lseek(gmem, 0, SEEK_HOLE)) == -EINVAL,
	    "SEEK_DATA and SEEK_HOLE are refused");
	ok(result(pread(gmem, &byte, 1, 0)) == -ESPIPE &&
		result(read(gmem, &byte, 1)) == -EINVAL,
	    "there is no reading");
	ok(result(ftruncate(gmem, 0)) == -EINVAL &&
		result(ftruncate(gmem, 2 * PAGES * PAGE)) == -EINVAL && is_filled(map, 77),
	    "it neither shrinks nor grows, and keeps its pages");
}

static void
test_refusals(void)
{
	_Alignas(PAGE) static char data[4 * PAGE];
	int private = create_gmem(vm, 4 * PAGE, 0);
	int flags = fcntl(gmem, F_GETFL);
	char *end;

	memset(data, 1, sizeof(data));
	ok(write_pages(gmem, data, PAGE, 20 * PAGE + 512) == -EINVAL, "unaligned offset");
	ok(write_pages(gmem, data, 512, 20 * PAGE) == -EINVAL, "unaligned length");
	ok(write_pages(gmem, data, PAGE + 512, 20 * PAGE) == -EINVAL, "unaligned end");
	ok(!is_present(map + 20 * PAGE), "nothing was written");
	ok(write_pages(gmem, data, PAGE, PAGES * PAGE) == -ENOSPC, "at the size");
	ok(write_pages(gmem, data, PAGE, 2 * PAGES * PAGE) == -ENOSPC, "after the size");
	ok(write_pages(gmem, data, 3 * PAGE, (PAGES - 1) * PAGE) == (long)PAGE,
	    "across the size");
	ok(write_pages(gmem, data, 3 * PAGE, (PAGES - 1) * PAGE) == -EEXIST, "and again");

	ok(write_pages(gmem, (void *)8, PAGE, 21 * PAGE) == -EFAULT, "unreadable source");
	ok(!is_present(map + 21 * PAGE) && write_page(gmem, 21) == (long)PAGE,
	    "leaves the page absent");
	end = page_alloc(4);
	memset(end, 1, 2 * PAGE);
	munmap(end + 2 * PAGE, 2 * PAGE);
	ok(write_pages(gmem, end, 3 * PAGE, 24 * PAGE) == 2 * (long)PAGE, "source ends: short");
	ok(write_pages(gmem, end + 512, 2 * PAGE, 28 * PAGE) == (long)PAGE,
	    "and within a page");
	ok(!is_present(map + 29 * PAGE), "no half page is left");
	munmap(end, 2 * PAGE);

	ok(fcntl(gmem, F_SETFL, flags | O_APPEND) == 0 &&
		write_pages(gmem, data, PAGE, 32 * PAGE) == -EINVAL,
	    "O_APPEND");
	fcntl(gmem, F_SETFL, flags);
	ok(private >= 0 && write_pages(private, data, PAGE, 0) == -EINVAL, "private memory");
	close(private);
}

/* What was allocated but never had contents is absent. */
static void
test_preallocated(void)
{
	ok(preallocate(gmem, 40, 4) == 0 && !is_present(map + 40 * PAGE),
	    "a preallocated page is absent");
	ok(write_page(gmem, 40) == (long)PAGE && is_filled(map + 40 * PAGE, 40),
	    "and can be written");
	ok(write_page(gmem, 40) == -EEXIST, "once");
	ok(preallocate(gmem, 40, 1) == 0 && is_filled(map + 40 * PAGE, 40),
	    "preallocating a written page keeps it");
	ok(is_zero(map + 41 * PAGE) && write_page(gmem, 41) == -EEXIST,
	    "one that was touched is present, and zero");
	ok(punch(gmem, 42, 1) == 0 && write_page(gmem, 42) == (long)PAGE, "after a hole");
	ok(is_zero(map + 44 * PAGE) && write_page(gmem, 44) == -EEXIST,
	    "an absent page that was touched is present, and zero");
}

struct cold {
	int uffd;
	char *target;
	bool seen_present;
	long other;
	unsigned long number;
};

/* The source faults: have a look at the target meanwhile. */
static void *
cold_source(void *arg)
{
	struct cold *c = arg;
	struct pollfd fds = { .fd = c->uffd, .events = POLLIN };
	struct uffdio_copy copy = { .len = PAGE };
	_Alignas(PAGE) static char data[PAGE];
	struct uffd_msg msg;

	if (poll(&fds, 1, 5000) != 1 ||
	    read(c->uffd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg))
		return NULL;
	c->seen_present = is_present(c->target);
	if (c->number)
		c->other = write_page(gmem, c->number);
	fill(data, 99);
	copy.dst = msg.arg.pagefault.address & ~(PAGE - 1);
	copy.src = (uintptr_t)data;
	ioctl(c->uffd, UFFDIO_COPY, &copy);
	return NULL;
}

static void
test_sources(void)
{
	char *source = page_alloc(2);
	struct cold c = { .uffd = uffd_open(0, 0), .target = map + 50 * PAGE };
	pthread_t thread;

	if (!ok(uffd_register(c.uffd, source, 2 * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0,
		"a source without pages"))
		return;
	pthread_create(&thread, NULL, cold_source, &c);
	ok(write_pages(gmem, source, PAGE, 50 * PAGE) == (long)PAGE, "is waited for");
	pthread_join(thread, NULL);
	ok(!c.seen_present, "the page is absent meanwhile");
	ok(is_filled(map + 50 * PAGE, 99), "and complete afterwards");

	c.target = map + 51 * PAGE;
	c.number = 51;
	pthread_create(&thread, NULL, cold_source, &c);
	ok(write_pages(gmem, source + PAGE, PAGE, 51 * PAGE) == -EEXIST,
	    "whoever is complete first wins");
	pthread_join(thread, NULL);
	ok(c.other == (long)PAGE && is_filled(map + 51 * PAGE, 51), "and stays");
	close(c.uffd);
	munmap(source, 2 * PAGE);

	ok(write_pages(gmem, map + 50 * PAGE, PAGE, 52 * PAGE) == (long)PAGE &&
		is_filled(map + 52 * PAGE, 99),
	    "the file's own mapping is a source");
	ok(write_pages(gmem, map + 53 * PAGE, PAGE, 54 * PAGE) == (long)PAGE &&
		is_zero(map + 54 * PAGE),
	    "an absent page of it too");
	ok(write_pages(gmem, map + 55 * PAGE, PAGE, 55 * PAGE) == -EEXIST,
	    "a page onto itself becomes present on the way");
}

static atomic_int written[PAGES];

static void *
racing_writer(void *arg)
{
	unsigned long id = (unsigned long)(uintptr_t)arg;
	_Alignas(PAGE) char data[PAGE];

	for (unsigned long i = 64; i < 192; i++) {
		fill(data, id * 1000 + i);
		if (write_pages(gmem, data, PAGE, (off_t)(i * PAGE)) == (long)PAGE)
			atomic_fetch_add(&written[i], 1 + 16 * (int)id);
	}
	return NULL;
}

static void
test_race(void)
{
	pthread_t threads[4];
	int good = 0;

	preallocate(gmem, 128, 32);
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, racing_writer, (void *)i);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (unsigned long i = 64; i < 192; i++) {
		int winner = written[i];

		if ((winner & 15) == 1 &&
		    is_filled(map + i * PAGE, (unsigned long)(winner / 16) * 1000 + i))
			good++;
	}
	ok(good == 128, "of 4 writers one wins each page, the file has its data: %d of 128",
	    good);
}

int
main(void)
{
	int kvm = open_kvm();

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	gmem = create_shared(vm, PAGES * PAGE);
	map = map_shared(gmem, PAGES * PAGE);
	test_basics();
	test_refusals();
	test_preallocated();
	test_sources();
	test_race();
	return done();
}
