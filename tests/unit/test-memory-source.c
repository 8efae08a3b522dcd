/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/filling.h"
#include "memory/guest-memfd.h"
#include "memory/source.h"
#include "tap.h"
#include "test-memory-lib.h"

#define MIB ((uint64_t)1 << 20)

/* A source over a duplicate of fd; the test ends if that fails. */
static struct memory_source *
source(int fd, enum memory_kind kind, uint64_t size)
{
	struct memory_source *src;
	struct err e = ERR_INIT;

	if (memory_source_open(&src, dup(fd), kind, size, &e) == -1)
		errx(1, "%s", e.msg);
	return src;
}

/* That opening fails, and that the descriptor is closed then. */
static void
refuses(int fd, enum memory_kind kind, uint64_t size, const char *text, const char *name)
{
	struct memory_source *src;
	struct err e = ERR_INIT;
	int copy = dup(fd);

	ok(memory_source_open(&src, copy, kind, size, &e) == -1 && strstr(e.msg, text) != NULL,
	    "%s: %s", name, e.msg);
	ok(fcntl(copy, F_GETFD) == -1, "%s: the descriptor was taken", name);
}

/* That the ranges are exactly those of want (pairs, ended by 0, 0), joined if they meet. */
static void
has_ranges(struct memory_source *src, const uint64_t *want, const char *name)
{
	uint64_t start, end = 0, last = UINT64_MAX, open = 0;
	struct err e = ERR_INIT;
	bool good = true;
	int more;

	while ((more = memory_source_next(src, end, &start, &end, &e)) == 1) {
		if (start != last) {
			good = good &&
			       (last == UINT64_MAX || (want[0] == open && want[1] == last));
			want += last == UINT64_MAX ? 0 : 2;
			open = start;
		}
		last = end;
	}
	if (last != UINT64_MAX) {
		good = good && want[0] == open && want[1] == last;
		want += 2;
	}
	ok(more == 0 && good && want[1] == 0, "%s: ranges of data %s", name, e.msg);
}

/* That all bytes are those of map, in pieces that fit no boundary. */
static bool
same_bytes(struct memory_source *src, const unsigned char *map, size_t piece)
{
	uint64_t size = memory_source_size(src);
	unsigned char *buf = malloc(piece);
	struct err e = ERR_INIT;
	bool good = buf != NULL;

	for (uint64_t off = 0; good && off < size; off += piece) {
		size_t len = size - off < piece ? (size_t)(size - off) : piece;

		memset(buf, 0xee, len);
		good = memory_source_read(src, buf, len, off, &e) == 0 &&
		       memcmp(buf, map + off, len) == 0;
		if (!good)
			printf(
			    "# %zu bytes at %llu: %s\n", len, (unsigned long long)off, e.msg);
	}
	free(buf);
	return good;
}

static uint64_t
resident(struct memory_source *src)
{
	struct err e = ERR_INIT;
	uint64_t bytes;

	return memory_source_resident(src, &bytes, &e) == 0 ? bytes : UINT64_MAX;
}

static void
test_memfd(void)
{
	static const uint64_t ranges[] = { 0, 8192, 5 * MIB, 5 * MIB + 4096, 16 * MIB - 4096,
		16 * MIB, 0, 0 };
	static const uint64_t prefix[] = { 0, 8192, 5 * MIB, 5 * MIB + 4096, 0, 0 };
	int fd = new_memfd("ram", 16 * MIB);
	unsigned char *map = map_all(fd, 16 * MIB), *want = calloc(1, 16 * MIB);
	struct memory_source *src = source(fd, MEMORY_MEMFD, 0);
	uint64_t from[] = { 0, 4096, 5 * MIB, 16 * MIB - 4096 };
	struct err e = ERR_INIT;
	char byte;

	for (size_t i = 0; i < 4; i++) {
		fill_page(map, from[i]);
		fill_page(want, from[i]);
	}
	ok(memory_source_size(src) == 16 * MIB, "its own size");
	has_ranges(src, ranges, "memfd");
	ok(same_bytes(src, want, 777777), "memfd: the bytes");
	ok(resident(src) == 4 * 4096, "memfd: holes are still holes");
	ok(memory_source_read(src, &byte, 1, 16 * MIB, &e) == -1, "past the end: %s", e.msg);
	ok(memory_source_read(src, &byte, 1, UINT64_MAX, &e) == -1, "far past the end");
	memory_source_free(src);

	src = source(fd, MEMORY_MEMFD, 8 * MIB);
	has_ranges(src, prefix, "part of a memfd");
	memory_source_free(src);
	refuses(fd, MEMORY_MEMFD, 16 * MIB + 1, "16777217 bytes wanted", "too large a part");
	munmap(map, 16 * MIB);
	free(want);
	close(fd);
}

