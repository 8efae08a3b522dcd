/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* What a VMM can get wrong when it hands over its memory: one lie each. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

#define SET(field, ...) snprintf((field), sizeof(field), __VA_ARGS__)

static const struct region *
last_region(void)
{
	return &vm.regions[vm.m.nregions - 1];
}

static struct wire *
last_wire(struct handover *h)
{
	return &h->wires[h->nwires - 1];
}

/* ---- regions ---- */

static void
unknown_fields(struct handover *h)
{
	h->before = "\"gpa_start\":4294967296,\"text\":\"]} \\\" [{\",";
	h->after = ",\"is_guest_memfd\":false,\"more\":{\"a\":[1,[2,{}],null]},\"f\":1.5e3";
}

static void
bare_fields(struct handover *h)
{
	h->fields = 0;
}

static void
old_field(struct handover *h)
{
	h->fields = FIELD_PAGE_SIZE_KIB;
}

static void
size_small(struct handover *h)
{
	SET(last_wire(h)->size, "%lu", (unsigned long)(last_region()->size - vm.m.page_size));
}

static void
size_big(struct handover *h)
{
	SET(last_wire(h)->size, "%lu", (unsigned long)(last_region()->size + vm.m.page_size));
}

static void
size_zero(struct handover *h)
{
	SET(last_wire(h)->size, "0");
}

static void
size_odd(struct handover *h)
{
	SET(last_wire(h)->size, "%lu", (unsigned long)last_region()->size - 512);
}

static void
size_wraps(struct handover *h)
{
	SET(last_wire(h)->size, "18446744073709547520");
}

static void
add_wire(struct handover *h, uint64_t base, uint64_t size, uint64_t offset)
{
	struct wire *w = &h->wires[h->nwires++];

	*w = h->wires[0];
	SET(w->base, "%lu", (unsigned long)base);
	SET(w->size, "%lu", (unsigned long)size);
	SET(w->offset, "%lu", (unsigned long)offset);
}

/* The last region begins one page before it does. */
static void
overlap(struct handover *h)
{
	uint64_t begin = (uintptr_t)last_region()->at, size = last_region()->size;

	SET(last_wire(h)->size, "%lu", (unsigned long)(size / 2));
	add_wire(h, begin + size / 2 - vm.m.page_size, size - size / 2,
	    last_region()->offset + size / 2);
}

static void
overlap_offset(struct handover *h)
{
	uint64_t begin = (uintptr_t)last_region()->at, size = last_region()->size;

	SET(last_wire(h)->size, "%lu", (unsigned long)(size / 2));
	add_wire(h, begin + size / 2, size - size / 2, last_region()->offset);
}

static void
same_twice(struct handover *h)
{
	h->wires[h->nwires] = h->wires[0];
	h->nwires++;
}

static void
base_odd(struct handover *h)
{
	SET(last_wire(h)->base, "%lu", (unsigned long)(uintptr_t)last_region()->at + 512);
}

static void
base_high(struct handover *h)
{
	SET(last_wire(h)->base, "9223372036854779904");
}

static void
base_2_53(struct handover *h)
{
	SET(last_wire(h)->base, "9007199254740993");
}

static void
base_wraps(struct handover *h)
{
	SET(last_wire(h)->base, "18446744073709547520");
}

static void
base_too_big(struct handover *h)
{
	SET(last_wire(h)->base, "18446744073709551616");
}

static void
base_negative(struct handover *h)
{
	SET(last_wire(h)->base, "-4096");
}

static void
base_float(struct handover *h)
{
	SET(last_wire(h)->base, "%lu.0", (unsigned long)(uintptr_t)last_region()->at);
}

static void
base_string(struct handover *h)
{
	SET(last_wire(h)->base, "\"%lu\"", (unsigned long)(uintptr_t)last_region()->at);
}

static void
base_null(struct handover *h)
{
	SET(last_wire(h)->base, "null");
}

static void
offset_odd(struct handover *h)
{
	SET(last_wire(h)->offset, "%lu", (unsigned long)last_region()->offset + 512);
}

static void
offset_beyond(struct handover *h)
{
	SET(last_wire(h)->offset, "%lu", (unsigned long)(vm.npages * PAGE));
}

static void
offset_wraps(struct handover *h)
{
	SET(last_wire(h)->offset, "18446744073709547520");
}

