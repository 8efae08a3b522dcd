/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * How fast fresh memory is filled: write(2) against memcpy through a mapping, each alone and
 * followed by UFFDIO_CONTINUE on another mapping that is registered; and UFFDIO_COPY.  Bare:
 * nothing of gmem is in here, and no sanitizer.  README tells how to read what it prints.
 *
 *	gmem-bench-populate [-c] [-m MIB] [-r ROUNDS] [-j FILE]
 *
 * -c: the CPU time of all threads, which a busy machine changes less.  FILE gets
 * JSON objects, each with a comma behind it, for run.sh.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define BLOCK ((size_t)2 << 20) /* what a thread takes at once */
#define ROUNDS_MAX 99
#define THREADS_MAX 2

enum kind { MEMFD, GUEST_MEMFD, KINDS };
enum way { WRITE, MEMCPY, WRITE_CONTINUE, MEMCPY_CONTINUE, COPY, WAYS };
enum { STEPS = 3 };

static const char *const kind_names[KINDS] = { "memfd", "guest_memfd" };
static const char *const way_names[WAYS] = { "write", "memcpy", "write + CONTINUE",
	"memcpy + CONTINUE", "UFFDIO_COPY" };
static const size_t step_sizes[STEPS] = { PAGE, 64 << 10, BLOCK };
static const char *const step_names[STEPS] = { "4 KiB", "64 KiB", "2 MiB" };

static size_t size = (size_t)128 << 20;
static int rounds = 7;
static clockid_t clock_id = CLOCK_MONOTONIC;
static FILE *json;

static double ns[KINDS][THREADS_MAX][WAYS][STEPS][ROUNDS_MAX]; /* of one page */
static char missing[KINDS][WAYS][80]; /* why it is not possible */
static uint8_t *data; /* what is filled in */

/* ---- the memory ---- */

/* The headers of Debian 12 are of Linux 6.1; this is of 6.18. */
struct create_guest_memfd {
	uint64_t size, flags, reserved[6];
};
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#define CAP_GUEST_MEMFD_FLAGS 244
#define MMAP_AND_INIT_SHARED 3u

static int vm = -1, kvm_errno;
static uint32_t guest_memfd_flags = MMAP_AND_INIT_SHARED;

static int
guest_memfd(size_t len, uint32_t flags)
{
	struct create_guest_memfd args = { .size = len, .flags = flags };

	if (vm == -1) {
		errno = kvm_errno;
		return -1;
	}
	return ioctl(vm, CREATE_GUEST_MEMFD, &args);
}

static bool
takes_write(uint32_t flags)
{
	int fd = guest_memfd(PAGE, flags);
	bool good = fd != -1 && pwrite(fd, data, PAGE, 0) == (ssize_t)PAGE;

	if (fd != -1)
		close(fd);
	return good;
}

/* Whether write(2) needs a flag of its own depends on the patches. */
static void
open_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), offered;

	vm = kvm == -1 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	kvm_errno = errno;
	offered = ioctl(vm, KVM_CHECK_EXTENSION, CAP_GUEST_MEMFD_FLAGS);
	for (uint32_t flag = MMAP_AND_INIT_SHARED + 1; offered > 0 && flag != 0; flag <<= 1)
		if (((uint32_t)offered & flag) != 0 && !takes_write(guest_memfd_flags) &&
		    takes_write(MMAP_AND_INIT_SHARED | flag))
			guest_memfd_flags = MMAP_AND_INIT_SHARED | flag;
	if (kvm != -1)
		close(kvm);
}

static int
new_memory(enum kind kind, size_t len)
{
	int fd;

	if (kind == GUEST_MEMFD)
		return guest_memfd(len, guest_memfd_flags);
	fd = memfd_create("populate", MFD_CLOEXEC);
	if (fd != -1 && ftruncate(fd, (off_t)len) == -1)
		err(1, "memfd");
	return fd;
}

/* ---- filling it ---- */

/* Of functions that return a string: NULL, or what has failed, with errno. */
struct fill {
	enum way way;
	size_t step, len;
	int fd, uffd;
	uint8_t *own, *served; /* two mappings; the second is registered */
	atomic_size_t next;
};

static void *
map(int fd, size_t len)
{
	return mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static const char *
begin_serving(struct fill *f)
{
	struct uffdio_api api = { .api = UFFD_API,
		.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)f->served, .len = f->len },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	/* Nobody faults, so that needs no privilege. */
	f->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (f->uffd == -1 || ioctl(f->uffd, UFFDIO_API, &api) == -1)
		return "userfaultfd";
	return ioctl(f->uffd, UFFDIO_REGISTER, &reg) == -1 ? "UFFDIO_REGISTER" : NULL;
}