static void
test_empty(void)
{
	static const uint64_t none[] = { 0, 0 };
	int fd = new_memfd("ram", MIB), empty = new_memfd("empty", 0);
	struct memory_source *src = source(fd, MEMORY_MEMFD, 0);

	has_ranges(src, none, "a memfd that is one hole");
	ok(resident(src) == 0, "nothing resident");
	memory_source_free(src);
	src = source(empty, MEMORY_MEMFD, 0);
	has_ranges(src, none, "an empty memfd");
	memory_source_free(src);
	close(fd);
	close(empty);
}

static void
test_odd(void)
{
	static const uint64_t ranges[] = { 4096, 12288, 0, 0 };
	unsigned char buf[12288], zeros[4096] = { 0 };
	int fd = new_memfd("odd", 10000);
	struct memory_source *src = source(fd, MEMORY_MEMFD, 0);
	struct err e = ERR_INIT;

	if (pwrite(fd, "data", 4, 5000) != 4 || pwrite(fd, "end", 3, 9997) != 3)
		err(1, "pwrite");
	has_ranges(src, ranges, "odd size");
	memset(buf, 0xee, sizeof(buf));
	ok(memory_source_read(src, buf, 12288, 0, &e) == 0,
	    "reads go on to the end of the page");
	ok(memcmp(buf + 5000, "data", 4) == 0 && memcmp(buf + 9997, "end", 3) == 0 &&
		memcmp(buf + 10000, zeros, 2288) == 0,
	    "with zeros");
	ok(memory_source_read(src, buf, 2289, 10000, &e) == -1, "not further: %s", e.msg);
	memory_source_free(src);

	/* The object goes on, what is served of it does not. */
	src = source(fd, MEMORY_MEMFD, 9998);
	memset(buf, 0xee, sizeof(buf));
	ok(memory_source_read(src, buf, 4096, 8192, &e) == 0 && buf[9997 - 8192] == 'e' &&
		memcmp(buf + 9998 - 8192, zeros, 2000) == 0,
	    "zeros from the size on");
	memory_source_free(src);
	close(fd);
}

static void
test_shrink(void)
{
	int fd = new_memfd("ram", MIB);
	struct memory_source *src = source(fd, MEMORY_MEMFD, 0);
	struct err e = ERR_INIT;
	uint64_t start, end;
	char buf[8192];

	if (pwrite(fd, "data", 4, 0) != 4 || ftruncate(fd, 500000) == -1)
		err(1, "memfd");
	ok(memory_source_read(src, buf, sizeof(buf), 498000, &e) == -1 &&
		e.kind == ERR_FAILED && strstr(e.msg, "1048576 to 500000") != NULL,
	    "read: %s", e.msg);
	ok(memory_source_next(src, 0, &start, &end, &e) == -1, "next: %s", e.msg);
	ok(memory_source_next(src, 524288, &start, &end, &e) == -1,
	    "what is gone is no hole: %s", e.msg);
	memory_source_free(src);
	close(fd);
}

