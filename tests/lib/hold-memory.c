/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * A process with guest-like memory, for gmem-snap --pid:
 *
 *	hold-memory [-c] [-f FILE] [-p] [-u] NAME=MIB[:RAW]...
 *
 * makes a memfd of each name, maps it, fills it, and writes what is in it to RAW.
 *  -c  also a memfd "counter": the first word of page 0, then that of page 1,
 *      are set to 1, 2, 3… for ever
 *  -f  also maps 1 MiB of FILE, shared
 *  -p  maps the last memfd a second time, privately
 *  -u  registers a userfaultfd on the last memfd, which is not filled then
 *
 * Prints "ready" and stays until it is killed.  Without -c it prints "done" after
 *  SIGUSR1, when it has made one more memfd, "late"
 *  SIGUSR2, when it has registered a userfaultfd on the last memfd of the command line
 *  SIGHUP, when it has made a child, which has the memory mapped too
 */
#include <err.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "small-image.h"

#define MIB ((size_t)1 << 20)

static void *
map(int fd, size_t len, int flags)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static int
make(const char *name, size_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, (off_t)len) == -1)
		err(1, "memfd %s", name);
	return fd;
}

/* Status 77 if the kernel does not let us. */
static void
serve(void *p, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd == -1 || ioctl(fd, UFFDIO_API, &api) == -1)
		err(77, "userfaultfd");
	if (ioctl(fd, UFFDIO_REGISTER, &reg) == -1)
		err(77, "UFFDIO_REGISTER");
}

/* Holes stay holes. */
static void
fill(uint8_t *p, size_t len, uint64_t seed)
{
	uint8_t *content = malloc(len);

	if (content == NULL)
		err(1, "malloc");
	fill_memory(content, len, 8, seed);
	for (size_t off = 0; off < len; off += 4096)
		if (content[off] != 0 || memcmp(content + off, content + off + 1, 4095) != 0)
			memcpy(p + off, content + off, 4096);
	free(content);
}

static void
write_raw(const char *path, const void *p, size_t len)
{
	FILE *f = fopen(path, "w");

	if (f == NULL || fwrite(p, 1, len, f) != len || fclose(f) != 0)
		err(1, "%s", path);
}

static struct {
	void *p;
	size_t len;
} last; /* memfd of the command line */

/* NAME=MIB[:RAW] */
static void
add(char *arg, uint64_t seed, bool served, bool private)
{
	char *equals = strchr(arg, '='), *raw = strchr(arg, ':');
	size_t len;
	void *p;
	int fd;

	if (equals == NULL)
		errx(2, "%s: NAME=MIB is wanted", arg);
	*equals = '\0';
	if (raw != NULL)
		*raw++ = '\0';
	len = strtoul(equals + 1, NULL, 10) * MIB;
	fd = make(arg, len);
	p = map(fd, len, MAP_SHARED);
	if (served)
		serve(p, len);
	else
		fill(p, len, seed);
	if (raw != NULL)
		write_raw(raw, p, len);
	if (private)
		map(fd, len, MAP_PRIVATE);
	last.p = p;
	last.len = len;
}

static void
say(const char *word)
{
	puts(word);
	fflush(stdout);
}

static void
obey(const sigset_t *wishes)
{
	int wish;

	sigwait(wishes, &wish);
	if (wish == SIGUSR1)
		fill(map(make("late", MIB), MIB, MAP_SHARED), MIB, 99);
	else if (wish == SIGUSR2)
		serve(last.p, last.len);
	else if (fork() == 0)
		for (prctl(PR_SET_PDEATHSIG, SIGKILL);;)
			pause();
	say("done");
}

static void
count(volatile uint64_t *a, volatile uint64_t *b)
{
	for (uint64_t n = 1;; n++) {
		*a = n;
		*b = n;
	}
}

int
main(int argc, char **argv)
{
	bool counting = false, private = false, served = false;
	const char *file = NULL;
	uint8_t *counter = NULL;
	sigset_t wishes;
	int option;

	while ((option = getopt(argc, argv, "cf:pu")) != -1) {
		switch (option) {
		case 'c':
			counting = true;
			break;
		case 'f':
			file = optarg;
			break;
		case 'p':
			private
			= true;
			break;
		case 'u':
			served = true;
			break;
		default:
			return 2;
		}
	}
	for (int i = optind; i < argc; i++)
		add(argv[i], (uint64_t)i, served && i == argc - 1, private && i == argc - 1);
	if (file != NULL)
		map(open(file, O_RDWR | O_CLOEXEC), MIB, MAP_SHARED);
	if (counting)
		counter = map(make("counter", 8192), 8192, MAP_SHARED);
	sigemptyset(&wishes);
	sigaddset(&wishes, SIGUSR1);
	sigaddset(&wishes, SIGUSR2);
	sigaddset(&wishes, SIGHUP);
	sigprocmask(SIG_BLOCK, &wishes, NULL);
	say("ready");
	if (counting)
		count((uint64_t *)(void *)counter, (uint64_t *)(void *)(counter + 4096));
	for (;;)
		obey(&wishes);
}
