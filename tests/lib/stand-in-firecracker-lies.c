/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * What a VMM can get wrong when it hands over its memory: one lie each.  Here is how it
 * sends; what it says is in -regions.c and -message.c.
 */

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

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
	void (*send)(const struct handover *, int);
	const char *help;
} lies_of_sending[] = {
	/* clang-format off */
	{ "split", split, "7 bytes at a time, the descriptor with the first" },
	{ "split-fd-last", split_fd_last, "three parts, the descriptor with the last" },
	{ "split-slow", split_slow, "four parts within a second" },
	{ "split-fds", split_fds, "the descriptor with each part" },
	{ "endless", endless, "white space for ever instead of the last bracket" },
	{ "dribble", dribble, "the same, a byte each --lie-ms" },
	{ "silent", silent, "connects and says nothing" },
	{ "close", early_close, "connects and hangs up" },
	{ "half-close", half_then_close, "hangs up in the middle of the message" },
	{ "half-silent", half_then_silent, "stops there" },
	{ "late", late, "sends after --lie-ms, all of it right" },
	{ "second", second, "the message again, at once" },
	{ "second-late", NULL, "again after --lie-ms" },
	{ "chatter", chatter, "other messages behind it, with descriptors" },
	{ "hang-up", hang_up, "closes at once, as up to 1.11, and lives on" },
	{ "unregistered", NULL, "the second half of each region is not registered" },
	{ "registered-none", NULL, "none of the memory is" },
	/* clang-format on */
};

#define SENDING (sizeof(lies_of_sending) / sizeof(lies_of_sending[0]))

static bool
is(const char *name)
{
	return opt.lie != NULL && strcmp(opt.lie, name) == 0;
}

static const struct lie *
find(const struct lie *list, const char *name)
{
	while (list->name != NULL && strcmp(list->name, name) != 0)
		list++;
	return list->name != NULL ? list : NULL;
}

bool
lie_known(const char *name)
{
	for (size_t i = 0; i < SENDING; i++)
		if (strcmp(lies_of_sending[i].name, name) == 0)
			return true;
	return find(lies_of_regions, name) != NULL || find(lies_of_message, name) != NULL;
}

static void
print_list(const struct lie *lies)
{
	for (; lies->name != NULL; lies++)
		printf("  %-16s %s\n", lies->name, lies->help);
}

void
lies_list(void)
{
	print_list(lies_of_regions);
	print_list(lies_of_message);
	for (size_t i = 0; i < SENDING; i++)
		printf("  %-16s %s\n", lies_of_sending[i].name, lies_of_sending[i].help);
}

uint64_t
lie_register(uint64_t size)
{
	if (is("registered-none"))
		return 0;
	return is("unregistered") ? size / 2 / vm.m.page_size * vm.m.page_size : size;
}

static void
apply(const struct lie *lies, struct handover *h)
{
	const struct lie *lie = opt.lie != NULL ? find(lies, opt.lie) : NULL;

	if (lie != NULL)
		lie->change(h);
}

void
lie_wires(struct handover *h)
{
	apply(lies_of_regions, h);
}

void
lie_text(struct handover *h)
{
	apply(lies_of_message, h);
}

bool
lie_sends(const struct handover *h, int sock)
{
	for (size_t i = 0; i < SENDING; i++)
		if (is(lies_of_sending[i].name) && lies_of_sending[i].send != NULL) {
			lies_of_sending[i].send(h, sock);
			return true;
		}
	return false;
}

void
lie_afterwards(const struct handover *h, int sock)
{
	static struct later l;
	pthread_t thread;

	if (!is("second-late"))
		return;
	l = (struct later){ dup(sock), h, strndup(h->text, h->len), h->len };
	if (l.text == NULL || pthread_create(&thread, NULL, send_later, &l) != 0)
		quit(EXIT_CALL, "no thread for the second message");
}
