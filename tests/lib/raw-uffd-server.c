/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * raw-uffd-server FILE SOCKET: the least that serves a Firecracker: one connection, the raw
 * memory file mapped, one page by UFFDIO_COPY for each fault, a range that is given back is
 * unregistered, so that the kernel fills it with zeros.  What Firecracker's documents
 * describe as an example of a handler; the other side of the benchmark, and the proof that
 * stand-in-firecracker can be served by somebody who isn't us.
 *
 * raw-uffd-server --dump SOCKET serves nobody: it prints what it is sent, a line each,
 * "BYTES bytes, descriptors (KIND...), N: TEXT", until nothing came for 300 ms, or for 3 s,
 * kills its peer, and ends.
 *
 * If it fails it kills its peer.  It ends when the peer's socket does, or, since a peer up
 * to 1.11 closes that at once, when the peer is dead.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>
#include <linux/userfaultfd.h>

#define REGIONS_MAX 64
#define EVENTS 64

static struct {
	uint64_t base, size, offset;
} regions[REGIONS_MAX];
static size_t nregions;
static uint64_t page_size = 4096;
static const uint8_t *file;
static uint64_t file_size;
static pid_t peer;
static int uffd = -1;

static void __attribute__((noreturn, format(printf, 1, 2))) quit(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "raw-uffd-server: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	if (peer > 0)
		kill(peer, SIGKILL);
	exit(1);
}

static void
map_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd == -1 || fstat(fd, &st) == -1)
		quit("%s", path);
	file_size = (uint64_t)st.st_size;
	file = mmap(NULL, file_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (file == MAP_FAILED)
		quit("%s: mmap", path);
	close(fd);
}

static int
accept_peer(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (bind(sock, (struct sockaddr *)&sa, sizeof(sa)) == -1 || listen(sock, 1) == -1)
		quit("%s", path);
	fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
	if (fd == -1 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1)
		quit("accept");
	peer = cred.pid;
	close(sock);
	return fd;
}

static uint64_t
integer(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

static bool
parse(const char *text, size_t len)
{
	json_t *array = json_loadb(text, len, JSON_DISABLE_EOF_CHECK, NULL);
	const json_t *one;
	size_t i;

	if (array == NULL)
		return false;
	json_array_foreach(array, i, one)
	{
		if (i == REGIONS_MAX)
			quit("too many regions");
		regions[i].base = integer(one, "base_host_virt_addr");
		regions[i].size = integer(one, "size");
		regions[i].offset = integer(one, "offset");
		if (regions[i].offset + regions[i].size > file_size)
			quit("a region beyond the file");
		if (json_object_get(one, "page_size_kib") != NULL)
			page_size = integer(one, "page_size_kib");
		nregions = i + 1;
	}
	json_decref(array);
	return nregions > 0;
}

/* The message, in as many parts as it comes. */
static void
receive(int sock)
{
	static char text[1 << 20];
	size_t len = 0;

	while (uffd == -1 || !parse(text, len)) {
		char space[CMSG_SPACE(sizeof(int))];
		struct iovec iov = { text + len, sizeof(text) - len };
		struct msghdr msg = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = space,
			.msg_controllen = sizeof(space) };
		ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

		if (n <= 0)
			quit("the message ends after %zu bytes", len);
		len += (size_t)n;
		if (CMSG_FIRSTHDR(&msg) != NULL)
			memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(uffd));
	}
}

/* false: not now, a REMOVE has to be read first. */
static bool
serve(uint64_t address)
{
	uint64_t at = address & ~(page_size - 1);
	struct uffdio_copy copy = { .dst = at, .len = page_size };
	struct uffdio_range range = { at, page_size };

	for (size_t i = 0; i < nregions; i++)
		if (at >= regions[i].base && at < regions[i].base + regions[i].size)
			copy.src = (uintptr_t)file + regions[i].offset + (at - regions[i].base);
	if (copy.src == 0)
		quit("a fault at %#lx, in no region", (unsigned long)address);
	if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
		return true;
	if (errno == EAGAIN)
		return false;
	/* EEXIST: two faults in one page.  ENOENT: given back or mapped over since.  ESRCH:
	 * dead. */
	if (errno != EEXIST && errno != ENOENT && errno != ESRCH)
		quit("UFFDIO_COPY at %#lx", (unsigned long)address);
	ioctl(uffd, UFFDIO_WAKE, &range);
	return true;
}