static void
test_file(void)
{
	char path[] = "/tmp/gmem-test-raw-XXXXXX";
	int fd = mkstemp(path), other;
	struct memory_source *src;
	unsigned char *map;

	if (fd == -1 || ftruncate(fd, 2 * MIB) == -1)
		err(1, "%s", path);
	map = map_all(fd, 2 * MIB);
	fill_page(map, 0);
	fill_page(map, MIB);
	src = source(fd, MEMORY_FILE, 0);
	ok(same_bytes(src, map, 100000), "raw file: the bytes");
	ok(resident(src) <= 2 * MIB, "raw file: resident");
	memory_source_free(src);
	munmap(map, 2 * MIB);
	unlink(path);
	close(fd);

	other = open("/tmp", O_RDONLY | O_DIRECTORY);
	refuses(other, MEMORY_FILE, 0, "neither", "a directory");
	close(other);
	other = open("/dev/null", O_RDONLY);
	refuses(other, MEMORY_FILE, 0, "neither", "a terminal or the like");
	close(other);
}

/* Pages in a file at an odd place, of which the bitmap tells; the rest is rubbish. */
static void
test_pages(void)
{
	static const uint64_t ranges[] = { 4096, 12288, 32 * 4096, 34 * 4096, 39 * 4096,
		40 * 4096, 0, 0 };
	static const uint8_t map[5] = { 0x06, 0, 0, 0, 0x83 };
	const uint64_t size = 40 * 4096, base = 5 * 4096;
	unsigned char *want = calloc(1, size), *file;
	int fd = new_memfd("pages", base + size + 4096);
	struct memory_source *src;
	struct err e = ERR_INIT;
	uint8_t *bitmap;

	file = map_all(fd, base + size + 4096);
	memset(file, 0xdd, base + size + 4096);
	for (unsigned i = 0; i < 40; i++) {
		if ((map[i / 8] >> i % 8 & 1) == 0)
			continue;
		fill_page(want, i * 4096);
		memcpy(file + base + i * 4096, want + i * 4096, 4096);
	}
	for (size_t pages = 1; pages <= 2; pages++) {
		bitmap = malloc(sizeof(map));
		memcpy(bitmap, map, sizeof(map));
		if (memory_source_open_pages(&src, dup(fd), base + (pages - 1) * 4097 * 4096,
			size, bitmap, 4096, &e) == -1)
			break;
		ok(memory_source_size(src) == size, "pages in a file: size");
		has_ranges(src, ranges, "pages in a file");
		ok(same_bytes(src, want, 5000), "pages in a file: the bytes");
		ok(same_bytes(src, want, 163840), "pages in a file: the bytes at once");
		ok(resident(src) == 5 * 4096, "pages in a file: resident");
		memory_source_free(src);
	}
	ok(e.kind == ERR_CORRUPT && strstr(e.msg, "the file has") != NULL,
	    "pages beyond the file: %s", e.msg);
	munmap(file, base + size + 4096);
	free(want);
	close(fd);
}

/* A loop device over a memfd, -1 if that is not allowed. */
static int
new_loop(int fd)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, loop;
	char path[32];

	if (control == -1)
		return -1;
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	loop = number == -1 ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (loop != -1 && ioctl(loop, LOOP_SET_FD, fd) == -1) {
		close(loop);
		return -1;
	}
	return loop;
}

static void
test_block_device(void)
{
	static const uint64_t all[] = { 0, 2 * MIB, 0, 0 };
	int fd = new_memfd("disk", 2 * MIB), loop;
	unsigned char *map = map_all(fd, 2 * MIB);
	struct memory_source *src;

	fill_page(map, MIB);
	loop = new_loop(fd);
	if (loop == -1) {
		skip(3, "no loop device");
	} else {
		src = source(loop, MEMORY_FILE, 0);
		has_ranges(src, all, "block device");
		ok(same_bytes(src, map, 100000), "block device: the bytes");
		ok(resident(src) == 2 * MIB, "block device: counts whole");
		memory_source_free(src);
		ioctl(loop, LOOP_CLR_FD);
		close(loop);
	}
	munmap(map, 2 * MIB);
	close(fd);
}

