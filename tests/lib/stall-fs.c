/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * stall-fs FOLDER MOUNTPOINT CONTROL: a file system that shows the files of FOLDER, to be read
 * only, and hangs when it is told to: as long as there is a file CONTROL/open, nothing is
 * opened, as long as there is CONTROL/read nothing is read; or, if that holds numbers, nothing
 * from the first byte on, up to the second.  Like one of a network whose server has gone: who
 * waits for it can't even be killed.  It is in the background when this returns, and ends when
 * it is unmounted.
 *
 * Exit status 77: it can't be mounted, and why is told.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fuse.h>

#define REQUEST_MAX 65536
#define DATA_MAX (128u * 1024)
#define FILES_MAX 16
#define STALLED_MAX 256
#define TICK_MS 20

struct stalled {
	struct fuse_in_header head;
	struct fuse_read_in read;
};

static int dev = -1, folder = -1, control = -1;
static char *names[FILES_MAX]; /* node i + 2 */
static struct stalled stalled[STALLED_MAX];
static unsigned nstalled;

static void
answer(const struct fuse_in_header *to, int error, const void *data, size_t len)
{
	static char buf[sizeof(struct fuse_out_header) + DATA_MAX];
	struct fuse_out_header h = {
		.len = (uint32_t)(sizeof(h) + len), .error = -error, .unique = to->unique
	};

	memcpy(buf, &h, sizeof(h));
	if (len != 0)
		memcpy(buf + sizeof(h), data, len);
	/* Who asked may have given up. */
	if (write(dev, buf, h.len) == -1 && errno != ENOENT && errno != ENODEV)
		perror("stall-fs: /dev/fuse");
}

static int
attributes(uint64_t node, struct fuse_attr *a)
{
	struct stat st;

	*a = (struct fuse_attr){ .ino = node, .nlink = 1, .blksize = 4096 };
	a->mode = S_IFDIR | 0755;
	if (node == FUSE_ROOT_ID)
		return 0;
	if (node - 2 >= FILES_MAX || names[node - 2] == NULL ||
	    fstatat(folder, names[node - 2], &st, 0) == -1)
		return ENOENT;
	a->mode = S_IFREG | 0444;
	a->size = (uint64_t)st.st_size;
	a->blocks = (uint64_t)st.st_blocks;
	return 0;
}

static uint64_t
node_of(const char *name)
{
	size_t i;

	for (i = 0; i < FILES_MAX && names[i] != NULL; i++)
		if (strcmp(names[i], name) == 0)
			return i + 2;
	if (i == FILES_MAX)
		return 0;
	names[i] = strdup(name);
	return i + 2;
}

static void
look_up(const struct fuse_in_header *h, const char *name)
{
	struct fuse_entry_out out = { .nodeid = 0 };
	struct stat st;

	if (fstatat(folder, name, &st, 0) == 0)
		out.nodeid = node_of(name);
	if (out.nodeid == 0 || attributes(out.nodeid, &out.attr) != 0)
		answer(h, ENOENT, NULL, 0);
	else
		answer(h, 0, &out, sizeof(out));
}

static bool
hangs(const struct stalled *r)
{
	char numbers[64] = "";
	unsigned long long from = 0, to = UINT64_MAX;
	int fd = openat(control, r->head.opcode == FUSE_OPEN ? "open" : "read", O_RDONLY);

	if (fd == -1)
		return false;
	if (read(fd, numbers, sizeof(numbers) - 1) > 0)
		sscanf(numbers, "%llu %llu", &from, &to);
	close(fd);
	return r->head.opcode == FUSE_OPEN ||
	       (r->read.offset + r->read.size > from && r->read.offset < to);
}

static void
do_read(const struct stalled *r)
{
	static char data[DATA_MAX];
	size_t size = r->read.size < DATA_MAX ? r->read.size : DATA_MAX;
	int fd = openat(folder, names[r->head.nodeid - 2], O_RDONLY);
	ssize_t n = fd == -1 ? -1 : pread(fd, data, size, (off_t)r->read.offset);

	if (fd != -1)
		close(fd);
	answer(&r->head, n == -1 ? EIO : 0, data, n == -1 ? 0 : (size_t)n);
}

static void
do_or_hang(const struct stalled *r)
{
	const struct fuse_open_out opened = { .open_flags = FOPEN_DIRECT_IO };

	if (hangs(r) && nstalled < STALLED_MAX)
		stalled[nstalled++] = *r;
	else if (r->head.opcode == FUSE_OPEN)
		answer(&r->head, 0, &opened, sizeof(opened));
	else
		do_read(r);
}

static void
try_again(void)
{
	static struct stalled old[STALLED_MAX];
	unsigned n = nstalled;

	memcpy(old, stalled, n * sizeof(*old));
	nstalled = 0;
	for (unsigned i = 0; i < n; i++)
		do_or_hang(&old[i]);
}

static void
handle(const struct fuse_in_header *h, const char *arg)
{
	const struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION,
		.minor = 31,
		.max_readahead = DATA_MAX,
		.max_background = 16,
		.max_write = 4096 };
	struct stalled r = { .head = *h };
	struct fuse_attr_out attr = { 0 };

	switch (h->opcode) {
	case FUSE_INIT:
		answer(h, 0, &init, sizeof(init));
		break;
	case FUSE_LOOKUP:
		look_up(h, arg);
		break;
	case FUSE_GETATTR:
		if (attributes(h->nodeid, &attr.attr) == 0)
			answer(h, 0, &attr, sizeof(attr));
		else
			answer(h, ENOENT, NULL, 0);
		break;
	case FUSE_READ:
		memcpy(&r.read, arg, sizeof(r.read));
		do_or_hang(&r);
		break;
	case FUSE_OPEN:
		do_or_hang(&r);
		break;
	case FUSE_RELEASE:
	case FUSE_FLUSH:
		answer(h, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		answer(h, ENOSYS, NULL, 0);
	}
}

static void
serve(void)
{
	static char buf[REQUEST_MAX];
	struct pollfd p = { .fd = dev, .events = POLLIN };

	for (;;) {
		ssize_t n = 0;

		if (poll(&p, 1, TICK_MS) == 1) {
			n = read(dev, buf, sizeof(buf));
			if (n == -1 && errno == ENODEV)
				return;
		}
		if (n >= (ssize_t)sizeof(struct fuse_in_header))
			handle((const struct fuse_in_header *)buf,
			    buf + sizeof(struct fuse_in_header));
		try_again();
	}
}

static int
fail(const char *what, int status)
{
	fprintf(stderr, "stall-fs: %s: %s\n", what, strerror(errno));
	return status;
}

int
main(int argc, char **argv)
{
	char options[128];
	pid_t pid;

	if (argc != 4)
		return 64;
	folder = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	control = open(argv[3], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder == -1 || control == -1)
		return fail(folder == -1 ? argv[1] : argv[3], 65);
	dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (dev == -1)
		return fail("/dev/fuse", 77);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", dev,
	    (unsigned)getuid(), (unsigned)getgid());
	if (mount("stall-fs", argv[2], "fuse", MS_NOSUID | MS_NODEV, options) == -1)
		return fail("mount", 77);
	pid = fork();
	if (pid != 0)
		return pid == -1 ? fail("fork", 65) : 0;
	serve();
	return 0;
}