static const char *
fill_begin(struct fill *f, enum kind kind)
{
	f->uffd = -1;
	f->own = f->served = MAP_FAILED;
	f->fd = new_memory(kind, f->len);
	if (f->fd == -1)
		return kind == GUEST_MEMFD && vm == -1 ? "/dev/kvm" : kind_names[kind];
	f->own = map(f->fd, f->len);
	f->served = map(f->fd, f->len);
	if (f->own == MAP_FAILED || f->served == MAP_FAILED)
		return "mmap";
	return f->way < WRITE_CONTINUE ? NULL : begin_serving(f);
}

static void
fill_end(struct fill *f)
{
	if (f->uffd != -1)
		close(f->uffd);
	if (f->own != MAP_FAILED)
		munmap(f->own, f->len);
	if (f->served != MAP_FAILED)
		munmap(f->served, f->len);
	if (f->fd != -1)
		close(f->fd);
}

static const char *
step_write(const struct fill *f, const uint8_t *from, size_t off)
{
	for (size_t done = 0; done < f->step;) {
		ssize_t n = pwrite(f->fd, from + done, f->step - done, (off_t)(off + done));

		if (n <= 0)
			return "write";
		done += (size_t)n;
	}
	return NULL;
}

static const char *
step_continue(const struct fill *f, size_t off)
{
	for (size_t done = 0; done < f->step;) {
		struct uffdio_continue c = { .range = { (uintptr_t)f->served + off + done,
						 f->step - done } };

		if (ioctl(f->uffd, UFFDIO_CONTINUE, &c) == -1 && errno != EAGAIN)
			return "UFFDIO_CONTINUE";
		done += c.mapped > 0 ? (size_t)c.mapped : 0;
	}
	return NULL;
}

static const char *
step_copy(const struct fill *f, const uint8_t *from, size_t off)
{
	for (size_t done = 0; done < f->step;) {
		struct uffdio_copy c = { .dst = (uintptr_t)f->served + off + done,
			.src = (uintptr_t)from + done,
			.len = f->step - done };

		if (ioctl(f->uffd, UFFDIO_COPY, &c) == -1 && errno != EAGAIN)
			return "UFFDIO_COPY";
		done += c.copy > 0 ? (size_t)c.copy : 0;
	}
	return NULL;
}

static const char *
fill_step(const struct fill *f, const uint8_t *from, size_t off)
{
	const char *failed = NULL;

	if (f->way == COPY)
		return step_copy(f, from, off);
	if (f->way == WRITE || f->way == WRITE_CONTINUE)
		failed = step_write(f, from, off);
	else
		memcpy(f->own + off, from, f->step);
	if (failed != NULL || f->way < WRITE_CONTINUE)
		return failed;
	return step_continue(f, off);
}

static void *
fill_main(void *arg)
{
	struct fill *f = arg;
	const char *failed = NULL;
	size_t at;

	while (failed == NULL && (at = atomic_fetch_add(&f->next, BLOCK)) < f->len)
		for (size_t off = at; failed == NULL && off < at + BLOCK; off += f->step)
			failed = fill_step(f, data, off);
	return (void *)(uintptr_t)failed;
}

/* Looks at some of the pages, by the mapping that no fault is served on. */
static void
verify(const struct fill *f)
{
	for (size_t off = 0; off < f->len; off += 61 * PAGE)
		if (memcmp(f->own + off, data + off % f->step, 64) != 0)
			errx(1, "%s: the page at %#zx has something else", way_names[f->way],
			    off);
}

/* ---- the rounds ---- */

