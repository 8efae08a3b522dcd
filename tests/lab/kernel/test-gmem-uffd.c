/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "lab.h"

/* userfaultfd on mappings of a guest_memfd, resolved by write + UFFDIO_CONTINUE. */

enum { PAGES = 256 };

static int vm, gmem;

struct touch {
	volatile uint32_t *address;
	uint32_t value;
	pid_t tid;
	bool store;
};

static void *
touch_main(void *arg)
{
	struct touch *t = arg;

	t->tid = (pid_t)syscall(SYS_gettid);
	if (t->store)
		t->address[1] = 0x12345678;
	t->value = *t->address;
	return NULL;
}

/* Touch a page in a thread of its own. */
static struct touch
touch(void *address, bool store)
{
	struct touch t = { .address = address, .store = store };
	pthread_t thread;

	pthread_create(&thread, NULL, touch_main, &t);
	pthread_join(thread, NULL);
	return t;
}

/* The self-test of the first series, step by step, and with the data compared. */
static void
test_seed(void)
{
	int file = create_shared(vm, 4 * PAGE);
	char *map = map_shared(file, 4 * PAGE);
	struct touch t = { .address = (void *)(map + PAGE) };
	int uffd = uffd_open(0, 0);
	struct pollfd fds = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg = { 0 };
	pthread_t thread;

	ok(uffd_register(uffd, map, 4 * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0,
	    "register MISSING alone");
	ok(punch(file, 1, 1) == 0, "punch a hole");
	pthread_create(&thread, NULL, touch_main, &t);
	ok(poll(&fds, 1, 5000) == 1 && read(uffd, &msg, sizeof(msg)) == (ssize_t)sizeof(msg) &&
		msg.event == UFFD_EVENT_PAGEFAULT,
	    "a page fault is an event");
	ok((msg.arg.pagefault.address & ~(PAGE - 1)) == (uintptr_t)map + PAGE &&
		msg.arg.pagefault.flags == 0,
	    "it has the address, and no flags");
	ok(write_page(file, 1) == (long)PAGE, "write the page");
	ok(uffd_continue(uffd, map + PAGE, PAGE) == 0, "continue");
	pthread_join(thread, NULL);
	ok(is_filled(map + PAGE, 1), "the data has arrived");
	close(uffd);
	munmap(map, 4 * PAGE);
	close(file);
}

static void
test_register(char *map)
{
	int uffd = uffd_open(0, 0), private = create_gmem(vm, 4 * PAGE, LAB_GMEM_MMAP);
	char *private_map = map_shared(private, 4 * PAGE);
	uint64_t wp = UFFDIO_REGISTER_MODE_WP;

	ok(uffd_register(uffd, map, PAGES * PAGE, wp) == -EINVAL, "WP is refused");
	ok(uffd_register(uffd, map, PAGES * PAGE, LAB_REGISTER_MISSING_MINOR | wp) == -EINVAL,
	    "also beside others");
	ok(uffd_register(uffd, private_map, 4 * PAGE, UFFDIO_REGISTER_MODE_MISSING) ==
		    -EINVAL &&
		uffd_register(uffd, private_map, 4 * PAGE, UFFDIO_REGISTER_MODE_MINOR) ==
		    -EINVAL,
	    "private memory can't be registered");
	ok(uffd_register(uffd, map, PAGES * PAGE, UFFDIO_REGISTER_MODE_MINOR) == 0 &&
		uffd_unregister(uffd, map, PAGES * PAGE) == 0,
	    "MINOR alone can");
	munmap(private_map, 4 * PAGE);
	close(private);
	close(uffd);
}

static void
test_ioctls(struct server *s)
{
	_Alignas(PAGE) static char data[PAGE];
	char *map = s->map;
	struct uffdio_copy copy = {
		.dst = (uintptr_t)map, .src = (uintptr_t)data, .len = PAGE, .copy = 0
	};
	struct uffdio_zeropage zero = { .range = { .start = (uintptr_t)map, .len = PAGE } };

	ok(uffd_continue(s->uffd, map, PAGE) == -EFAULT, "CONTINUE of an absent page");
	ok(preallocate(gmem, 0, 1) == 0 && uffd_continue(s->uffd, map, PAGE) == -EFAULT,
	    "CONTINUE of a preallocated page");
	ok(result(ioctl(s->uffd, UFFDIO_COPY, &copy)) == -EINVAL, "COPY is refused");
	ok(result(ioctl(s->uffd, UFFDIO_ZEROPAGE, &zero)) == -EINVAL, "ZEROPAGE is refused");
	ok(write_page(gmem, 0) == (long)PAGE && uffd_continue(s->uffd, map, PAGE) == 0,
	    "CONTINUE ahead of a fault");
	ok(uffd_continue(s->uffd, map, PAGE) == -EEXIST, "and again");
	ok(is_filled(map, 0) && server_saw(s, 0, 0), "then there is no event");
	ok(write_page(gmem, 1) == (long)PAGE && write_page(gmem, 2) == (long)PAGE &&
		uffd_continue(s->uffd, map + PAGE, 2 * PAGE) == 0 && is_filled(map + PAGE, 1) &&
		is_filled(map + 2 * PAGE, 2),
	    "CONTINUE of a range");
}

static void
test_events(struct server *s)
{
	char *map = s->map;
	struct touch t = touch(map + 10 * PAGE, false);

	ok(is_filled(map + 10 * PAGE, 10) && server_saw(s, 1, 0) && s->flags == 0 &&
		s->tid == t.tid && s->address == (uintptr_t)map + 10 * PAGE,
	    "a load of an absent page: MISSING, with address and thread");
	server_clear(s);
	t = touch(map + 11 * PAGE, true);
	ok(t.value == (uint32_t)GUEST_VALUE(11) && server_saw(s, 1, 0) &&
		s->flags == UFFD_PAGEFAULT_FLAG_WRITE &&
		s->address == (uintptr_t)map + 11 * PAGE + 4 &&
		word32(map + 11 * PAGE, 1) == 0x12345678,
	    "a store to an absent page: MISSING and WRITE, the store lands");
	server_clear(s);
	write_page(gmem, 12);
	touch(map + 12 * PAGE, false);
	ok(is_filled(map + 12 * PAGE, 12) && server_saw(s, 0, 1) &&
		s->flags == UFFD_PAGEFAULT_FLAG_MINOR,
	    "a present page: MINOR");
	server_clear(s);
	preallocate(gmem, 13, 1);
	touch(map + 13 * PAGE, false);
	ok(is_filled(map + 13 * PAGE, 13) && server_saw(s, 1, 0),
	    "a preallocated one: MISSING");
	server_clear(s);
	punch(gmem, 12, 1);
	touch(map + 12 * PAGE, false);
	ok(server_saw(s, 1, 0), "after a hole: MISSING");
	server_clear(s);
	madvise(map + 12 * PAGE, PAGE, MADV_DONTNEED);
	touch(map + 12 * PAGE, false);
	ok(is_filled(map + 12 * PAGE, 12) && server_saw(s, 0, 1), "after MADV_DONTNEED: MINOR");
	server_clear(s);
}

static void
test_kernel_accesses(struct server *s)
{
	static char data[PAGE];
	char *map = s->map;
	struct iovec local = { data, PAGE }, remote = { map + 22 * PAGE, PAGE };
	int fds[2], user_only;
	struct touch t;

	if (pipe(fds) < 0)
		return;
	ok(write(fds[1], map + 20 * PAGE, PAGE) == (ssize_t)PAGE &&
		read(fds[0], data, PAGE) == (ssize_t)PAGE && is_filled(data, 20) &&
		server_saw(s, 1, 0),
	    "write from the mapping");
	server_clear(s);
	ok(write(fds[1], data, 64) == 64 && read(fds[0], map + 21 * PAGE + 100, 64) == 64 &&
		memcmp(map + 21 * PAGE + 100, data, 64) == 0 && server_saw(s, 1, 0) &&
		(s->flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0,
	    "read into the mapping");
	server_clear(s);
	ok(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)PAGE &&
		is_filled(data, 22) && server_saw(s, 1, 0),
	    "process_vm_readv");
	server_clear(s);
	ok(madvise(map + 23 * PAGE, PAGE, LAB_MADV_POPULATE_READ) == 0 && server_saw(s, 1, 0),
	    "MADV_POPULATE_READ");
	server_clear(s);
	uffd_unregister(s->uffd, map, PAGES * PAGE);

	user_only = uffd_open(UFFD_USER_MODE_ONLY, 0);
	ok(uffd_register(user_only, map, PAGES * PAGE, LAB_REGISTER_MISSING_MINOR) == 0 &&
		result(write(fds[1], map + 24 * PAGE, PAGE)) == -EFAULT,
	    "UFFD_USER_MODE_ONLY: the kernel gets EFAULT");
	close(user_only);
	t = touch(map + 24 * PAGE, false);
	ok(t.value == 0, "without userfaultfd: zero");
	uffd_register(s->uffd, map, PAGES * PAGE, LAB_REGISTER_MISSING_MINOR);
	close(fds[0]);
	close(fds[1]);
}

/* Who registers less gets less. */
static void
test_modes(void)
{
	char *map = map_shared(gmem, PAGES * PAGE);
	int uffd = uffd_open(0, 0);

	uffd_register(uffd, map, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	ok(write_page(gmem, 30) == (long)PAGE &&
		touch(map + 30 * PAGE, false).value == GUEST_VALUE(30),
	    "MISSING alone: a present page is mapped without an event");
	uffd_unregister(uffd, map, PAGES * PAGE);
	uffd_register(uffd, map, PAGES * PAGE, UFFDIO_REGISTER_MODE_MINOR);
	ok(touch(map + 31 * PAGE, false).value == 0 && is_zero(map + 31 * PAGE),
	    "MINOR alone: an absent page is zero");
	ok(preallocate(gmem, 32, 1) == 0 && touch(map + 32 * PAGE, false).value == 0,
	    "and a preallocated one");
	ok(write_page(gmem, 32) == -EEXIST, "both can't be written any more");
	close(uffd);
	munmap(map, PAGES * PAGE);
}

static void *
touch_all(void *arg)
{
	char *map = arg;
	uintptr_t good = 0;

	for (unsigned long i = 64; i < 128; i++)
		good += is_filled(map + i * PAGE, i);
	return (void *)good;
}

static void
test_crowd(struct server *s)
{
	pthread_t threads[4];
	uintptr_t good = 0;
	void *value;

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, touch_all, s->map);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &value);
		good += (uintptr_t)value;
	}
	ok(good == 256 && s->errors == 0, "4 threads find the data in 64 pages each");
	server_clear(s);
}

int
main(void)
{
	int kvm = open_kvm();
	struct server s;
	char *map;

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	gmem = create_shared(vm, PAGES * PAGE);
	map = map_shared(gmem, PAGES * PAGE);
	test_seed();
	test_register(map);
	if (!ok(server_start(&s, gmem, map, PAGES * PAGE) == 0, "register MISSING and MINOR"))
		return done();
	test_ioctls(&s);
	test_events(&s);
	test_kernel_accesses(&s);
	test_crowd(&s);
	server_stop(&s);
	test_modes();
	return done();
}