static void
unregister(uint64_t start, uint64_t end)
{
	struct uffdio_range range = { start, end - start };

	if (ioctl(uffd, UFFDIO_UNREGISTER, &range) == -1 && errno != ESRCH)
		quit("UFFDIO_UNREGISTER");
}

/* All that there is to read: removals at once, faults afterwards. */
static void
handle_events(void)
{
	static uint64_t faults[4096];
	struct uffd_msg msgs[EVENTS];
	size_t nfaults = 0, left = 0;
	ssize_t n;

	do {
		while (nfaults + EVENTS <= 4096 && (n = read(uffd, msgs, sizeof(msgs))) > 0)
			for (size_t i = 0; i < (size_t)n / sizeof(msgs[0]); i++) {
				if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
					faults[nfaults++] = msgs[i].arg.pagefault.address;
				else if (msgs[i].event == UFFD_EVENT_REMOVE)
					unregister(
					    msgs[i].arg.remove.start, msgs[i].arg.remove.end);
				else
					quit("an event %u", msgs[i].event);
			}
		left = 0;
		for (size_t i = 0; i < nfaults; i++)
			if (!serve(faults[i]))
				faults[left++] = faults[i];
		nfaults = left;
	} while (left > 0);
}

/* ---- --dump ---- */

static void
print_kind(int fd)
{
	char path[64], kind[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, kind, sizeof(kind) - 1);
	printf(" %.*s", n > 0 ? (int)n : 0, kind);
}

/* Of a userfaultfd: a line "features F flags L", as the kernel shows them; bit 31 is its own.
 */
static void
print_features(int fd)
{
	char path[64], line[256];
	unsigned features, flags = 0;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = fopen(path, "re");
	while (info != NULL && fgets(line, sizeof(line), info) != NULL) {
		sscanf(line, "flags: %o", &flags);
		if (sscanf(line, "API: aa:%x:", &features) == 1)
			printf("features %#x flags %#o\n", features & ~(1u << 31),
			    flags & O_NONBLOCK);
	}
	if (info != NULL)
		fclose(info);
}

static size_t
print_descriptors(struct msghdr *msg, void (*print)(int))
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	size_t n = c != NULL ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		print(fd);
	}
	return n;
}

static void
dump(int sock)
{
	static char text[1 << 20];
	char space[CMSG_SPACE(sizeof(int) * 256)];
	struct pollfd fds = { .fd = sock, .events = POLLIN };

	for (time_t end = time(NULL) + 3; time(NULL) < end && poll(&fds, 1, 300) == 1;) {
		struct iovec iov = { text, sizeof(text) };
		struct msghdr msg = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = space,
			.msg_controllen = sizeof(space) };
		ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

		if (n <= 0) {
			printf("end\n");
			break;
		}
		printf("%zd bytes, descriptors (", n);
		printf(" ), %zu: ", print_descriptors(&msg, print_kind));
		fwrite(text, 1, (size_t)n, stdout);
		printf("\n");
		print_descriptors(&msg, print_features);
	}
	kill(peer, SIGKILL);
}

int
main(int argc, char **argv)
{
	struct pollfd fds[3] = { { .events = POLLIN }, { .events = 0 }, { .events = POLLIN } };
	int sock;

	if (argc != 3) {
		fprintf(stderr, "usage: raw-uffd-server FILE|--dump SOCKET\n");
		return 2;
	}
	if (strcmp(argv[1], "--dump") == 0) {
		dump(accept_peer(argv[2]));
		return 0;
	}
	map_file(argv[1]);
	sock = accept_peer(argv[2]);
	receive(sock);
	fds[0].fd = uffd;
	fds[1].fd = -1;
	fds[2].fd = (int)syscall(SYS_pidfd_open, peer, 0);
	if (fds[2].fd == -1)
		return 0; /* dead already */
	while (fds[2].revents == 0) {
		if (poll(fds, 3, -1) == -1)
			quit("poll");
		if (fds[0].revents != 0)
			handle_events();
	}
	return 0;
}
