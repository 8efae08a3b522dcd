/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vmm-serve [lazy|eager] RAM COMMAND...: what gmem-restore is for a VMM that brings its own
 * memory, as short as can be: one region "ram" from a raw file, one process, one
 * mapping, page by page.  Ends with the status of the command; says what it did.
 */
#include <config.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gmem-handoff.h"

#define PAGE 4096u

static bool eager;
static const unsigned char *ram; /* of the file; private, and populated */
static uint64_t size, address; /* of the mapping in the VMM */
static int sock, memory = -1, uffd = -1;
static uint64_t *bitmap;
static bool *served; /* each page; what is discarded, too */
static unsigned faults, exits, discarded;

static void
answer(struct gmem_message m, const void *rest, size_t more, const int *fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov[] = { { &m, sizeof(m) }, { (void *)(uintptr_t)rest, more } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct cmsghdr *c;

	m.version = GMEM_HANDOFF_VERSION;
	if (fd != NULL) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), fd, sizeof(int));
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) == -1)
		err(1, "reply");
}

static void
welcome(void)
{
	struct gmem_message m = { .type = GMEM_WELCOME, .count = 1 };
	struct gmem_region r = { .name = "ram",
		.size = size,
		.page_size = PAGE,
		.guest_address = GMEM_NO_ADDRESS,
		.fd = GMEM_NO_FD };
	int lifeline[2];

	if (pipe2(lifeline, O_CLOEXEC) == -1)
		err(1, "pipe");
	answer(m, &r, sizeof(r), &lifeline[0]);
	close(lifeline[0]);
}

static void
fill_page(uint64_t page, const void *bytes)
{
	if (pwrite(memory, bytes, PAGE, (off_t)(page * PAGE)) != (ssize_t)PAGE)
		err(1, "write page %llu", (unsigned long long)page);
}

static void
fill_all(void)
{
	unsigned char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);

	if (map == MAP_FAILED)
		err(1, "map memory");
	memcpy(map, ram, size);
	munmap(map, size);
}

static void
take_memory(const struct gmem_message *m, const int *fds, int nfds)
{
	struct gmem_message ok = { .type = GMEM_OK };
	struct stat st;

	if (nfds == 0 || m->region != 0 || m->offset != 0 || memory != -1 ||
	    fstat(fds[0], &st) == -1 || (uint64_t)st.st_size != size)
		errx(1, "memory: %d descriptors, region %u", nfds, m->region);
	memory = fds[0];
	if (eager || (m->flags == GMEM_SLOTS && nfds == 1)) {
		fill_all();
		ok.flags = GMEM_COMPLETE;
	} else if (nfds == 2) {
		bitmap = mmap(NULL, (size / PAGE + 63) / 64 * 8, PROT_READ | PROT_WRITE,
		    MAP_SHARED, fds[1], 0);
		if (bitmap == MAP_FAILED || bitmap[0] != UINT64_MAX)
			errx(1, "the bitmap is not full of ones");
	}
	answer(ok, NULL, 0, NULL);
}

static void
take_mapping(const struct gmem_message *m)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register r = { .range = { m->address, m->length },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };

	if (uffd == -1 || m->offset != 0 || m->length != size)
		errx(1, "map: %llu bytes", (unsigned long long)m->length);
	/* Not of guest_memfd, which has no lseek. */
	if (lseek(memory, 0, SEEK_DATA) != -1)
		errx(1, "memory was touched before it was handed over");
	address = m->address;
	fcntl(uffd, F_SETFL, O_NONBLOCK);
	if (ioctl(uffd, UFFDIO_API, &api) == -1 || ioctl(uffd, UFFDIO_REGISTER, &r) == -1)
		err(1, "register the mapping");
}

static void
bring(uint64_t page)
{
	if (!served[page])
		fill_page(page, ram + page * PAGE);
	served[page] = true;
	if (bitmap != NULL)
		__atomic_fetch_and(
		    &bitmap[page / 64], ~(UINT64_C(1) << page % 64), __ATOMIC_RELEASE);
}