static double
now(void)
{
	struct timespec t;

	clock_gettime(clock_id, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Fills fresh memory; for one page. */
static double
measure(enum kind kind, int nthreads, enum way way, size_t step)
{
	struct fill f = { .way = way, .step = step, .len = size };
	const char *failed = fill_begin(&f, kind);
	pthread_t threads[THREADS_MAX];
	void *results[THREADS_MAX];
	double began = now(), took;

	for (int i = 0; failed == NULL && i < nthreads; i++)
		if (pthread_create(&threads[i], NULL, fill_main, &f) != 0)
			errx(1, "no thread");
	for (int i = 0; failed == NULL && i < nthreads; i++)
		pthread_join(threads[i], &results[i]);
	took = now() - began;
	for (int i = 0; failed == NULL && i < nthreads; i++)
		failed = results[i];
	if (failed != NULL)
		errx(1, "%s by %s: %s has failed", kind_names[kind], way_names[way], failed);
	verify(&f);
	fill_end(&f);
	return took / (double)(size / PAGE);
}

static void
measure_all(int round)
{
	for (int k = 0; k < KINDS; k++)
		for (int t = 0; t < THREADS_MAX; t++)
			for (int s = 0; s < STEPS; s++)
				for (int w = 0; w < WAYS; w++)
					if (missing[k][w][0] == '\0')
						ns[k][t][w][s][round] = measure((enum kind)k,
						    t + 1, (enum way)w, step_sizes[s]);
}

/* Finds out what is possible, by one block. */
static void
try_all(void)
{
	for (int k = 0; k < KINDS; k++)
		for (int w = 0; w < WAYS; w++) {
			struct fill f = { .way = (enum way)w, .step = BLOCK, .len = BLOCK };
			const char *failed = fill_begin(&f, (enum kind)k);

			if (failed == NULL)
				failed = fill_main(&f);
			if (failed != NULL)
				snprintf(missing[k][w], sizeof(missing[k][w]), "%s: %s", failed,
				    strerror(errno));
			else
				verify(&f);
			fill_end(&f);
		}
}

/* ---- what came of it ---- */

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of v, or, round by round, of v in units of the other. */
static double
median(const double *v, const double *other)
{
	double sorted[ROUNDS_MAX];

	for (int i = 0; i < rounds; i++)
		sorted[i] = other == NULL ? v[i] : v[i] / other[i];
	qsort(sorted, (size_t)rounds, sizeof(*sorted), compare);
	return sorted[rounds / 2];
}

static void
put_json(int k, int t, int s, const char *what, double value, const char *unit)
{
	if (json != NULL)
		fprintf(json,
		    "{\"name\":\"populate %s, %d thread%s, %s: %s\",\"value\":%.3f,"
		    "\"unit\":\"%s\"},",
		    kind_names[k], t + 1, t == 0 ? "" : "s", step_names[s], what, value, unit);
}

static void
show_way(int k, int t, int w)
{
	printf("  %-34s", way_names[w]);
	if (missing[k][w][0] != '\0') {
		printf(" not here: %s\n", missing[k][w]);
		return;
	}
	for (int s = 0; s < STEPS; s++) {
		double page = median(ns[k][t][w][s], NULL);

		printf("%8.2f us%6.2f GB/s", page / 1e3, (double)PAGE / page);
		put_json(k, t, s, way_names[w], page / 1e3, "us");
	}
	putchar('\n');
}

static void
show_ratio(int k, int t, int w, int other)
{
	char what[80];

	if (missing[k][w][0] != '\0' || missing[k][other][0] != '\0')
		return;
	printf("    against %-24s", way_names[other]);
	snprintf(what, sizeof(what), "%s against %s", way_names[w], way_names[other]);
	for (int s = 0; s < STEPS; s++) {
		double ratio = median(ns[k][t][w][s], ns[k][t][other][s]);

		printf("%*.2f x", s == 0 ? 8 : 20, ratio);
		put_json(k, t, s, what, ratio, "x");
	}
	putchar('\n');
}

static void
show(int k, int t)
{
	char what[80];

	snprintf(what, sizeof(what), "%s, %d thread%s: %s", kind_names[k], t + 1,
	    t == 0 ? "" : "s", clock_id == CLOCK_MONOTONIC ? "4 KiB take" : "CPU time");
	printf("%-36s", what);
	for (int s = 0; s < STEPS; s++)
		printf("%12s at a time", step_names[s]);
	putchar('\n');
	for (int w = 0; w < WAYS; w++) {
		show_way(k, t, w);
		if (w == MEMCPY || w == MEMCPY_CONTINUE)
			show_ratio(k, t, w, w - 1);
		else if (w == COPY)
			show_ratio(k, t, w, WRITE_CONTINUE);
	}
}

static void
options(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "cm:r:j:")) != -1)
		if (c == 'c')
			clock_id = CLOCK_PROCESS_CPUTIME_ID;
		else if (c == 'm')
			size = strtoul(optarg, NULL, 10) << 20;
		else if (c == 'r')
			rounds = atoi(optarg);
		else if (c != 'j' || (json = fopen(optarg, "w")) == NULL)
			errx(2,
			    "usage: gmem-bench-populate [-c] [-m MIB] [-r ROUNDS] [-j FILE]");
	if (size == 0 || size % BLOCK != 0 || rounds < 1 || rounds > ROUNDS_MAX)
		errx(2, "an even number of MiB, and 1 to %d rounds", ROUNDS_MAX);
}

int
main(int argc, char **argv)
{
	options(argc, argv);
	data = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		err(1, "mmap");
	for (size_t i = 0; i < BLOCK; i++)
		data[i] = (uint8_t)(i + i / PAGE * 7 + 1);
	open_kvm();
	try_all();
	for (int round = 0; round < rounds; round++)
		measure_all(round);
	for (int k = 0; k < KINDS; k++)
		for (int t = 0; t < THREADS_MAX; t++)
			show(k, t);
	if (json != NULL && fclose(json) != 0)
		err(1, "JSON");
	return 0;
}