static void
test_hugetlb(void)
{
	static const uint64_t none[] = { 0, 0 };
	uint64_t page = 0, all[] = { 0, 0, 0, 0 };
	int fd = new_hugetlb(2, &page);
	struct memory_source *src;
	unsigned char *map, *want;

	if (fd == -1) {
		skip(5, "no two free huge pages");
		return;
	}
	src = source(fd, MEMORY_HUGETLB, 0);
	has_ranges(src, none, "hugetlb, nothing allocated");
	map = map_all(fd, 2 * page);
	want = calloc(2, page);
	fill_page(map, page + 4096);
	fill_page(want, page + 4096);
	munmap(map, 2 * page);
	all[1] = 2 * page;
	has_ranges(src, all, "hugetlb");
	ok(resident(src) == page, "hugetlb: resident");
	ok(same_bytes(src, want, 1000000), "hugetlb: the bytes");
	ok(resident(src) == page, "hugetlb: holes are still holes");
	memory_source_free(src);
	free(want);
	close(fd);
}

/* Every thread reads everything and compares. */
struct reader {
	struct memory_source *src;
	const unsigned char *want;
	size_t piece;
	bool good;
};

static void *
read_all(void *arg)
{
	struct reader *r = arg;

	r->good = true;
	for (int i = 0; i < 3; i++)
		r->good = r->good && same_bytes(r->src, r->want, r->piece);
	return NULL;
}

static bool
read_in_threads(struct memory_source *src, const unsigned char *want)
{
	struct reader readers[12];
	pthread_t threads[12];
	bool good = true;

	for (size_t i = 0; i < 12; i++) {
		readers[i] = (struct reader){ src, want, 60000 + 33333 * i, false };
		if (pthread_create(&threads[i], NULL, read_all, &readers[i]) != 0)
			errx(1, "pthread_create");
	}
	for (size_t i = 0; i < 12; i++) {
		pthread_join(threads[i], NULL);
		good = good && readers[i].good;
	}
	return good;
}

static void
test_threads(void)
{
	int fd = new_memfd("ram", 4 * MIB);
	unsigned char *map = map_all(fd, 4 * MIB);
	struct memory_source *src = source(fd, MEMORY_MEMFD, 0);

	for (uint64_t off = 0; off < 4 * MIB; off += 12288)
		fill_page(map, off);
	ok(read_in_threads(src, map), "memfd: many threads");
	memory_source_free(src);
	munmap(map, 4 * MIB);
	close(fd);
}

/* Larger than a search window, so that ranges cross its edges. */
static void
test_guest_memfd_holes(int fd, uint64_t size, unsigned char *map)
{
	const uint64_t ranges[] = { 4096, 12288, 64 * MIB - 4096, 64 * MIB + 4096, size - 4096,
		size, 0, 0 };
	unsigned char *want = calloc(1, size);
	struct memory_source *src = source(fd, MEMORY_GUEST_MEMFD, 0);

	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 8 * (off_t)MIB, 1 << 20) == -1)
		printf("# no fallocate\n");
	for (size_t i = 0; ranges[i + 1] != 0; i += 2) {
		for (uint64_t off = ranges[i]; off < ranges[i + 1]; off += 4096) {
			fill_page(map, off);
			fill_page(want, off);
		}
	}
	has_ranges(src, ranges, "guest_memfd");
	ok(resident(src) == 5 * 4096, "guest_memfd: resident");
	ok(same_bytes(src, want, 3333333), "guest_memfd: the bytes");
	ok(resident(src) == 5 * 4096, "guest_memfd: holes are still holes");
	memory_source_free(src);
	free(want);
}

static void
test_guest_memfd_threads(int fd, uint64_t size, unsigned char *map)
{
	struct memory_source *src = source(fd, MEMORY_GUEST_MEMFD, 8 * MIB);
	unsigned char *want = calloc(1, size);

	for (uint64_t off = 0; off < 8 * MIB; off += 8192) {
		fill_page(map, off);
		fill_page(want, off);
	}
	for (uint64_t off = 4096; off < 8 * MIB; off += 8192)
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, 4096);
	ok(read_in_threads(src, want), "guest_memfd: many threads");
	ok(resident(src) == 4 * MIB, "guest_memfd: every other page is still a hole");
	memory_source_free(src);
	free(want);
}