/* A page that was served and is not there has been discarded meanwhile. */
static void
on_fault(uint64_t page)
{
	static const char zeros[PAGE];
	struct uffdio_continue go = { .range = { address + page * PAGE, PAGE } };

	bring(page);
	faults++;
	while (ioctl(uffd, UFFDIO_CONTINUE, &go) == -1) {
		if (errno == EFAULT)
			fill_page(page, zeros);
		else if (errno == EEXIST)
			break;
		else if (errno != EAGAIN)
			err(1, "continue page %llu", (unsigned long long)page);
	}
	ioctl(uffd, UFFDIO_WAKE, &go.range);
}

static void
discard(const struct gmem_message *m)
{
	for (uint64_t i = m->offset / PAGE; i < (m->offset + m->length) / PAGE; i++) {
		discarded += !served[i];
		served[i] = true;
		bring(i);
	}
}

static void
on_request(const struct gmem_message *m, const int *fds, int nfds)
{
	const struct gmem_message ok = { .type = GMEM_OK };

	if ((m->type == GMEM_DISCARD || m->type == GMEM_FAULT) &&
	    (m->offset >= size || m->offset % PAGE != 0 || m->length > size - m->offset))
		errx(1, "request %u: offset %llu", m->type, (unsigned long long)m->offset);
	if (m->type == GMEM_HELLO) {
		welcome();
		return;
	}
	if (m->type == GMEM_MEMORY) {
		take_memory(m, fds, nfds);
		return;
	}
	if (m->type == GMEM_USERFAULTFD && nfds == 1) {
		uffd = fds[0];
	} else if (m->type == GMEM_MAP) {
		take_mapping(m);
	} else if (m->type == GMEM_DISCARD) {
		discard(m);
	} else if (m->type == GMEM_FAULT) {
		exits++;
		bring(m->offset / PAGE);
	} else {
		errx(1, "request %u", m->type);
	}
	answer(ok, NULL, 0, NULL);
}

/* False: the VMM has ended. */
static bool
converse(void)
{
	struct gmem_message m;
	char control[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fds[2], nfds = 0;
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	if (n == 0 || (n == -1 && errno == ECONNRESET))
		return false;
	if (n != (ssize_t)sizeof(m) || m.version != GMEM_HANDOFF_VERSION)
		errx(1, "a request of %zd bytes", n);
	c = CMSG_FIRSTHDR(&msg);
	if (c != NULL) {
		nfds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)nfds * sizeof(int));
	}
	on_request(&m, fds, nfds);
	return true;
}

static void
serve(void)
{
	struct uffd_msg e;

	do {
		struct pollfd p[] = { { .fd = sock, .events = POLLIN },
			{ .fd = address != 0 ? uffd : -1, .events = POLLIN } };

		if (poll(p, 2, -1) == -1)
			err(1, "poll");
		while (p[1].revents != 0 && read(uffd, &e, sizeof(e)) == (ssize_t)sizeof(e))
			on_fault((e.arg.pagefault.address - address) / PAGE);
		if (p[0].revents != 0 && !converse())
			return;
	} while (true);
}

static pid_t
start(char **argv)
{
	int ends[2];
	char where[16];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == -1)
		err(1, "socketpair");
	snprintf(where, sizeof(where), "fd:%d", ends[1]);
	setenv(GMEM_HANDOFF_ENV, where, 1);
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		execvp(argv[0], argv);
		err(127, "%s", argv[0]);
	}
	close(ends[1]);
	sock = ends[0];
	return pid;
}

static void
read_ram(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd == -1 || fstat(fd, &st) == -1)
		err(1, "%s", path);
	size = (uint64_t)st.st_size;
	served = calloc(size / PAGE, sizeof(*served));
	ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (ram == MAP_FAILED || served == NULL)
		err(1, "%s", path);
	close(fd);
}

int
main(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc < 4)
		errx(2, "usage: vmm-serve lazy|eager RAM COMMAND...");
	eager = strcmp(argv[1], "eager") == 0;
	read_ram(argv[2]);
	pid = start(argv + 3);
	serve();
	if (waitpid(pid, &status, 0) == -1)
		err(1, "wait");
	fprintf(
	    stderr, "served: faults %u, exits %u, discarded %u\n", faults, exits, discarded);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