static void
page_size(struct handover *h, const char *text)
{
	h->fields |= FIELD_PAGE_SIZE;
	for (size_t i = 0; i < h->nwires; i++)
		SET(h->wires[i].page, "%s", text);
}

static void
page_0(struct handover *h)
{
	page_size(h, "0");
}

static void
page_3(struct handover *h)
{
	page_size(h, "3");
}

static void
page_2_63(struct handover *h)
{
	page_size(h, "9223372036854775808");
}

static void
page_other(struct handover *h)
{
	page_size(h, vm.m.page_size == PAGE ? "2097152" : "4096");
}

static void
page_differs(struct handover *h)
{
	h->fields |= FIELD_PAGE_SIZE;
	SET(last_wire(h)->page, "%s", vm.m.page_size == PAGE ? "2097152" : "4096");
}

static void
many_regions(struct handover *h)
{
	uint64_t base = (uintptr_t)last_region()->at, offset = last_region()->offset;
	uint64_t n = 1 + last_region()->size / vm.m.page_size;

	h->nwires--;
	while (h->nwires < WIRES_MAX && --n > 0) {
		add_wire(h, base, vm.m.page_size, offset);
		base += vm.m.page_size;
		offset += vm.m.page_size;
	}
	/* The last one has the rest. */
	SET(last_wire(h)->size, "%lu",
	    (unsigned long)(last_region()->offset + last_region()->size - offset +
			    vm.m.page_size));
}

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

/* ---- sending ---- */

/* In pieces of `step` bytes; the descriptors with the first or with the last of them. */
static void
send_pieces(const struct handover *h, int sock, size_t step, bool last, unsigned ms)
{
	for (size_t at = 0; at < h->len; at += step) {
		size_t n = h->len - at < step ? h->len - at : step;
		bool now = last ? at + n == h->len : at == 0;

		if (!send_message(sock, h->text + at, n, h->fds, now ? h->nfds : 0))
			return;
		sleep_ms(ms);
	}
}

static void
split(const struct handover *h, int sock)
{
	send_pieces(h, sock, 7, false, 1);
}

static void
split_fd_last(const struct handover *h, int sock)
{
	send_pieces(h, sock, h->len / 3 + 1, true, 20);
}

static void
split_slow(const struct handover *h, int sock)
{
	send_pieces(h, sock, h->len / 4 + 1, false, 200);
}

static void
split_fds(const struct handover *h, int sock)
{
	for (size_t at = 0; at < h->len; at += 40)
		send_message(
		    sock, h->text + at, h->len - at < 40 ? h->len - at : 40, h->fds, 1);
}

static void
endless(const struct handover *h, int sock)
{
	static char spaces[4096];

	memset(spaces, ' ', sizeof(spaces));
	send_message(sock, h->text, h->len - 1, h->fds, h->nfds);
	while (send_message(sock, spaces, sizeof(spaces), NULL, 0))
		;
}

static void
dribble(const struct handover *h, int sock)
{
	send_message(sock, h->text, h->len - 1, h->fds, h->nfds);
	while (send_message(sock, " ", 1, NULL, 0))
		sleep_ms(opt.lie_ms);
}

static void
silent(const struct handover *h, int sock)
{
	(void)h;
	(void)sock;
}

static void
early_close(const struct handover *h, int sock)
{
	(void)h;
	shutdown(sock, SHUT_RDWR);
}

static void
half_then_close(const struct handover *h, int sock)
{
	send_message(sock, h->text, h->len / 2, h->fds, h->nfds);
	shutdown(sock, SHUT_RDWR);
}

static void
half_then_silent(const struct handover *h, int sock)
{
	send_message(sock, h->text, h->len / 2, h->fds, h->nfds);
}

static void
late(const struct handover *h, int sock)
{
	sleep_ms(opt.lie_ms);
	send_message(sock, h->text, h->len, h->fds, h->nfds);
}

static void
second(const struct handover *h, int sock)
{
	send_message(sock, h->text, h->len, h->fds, h->nfds);
	send_message(sock, h->text, h->len, h->fds, h->nfds);
}

static void
chatter(const struct handover *h, int sock)
{
	send_message(sock, h->text, h->len, h->fds, h->nfds);
	for (int i = 0; i < 50 && send_message(sock, "exitless_apf:2", 14, h->fds, 1); i++)
		sleep_ms(10);
}