static int
open_foreign(void *arg)
{
	struct memory_source *src;
	struct err e = ERR_INIT;

	if (memory_source_open(&src, *(int *)arg, MEMORY_GUEST_MEMFD, 0, &e) == 0)
		return 1;
	printf("# %s\n", e.msg);
	fflush(stdout);
	return strstr(e.msg, "does not tell") == NULL;
}

static void
test_guest_memfd(void)
{
	uint64_t size = 130 * MIB;
	int fd = new_guest_memfd(size, 3), dark;
	unsigned char *map;

	if (fd == -1) {
		skip(9, "no guest_memfd on this machine");
		return;
	}
	map = map_all(fd, size);
	test_guest_memfd_holes(fd, size, map);
	test_guest_memfd_threads(fd, size, map);
	if (geteuid() == 0)
		ok(as_nobody(open_foreign, &fd) == 0, "guest_memfd: blind mincore is refused");
	else
		skip(1, "only root can become somebody else");
	munmap(map, size);
	close(fd);
	dark = new_guest_memfd(MIB, 0);
	refuses(dark, MEMORY_GUEST_MEMFD, 0, "GUEST_MEMFD_FLAG_MMAP", "one that is private");
	close(dark);
}

/* The same reader over a memfd, which a machine without KVM has too. */
static void
test_window_reader(void)
{
	int fd = new_memfd("ram", 3 * MIB);
	unsigned char *map = map_all(fd, 3 * MIB), *buf = malloc(3 * MIB);
	struct guest_memfd_scratch scratch;
	struct err e = ERR_INIT;
	uint64_t start, end;
	struct stat st;

	fill_page(map, MIB - 4096);
	fill_page(map, MIB);
	guest_memfd_scratch_init(&scratch);
	ok(guest_memfd_next(fd, 3 * MIB, 0, &start, &end, &e) == 1 && start == MIB - 4096 &&
		end == MIB + 4096,
	    "windows: a run over an edge");
	ok(guest_memfd_next(fd, 3 * MIB, end, &start, &end, &e) == 0, "windows: no more");
	memset(buf, 0xee, 3 * MIB);
	ok(guest_memfd_read(fd, &scratch, buf, 3 * MIB - 5, 3, &e) == 0, "windows: %s", e.msg);
	fstat(fd, &st);
	ok(st.st_blocks == 16, "windows: holes are still holes");
	ok(memcmp(buf, map + 3, 3 * MIB - 5) == 0, "windows: the bytes");
	guest_memfd_scratch_fini(&scratch);
	munmap(map, 3 * MIB);
	free(buf);
	close(fd);
}

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

/*
 * Memory that the kernel itself has no mapping of: memfd_secret(2) stands for a
 * guest_memfd with GUEST_MEMFD_FLAG_NO_DIRECT_MAP, of which the same ways in are shut.
 */
static void
test_no_direct_map(void)
{
	int fd = (int)syscall(SYS_memfd_secret, 0);
	struct guest_memfd_scratch scratch;
	unsigned char *map, buf[4 * 4096];
	struct err e = ERR_INIT;
	uint64_t start, end;
	bool refused;

	if (fd == -1 || ftruncate(fd, (off_t)sizeof(buf)) == -1) {
		skip(5, "no memfd_secret");
		return;
	}
	map = map_all(fd, sizeof(buf));
	fill_page(map, 4096);
	refused = madvise(map + 4096, 4096, 22 /* MADV_POPULATE_READ */) == -1;
	ok(refused, "no direct map: cannot be faulted in: %s", strerror(errno));
	guest_memfd_scratch_init(&scratch);
	ok(guest_memfd_check(fd, &e) == 0, "no direct map: is taken: %s", e.msg);
	ok(guest_memfd_next(fd, sizeof(buf), 0, &start, &end, &e) == 1 && start == 4096 &&
		end == 8192,
	    "no direct map: what is there: %s", e.msg);
	memset(buf, 0xee, sizeof(buf));
	ok(guest_memfd_read(fd, &scratch, buf, sizeof(buf), 0, &e) == 0 &&
		memcmp(buf, map, 8192) == 0,
	    "no direct map: is read: %s", e.msg);
	ok(guest_memfd_next(fd, sizeof(buf), 8192, &start, &end, &e) == 0 ||
		start >= 8192 + 4096,
	    "no direct map: holes are still holes");
	guest_memfd_scratch_fini(&scratch);
	munmap(map, sizeof(buf));
	close(fd);
}

