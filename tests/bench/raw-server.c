/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * gmem-bench-raw-server [--continue] RAW COMMAND...: the least that serves a VMM with the shim
 * of gmem: the raw memory file mapped, one page by UFFDIO_COPY for each fault, or, with
 * --continue, by pwrite(2) and UFFDIO_CONTINUE.  {mem} in COMMAND becomes the path of the
 * memory.  What gmem-restore is without compression, background and everything else.
 *
 * It ends as COMMAND does.  The environment variable GMEM_SHIM says where the shim is.
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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "gmem-handoff-client.h"

#define PAGE 4096u
#define CONVERSATIONS 16
#define NUMBER 200 /* of the memory's descriptor in the VMM */

static struct {
	const uint8_t *raw;
	uint64_t size;
	int memory, uffd, lifeline[2];
	uint64_t address; /* of the mapping, in the VMM */
	bool by_continue;
	pid_t child;
	char dir[32], path[64];
} server = { .uffd = -1, .child = -1 };

static void __attribute__((noreturn, format(printf, 1, 2))) quit(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "gmem-bench-raw-server: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	if (server.child > 0)
		kill(server.child, SIGKILL);
	unlink(server.path);
	rmdir(server.dir);
	exit(1);
}

static void
open_memory(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd == -1 || fstat(fd, &st) == -1)
		quit("%s", path);
	server.size = (uint64_t)st.st_size;
	server.raw = mmap(NULL, server.size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	server.memory = memfd_create("raw", MFD_CLOEXEC);
	if (server.raw == MAP_FAILED || server.memory == -1 ||
	    ftruncate(server.memory, (off_t)server.size) == -1)
		quit("memory");
	if (pipe2(server.lifeline, O_CLOEXEC) == -1)
		quit("pipe");
}

static int
start_listening(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(server.dir, "/tmp/gmem-bench-XXXXXX");
	if (mkdtemp(server.dir) == NULL)
		quit("%s", server.dir);
	snprintf(server.path, sizeof(server.path), "%s/handoff", server.dir);
	strcpy(sa.sun_path, server.path);
	if (bind(sock, (struct sockaddr *)&sa, sizeof(sa)) == -1 || listen(sock, 8) == -1)
		quit("%s", server.path);
	return sock;
}

static char *
with_memory(char *arg)
{
	char *at = strstr(arg, "{mem}"), *made;

	if (at == NULL)
		return arg;
	if (asprintf(&made, "%.*s/proc/self/fd/%d%s", (int)(at - arg), arg, NUMBER,
		at + strlen("{mem}")) == -1)
		quit("arguments");
	return made;
}