static void
hang_up(const struct handover *h, int sock)
{
	send_message(sock, h->text, h->len, h->fds, h->nfds);
	shutdown(sock, SHUT_RDWR);
}

/* ---- the list ---- */

struct later {
	int sock;
	const struct handover *h;
	char *text; /* what was sent */
	size_t len;
};

static void *
send_later(void *arg)
{
	struct later *l = arg;

	sleep_ms(opt.lie_ms);
	send_message(l->sock, l->text, l->len, l->h->fds, l->h->nfds);
	return NULL;
}

static const struct {
	const char *name;
	void (*wires)(struct handover *);
	void (*text)(struct handover *);
	void (*send)(const struct handover *, int);
	const char *help;
} lies[] = {
	/* clang-format off */
	{ "unknown-fields", unknown_fields, NULL, NULL, "fields nobody knows, brackets in texts" },
	{ "bare-fields", bare_fields, NULL, NULL, "base_host_virt_addr, size and offset alone" },
	{ "old-field", old_field, NULL, NULL, "page_size_kib without page_size" },
	{ "size-small", size_small, NULL, NULL, "the last region is a page too short" },
	{ "size-big", size_big, NULL, NULL, "… a page too long" },
	{ "size-0", size_zero, NULL, NULL, "… has no byte" },
	{ "size-odd", size_odd, NULL, NULL, "… has no whole number of pages" },
	{ "size-wraps", size_wraps, NULL, NULL, "… ends beyond 2^64" },
	{ "overlap", overlap, NULL, NULL, "two regions share a page of memory" },
	{ "overlap-offset", overlap_offset, NULL, NULL, "… share a part of the file" },
	{ "twice", same_twice, NULL, NULL, "the first region twice" },
	{ "base-odd", base_odd, NULL, NULL, "the last region begins within a page" },
	{ "base-2e63", base_high, NULL, NULL, "… at 2^63 + 4096" },
	{ "base-2e53", base_2_53, NULL, NULL, "… at 2^53 + 1, which no double can be" },
	{ "base-wraps", base_wraps, NULL, NULL, "… in the last page below 2^64" },
	{ "base-2e64", base_too_big, NULL, NULL, "… at 2^64, which no u64 can be" },
	{ "base-negative", base_negative, NULL, NULL, "… at -4096" },
	{ "base-float", base_float, NULL, NULL, "… at a number with a point" },
	{ "base-string", base_string, NULL, NULL, "… at a text" },
	{ "base-null", base_null, NULL, NULL, "… at null" },
	{ "offset-odd", offset_odd, NULL, NULL, "its offset is within a page" },
	{ "offset-beyond", offset_beyond, NULL, NULL, "its offset is the end of the file" },
	{ "offset-wraps", offset_wraps, NULL, NULL, "its offset is just below 2^64" },
	{ "page-0", page_0, NULL, NULL, "pages of 0 bytes" },
	{ "page-3", page_3, NULL, NULL, "pages of 3 bytes" },
	{ "page-2e63", page_2_63, NULL, NULL, "pages of 2^63 bytes" },
	{ "page-other", page_other, NULL, NULL, "2 MiB instead of 4 KiB, or the other way" },
	{ "page-differs", page_differs, NULL, NULL, "the same for the last region alone" },
	{ "many-regions", many_regions, NULL, NULL, "the last region in up to 1024, true ones" },
	{ "empty-array", NULL, empty_array, NULL, "[]" },
	{ "empty-object", NULL, empty_object, NULL, "[{}]" },
	{ "not-json", NULL, not_json, NULL, "some text" },
	{ "no-array", NULL, no_array, NULL, "the object alone" },
	{ "unfinished", NULL, unfinished, NULL, "no closing bracket, and then nothing" },
	{ "utf8", NULL, broken_utf8, NULL, "a byte that is no UTF-8" },
	{ "nul", NULL, with_nul, NULL, "a NUL byte" },
	{ "garbage", NULL, garbage, NULL, "garbage right behind the array" },
	{ "two-arrays", NULL, two_arrays, NULL, "the array twice in one message" },
	{ "over-1k", NULL, over_1k, NULL, "1.5 kB of white space" },
	{ "over-64k", NULL, over_64k, NULL, "100 kB of white space" },
	{ "deep", NULL, deep, NULL, "60000 brackets" },
	{ "no-fd", NULL, no_fd, NULL, "no descriptor" },
	{ "extra-fds", NULL, extra_fds, NULL, "three more" },
	{ "many-fds", NULL, many_fds, NULL, "249 more" },
	{ "fd-last", NULL, fd_last, NULL, "/dev/null, and then the userfaultfd" },
	{ "fd-null", NULL, fd_null, NULL, "/dev/null for a userfaultfd" },
	{ "fd-memfd", NULL, fd_memfd, NULL, "a memfd" },
	{ "fd-eventfd", NULL, fd_eventfd, NULL, "an eventfd" },
	{ "fd-pipe", NULL, fd_pipe, NULL, "a pipe" },
	{ "fd-socket", NULL, fd_socket, NULL, "a socket" },
	{ "fd-foreign", NULL, fd_foreign, NULL, "the userfaultfd of another process" },
	{ "fd-orphan", NULL, fd_orphan, NULL, "… which is dead" },
	{ "split", NULL, NULL, split, "7 bytes at a time, the descriptor with the first" },
	{ "split-fd-last", NULL, NULL, split_fd_last, "three parts, the descriptor with the last" },
	{ "split-slow", NULL, NULL, split_slow, "four parts within a second" },
	{ "split-fds", NULL, NULL, split_fds, "the descriptor with each part" },
	{ "endless", NULL, NULL, endless, "white space for ever instead of the last bracket" },
	{ "dribble", NULL, NULL, dribble, "the same, a byte each --lie-ms" },
	{ "silent", NULL, NULL, silent, "connects and says nothing" },
	{ "close", NULL, NULL, early_close, "connects and hangs up" },
	{ "half-close", NULL, NULL, half_then_close, "hangs up in the middle of the message" },
	{ "half-silent", NULL, NULL, half_then_silent, "stops there" },
	{ "late", NULL, NULL, late, "sends after --lie-ms, all of it right" },
	{ "second", NULL, NULL, second, "the message again, at once" },
	{ "second-late", NULL, NULL, NULL, "again after --lie-ms" },
	{ "chatter", NULL, NULL, chatter, "other messages behind it, with descriptors" },
	{ "hang-up", NULL, NULL, hang_up, "closes at once, as up to 1.11, and lives on" },
	{ "unregistered", NULL, NULL, NULL, "the second half of each region is not registered" },
	{ "registered-none", NULL, NULL, NULL, "none of the memory is" },
	/* clang-format on */
};

