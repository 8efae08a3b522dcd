/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* What can be wrong with the message's text, and with its descriptors. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

/* ---- the text ---- */

static void
replace_text(struct handover *h, const char *text)
{
	free(h->text);
	h->text = strdup(text);
	h->len = strlen(text);
}

static void
empty_array(struct handover *h)
{
	replace_text(h, "[]");
}

static void
empty_object(struct handover *h)
{
	replace_text(h, "[{}]");
}

static void
not_json(struct handover *h)
{
	replace_text(h, "hello handler, here is the memory\n");
}

static void
no_array(struct handover *h)
{
	memmove(h->text, h->text + 1, h->len -= 2);
}

static void
unfinished(struct handover *h)
{
	h->len--;
}

static void
broken_utf8(struct handover *h)
{
	h->text[3] = (char)0xff;
}

static void
with_nul(struct handover *h)
{
	h->text[3] = 0;
}

static void
append(struct handover *h, const char *text, size_t n)
{
	char *p = realloc(h->text, h->len + n);

	if (p == NULL)
		quit(EXIT_CALL, "no memory");
	h->text = p;
	memcpy(p + h->len, text, n);
	h->len += n;
}

static void
garbage(struct handover *h)
{
	append(h, "\0garbage]}\xff", 11);
}

static void
two_arrays(struct handover *h)
{
	char *copy = strndup(h->text, h->len);

	if (copy == NULL)
		quit(EXIT_CALL, "no memory");
	append(h, copy, h->len);
	free(copy);
}

/* White space where JSON allows it; total bytes of it behind the first bracket. */
static void
stretch(struct handover *h, size_t total)
{
	char *p = malloc(h->len + total);

	if (p == NULL)
		quit(EXIT_CALL, "no memory");
	p[0] = '[';
	for (size_t i = 0; i < total; i++)
		p[1 + i] = " \n\t\r"[i % 4];
	memcpy(p + 1 + total, h->text + 1, h->len - 1);
	free(h->text);
	h->text = p;
	h->len += total;
}

static void
over_1k(struct handover *h)
{
	stretch(h, 1500);
}

static void
over_64k(struct handover *h)
{
	stretch(h, 100000);
}

static void
deep(struct handover *h)
{
	char *p = malloc(60001);

	if (p == NULL)
		quit(EXIT_CALL, "no memory");
	memset(p, '[', 60000);
	p[60000] = 0;
	replace_text(h, p);
	free(p);
}

/* ---- descriptors ---- */

static void
instead(struct handover *h, int fd)
{
	if (fd == -1)
		quit(EXIT_CALL, "a descriptor for the lie: %s", strerror(errno));
	h->fds[0] = fd;
}

static void
fd_null(struct handover *h)
{
	instead(h, open("/dev/null", O_RDWR));
}

static void
fd_memfd(struct handover *h)
{
	instead(h, memfd_create("lie", 0));
}

static void
fd_eventfd(struct handover *h)
{
	instead(h, eventfd(0, EFD_NONBLOCK));
}

static void
fd_pipe(struct handover *h)
{
	int ends[2];

	instead(h, pipe(ends) == 0 ? ends[0] : -1);
}

static void
fd_socket(struct handover *h)
{
	instead(h, socket(AF_UNIX, SOCK_STREAM, 0));
}

static void
no_fd(struct handover *h)
{
	h->nfds = 0;
}

static void
extra_fds(struct handover *h)
{
	while (h->nfds < 4)
		h->fds[h->nfds++] = open("/dev/null", O_RDWR | O_CLOEXEC);
}

static void
many_fds(struct handover *h)
{
	while (h->nfds < 250)
		h->fds[h->nfds++] = 2;
}

static int
receive_fd(int sock)
{
	char byte, space[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space) };
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&msg) == NULL)
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static void __attribute__((noreturn)) child_with_uffd(int sock)
{
	size_t len = 16 * PAGE;
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = uffd_open(true);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	uffd_register(fd, at, len);
	send_message(sock, "", 1, &fd, 1);
	for (;;)
		pause();
}

/* The userfaultfd of a child that has registered memory of its own. */
static int
uffd_of_child(bool lives)
{
	int ends[2], fd;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return -1;
	pid = fork();
	if (pid == 0)
		child_with_uffd(ends[1]);
	fd = receive_fd(ends[0]);
	if (!lives && pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return fd;
}

static void
fd_foreign(struct handover *h)
{
	instead(h, uffd_of_child(true));
}

static void
fd_orphan(struct handover *h)
{
	instead(h, uffd_of_child(false));
}

static void
fd_last(struct handover *h)
{
	h->fds[h->nfds++] = h->fds[0];
	h->fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
}

const struct lie lies_of_message[] = {
	/* clang-format off */
	{ "empty-array", empty_array, "[]" },
	{ "empty-object", empty_object, "[{}]" },
	{ "not-json", not_json, "some text" },
	{ "no-array", no_array, "the object alone" },
	{ "unfinished", unfinished, "no closing bracket, and then nothing" },
	{ "utf8", broken_utf8, "a byte that is no UTF-8" },
	{ "nul", with_nul, "a NUL byte" },
	{ "garbage", garbage, "garbage right behind the array" },
	{ "two-arrays", two_arrays, "the array twice in one message" },
	{ "over-1k", over_1k, "1.5 kB of white space" },
	{ "over-64k", over_64k, "100 kB of white space" },
	{ "deep", deep, "60000 brackets" },
	{ "no-fd", no_fd, "no descriptor" },
	{ "extra-fds", extra_fds, "three more" },
	{ "many-fds", many_fds, "249 more" },
	{ "fd-last", fd_last, "/dev/null, and then the userfaultfd" },
	{ "fd-null", fd_null, "/dev/null for a userfaultfd" },
	{ "fd-memfd", fd_memfd, "a memfd" },
	{ "fd-eventfd", fd_eventfd, "an eventfd" },
	{ "fd-pipe", fd_pipe, "a pipe" },
	{ "fd-socket", fd_socket, "a socket" },
	{ "fd-foreign", fd_foreign, "the userfaultfd of another process" },
	{ "fd-orphan", fd_orphan, "… which is dead" },
	{ NULL, NULL, NULL },
	/* clang-format on */
};