static void
start(char **argv)
{
	const char *shim = getenv("GMEM_SHIM");

	if (shim == NULL)
		quit("GMEM_SHIM is not set");
	for (char **arg = argv; *arg != NULL; arg++)
		*arg = with_memory(*arg);
	server.child = fork();
	if (server.child == -1)
		quit("fork");
	if (server.child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("LD_PRELOAD", shim, 1);
		setenv(GMEM_HANDOFF_ENV, server.path, 1);
		execvp(argv[0], argv);
		fprintf(stderr, "gmem-bench-raw-server: %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
}

static void
welcome(int sock)
{
	struct gmem_message m = {
		.version = GMEM_HANDOFF_VERSION, .type = GMEM_WELCOME, .count = 1
	};
	struct gmem_region r = { .name = "ram0",
		.size = server.size,
		.page_size = PAGE,
		.guest_address = GMEM_NO_ADDRESS,
		.fd = NUMBER };
	const int fds[] = { server.memory, server.lifeline[0] };
	struct stat st;

	if (fstat(server.memory, &st) == -1)
		quit("memory");
	r.dev = st.st_dev;
	r.ino = st.st_ino;
	if (gmem_send(sock, &m, &r, sizeof(r), fds, 2) == -1)
		quit("welcome");
}

static void
take_userfaultfd(int fd)
{
	struct uffdio_api api = { .api = UFFD_API };

	if (server.by_continue)
		api.features = UFFD_FEATURE_MINOR_SHMEM;
	if (ioctl(fd, UFFDIO_API, &api) == -1)
		quit("UFFDIO_API");
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	server.uffd = fd;
}

static void
take_mapping(const struct gmem_message *m)
{
	struct uffdio_register reg = { .range = { m->address, m->length },
		.mode = UFFDIO_REGISTER_MODE_MISSING };

	if (server.by_continue)
		reg.mode |= UFFDIO_REGISTER_MODE_MINOR;
	if (m->offset != 0 || m->length != server.size)
		quit("a mapping of a part");
	if (ioctl(server.uffd, UFFDIO_REGISTER, &reg) == -1)
		quit("UFFDIO_REGISTER");
	server.address = m->address;
}

/* One request.  false: the conversation is over. */
static bool
converse(int sock)
{
	struct gmem_message m = { 0 },
			    ok = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_OK };
	int fds[2];
	size_t nfds = 2;

	if (gmem_receive(sock, &m, NULL, 0, fds, &nfds) <= 0)
		return false;
	if (m.type == GMEM_HELLO) {
		welcome(sock);
		return true;
	}
	if (m.type == GMEM_USERFAULTFD && nfds == 1)
		take_userfaultfd(fds[0]);
	else if (m.type == GMEM_MAP)
		take_mapping(&m);
	else if (m.type == GMEM_REFUSE)
		quit("%s", m.text);
	return gmem_send(sock, &ok, NULL, 0, NULL, 0) == 0;
}

static void
copy_page(uint64_t at)
{
	struct uffdio_copy copy = {
		.dst = at, .src = (uintptr_t)server.raw + (at - server.address), .len = PAGE
	};
	struct uffdio_range range = { at, PAGE };

	if (ioctl(server.uffd, UFFDIO_COPY, &copy) == 0)
		return;
	if (errno != EEXIST && errno != ESRCH)
		quit("UFFDIO_COPY at %#lx", (unsigned long)at);
	ioctl(server.uffd, UFFDIO_WAKE, &range);
}

static void
continue_page(uint64_t at)
{
	struct uffdio_continue cont = { .range = { at, PAGE } };
	struct uffdio_range range = { at, PAGE };
	off_t offset = (off_t)(at - server.address);

	if (pwrite(server.memory, server.raw + offset, PAGE, offset) != PAGE)
		quit("pwrite");
	if (ioctl(server.uffd, UFFDIO_CONTINUE, &cont) == 0)
		return;
	if (errno != EEXIST && errno != ESRCH)
		quit("UFFDIO_CONTINUE at %#lx", (unsigned long)at);
	ioctl(server.uffd, UFFDIO_WAKE, &range);
}

/* A page is given once: two faults in it may come, and the second must not undo writes. */
static void
give(uint64_t address)
{
	static uint8_t *given;
	uint64_t at = address & ~(uint64_t)(PAGE - 1), page = (at - server.address) / PAGE;
	struct uffdio_range range = { at, PAGE };

	if (given == NULL)
		given = calloc(server.size / PAGE, 1);
	if (given == NULL || at < server.address || page >= server.size / PAGE)
		quit("a fault at %#lx", (unsigned long)address);
	if (given[page]) {
		ioctl(server.uffd, UFFDIO_WAKE, &range);
		return;
	}
	given[page] = 1;
	if (server.by_continue)
		continue_page(at);
	else
		copy_page(at);
}

static void
handle_faults(void)
{
	struct uffd_msg msgs[64];
	ssize_t n;

	while ((n = read(server.uffd, msgs, sizeof(msgs))) > 0)
		for (size_t i = 0; i < (size_t)n / sizeof(msgs[0]); i++)
			if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
				give(msgs[i].arg.pagefault.address);
}

static void
forward(int number)
{
	kill(server.child, number);
}

/* Until the child ends. */
static void
serve(int sock, int child)
{
	struct pollfd fds[3 + CONVERSATIONS] = { { child, POLLIN, 0 }, { sock, POLLIN, 0 },
		{ -1, POLLIN, 0 } };
	nfds_t n = 3;

	for (;;) {
		fds[2].fd = server.uffd;
		if (poll(fds, n, -1) == -1) {
			if (errno != EINTR)
				quit("poll");
			continue;
		}
		if (fds[0].revents != 0)
			return;
		if ((fds[2].revents & POLLIN) != 0)
			handle_faults();
		for (nfds_t i = 3; i < n; i++)
			if (fds[i].revents != 0 && !converse(fds[i].fd)) {
				close(fds[i].fd);
				fds[i].fd = -1; /* which poll passes over */
			}
		if (fds[1].revents != 0) {
			if (n == 3 + CONVERSATIONS)
				quit("too many conversations");
			fds[n].revents = 0;
			fds[n].events = POLLIN;
			fds[n++].fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
		}
	}
}

int
main(int argc, char **argv)
{
	int sock, child, status;

	if (argc > 1 && strcmp(argv[1], "--continue") == 0) {
		server.by_continue = true;
		argv++, argc--;
	}
	if (argc < 3) {
		fprintf(stderr, "usage: gmem-bench-raw-server [--continue] RAW COMMAND...\n");
		return 2;
	}
	open_memory(argv[1]);
	sock = start_listening();
	start(argv + 2);
	signal(SIGTERM, forward);
	signal(SIGINT, forward);
	child = (int)syscall(SYS_pidfd_open, server.child, 0);
	if (child == -1)
		quit("pidfd_open");
	serve(sock, child);
	waitpid(server.child, &status, 0);
	unlink(server.path);
	rmdir(server.dir);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