static bool mincore_says_all;

/* Takes the place of the C library's. */
int
mincore(void *p, size_t len, unsigned char *vec)
{
	if (!mincore_says_all)
		return (int)syscall(SYS_mincore, p, len, vec);
	memset(vec, 1, (len + 4095) / 4096);
	return 0;
}

/*
 * A page that is there, but gives SIGBUS to who touches it, as one that is private
 * does: here it is beyond the end of the file, and mincore lies.
 */
static void
test_private_page(void)
{
	int fd = new_memfd("ram", 8192);
	unsigned char *map = map_all(fd, 8192), buf[8192];
	struct guest_memfd_scratch scratch;
	struct err e = ERR_INIT;

	fill_page(map, 0);
	guest_memfd_scratch_init(&scratch);
	ok(guest_memfd_read(fd, &scratch, buf, 4096, 0, &e) == 0, "private: %s", e.msg);
	mincore_says_all = true;
	if (ftruncate(fd, 4096) == -1)
		err(1, "ftruncate");
	ok(guest_memfd_read(fd, &scratch, buf, 8192, 0, &e) == -1 && e.kind == ERR_FAILED &&
		strstr(e.msg, "at 4096: the page is private to the guest") != NULL,
	    "private: %s", e.msg);
	mincore_says_all = false;
	guest_memfd_scratch_fini(&scratch);
	munmap(map, 8192);
	close(fd);
}

/* A mark on [1 MiB, 2 MiB) of fd, which is closed, as `other` shows it, if there is one. */
static void
marks(const char *name, int fd, int other)
{
	int eye = other != -1 ? other : dup(fd);
	struct memory_source *src = source(eye, MEMORY_FILE, 0);
	struct err e = ERR_INIT;

	ok(!filling_is(eye, 0, 0), "%s: no mark", name);
	ok(filling_begin(fd, MIB, MIB, &e) == 0, "%s: a mark: %s", name, e.msg);
	ok(filling_is(eye, 0, 0) && filling_is(eye, 2 * MIB - 1, 1), "%s: is seen", name);
	ok(!filling_is(eye, 0, MIB) && !filling_is(eye, 2 * MIB, 0), "%s: nowhere else", name);
	ok(memory_source_is_filling(src, MIB, 4096) && !memory_source_is_filling(src, 0, 4096),
	    "%s: by who reads it", name);
	filling_end(fd, MIB, 4096);
	ok(!filling_is(eye, 0, MIB + 4096) && filling_is(eye, 0, 0), "%s: ends in parts", name);
	ok(filling_begin(fd, 0, MIB, &e) == 0 && filling_is(eye, 0, 1), "%s: a second", name);
	filling_end(fd, 0, MIB);
	filling_end(fd, 0, MIB);
	ok(filling_is(eye, 0, 0), "%s: the first stays", name);
	if (other == -1)
		filling_end(fd, MIB, MIB);
	close(fd);
	ok(!filling_is(eye, 0, 0), "%s: no mark any more", name);
	memory_source_free(src);
	close(eye);
}

static void
test_filling(void)
{
	int fd = new_memfd("ram", 3 * MIB), guest = new_guest_memfd(4 * MIB, 3);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	marks("one that is opened again", fd, open(path, O_RDONLY | O_CLOEXEC));
	marks("one that is shared", new_memfd("ram", 3 * MIB), -1);
	if (guest == -1)
		skip(9, "no guest_memfd on this machine");
	else
		marks("guest_memfd", guest, -1);
}

int
main(void)
{
	test_filling();
	test_memfd();
	test_empty();
	test_odd();
	test_shrink();
	test_file();
	test_pages();
	test_block_device();
	test_hugetlb();
	test_threads();
	test_window_reader();
	test_guest_memfd();
	test_no_direct_map();
	test_private_page();
	memory_source_free(NULL);
	return done();
}