#define LIES (sizeof(lies) / sizeof(lies[0]))

static bool
is(const char *name)
{
	return opt.lie != NULL && strcmp(opt.lie, name) == 0;
}

/* LIES: there is none. */
static size_t
chosen(void)
{
	size_t i = 0;

	while (i < LIES && !is(lies[i].name))
		i++;
	return i;
}

bool
lie_known(const char *name)
{
	for (size_t i = 0; i < LIES; i++)
		if (strcmp(lies[i].name, name) == 0)
			return true;
	return false;
}

void
lies_list(void)
{
	for (size_t i = 0; i < LIES; i++)
		printf("  %-16s %s\n", lies[i].name, lies[i].help);
}

uint64_t
lie_register(uint64_t size)
{
	if (is("registered-none"))
		return 0;
	return is("unregistered") ? size / 2 / vm.m.page_size * vm.m.page_size : size;
}

void
lie_wires(struct handover *h)
{
	if (chosen() < LIES && lies[chosen()].wires != NULL)
		lies[chosen()].wires(h);
}

void
lie_text(struct handover *h)
{
	if (chosen() < LIES && lies[chosen()].text != NULL)
		lies[chosen()].text(h);
}

bool
lie_sends(struct handover *h, int sock)
{
	if (chosen() == LIES || lies[chosen()].send == NULL)
		return false;
	lies[chosen()].send(h, sock);
	return true;
}

void
lie_afterwards(struct handover *h, int sock)
{
	static struct later l;
	pthread_t thread;

	if (!is("second-late"))
		return;
	l = (struct later){ dup(sock), h, strndup(h->text, h->len), h->len };
	if (l.text == NULL || pthread_create(&thread, NULL, send_later, &l) != 0)
		quit(EXIT_CALL, "no thread for the second message");
}
