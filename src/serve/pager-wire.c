/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/pager-wire.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/fdio.h"
#include "base/fdpass.h"

int
pager_send(int sock, const struct pager_message *m, struct err *e)
{
	struct fd_room room;
	struct iovec iov[] = {
		{ (void *)(uintptr_t)m->head, m->head_len },
		{ (void *)(uintptr_t)m->tail, m->tail_len },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = m->tail_len != 0 ? 2 : 1 };
	ssize_t n;

	fd_attach(&msg, &room, m->fds, m->nfds);
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | (m->now ? MSG_DONTWAIT : 0));
	while (n == -1 && errno == EINTR);
	return n == -1 ? err_sys(e, "send") : 0;
}

ssize_t
pager_receive(int sock, void *buf, size_t size, int fds[PAGER_FDS_MAX], struct err *e)
{
	struct fd_room room;
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf) };
	bool few;
	ssize_t n;

	for (unsigned i = 0; i < PAGER_FDS_MAX; i++)
		fds[i] = -1;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n == -1 && errno == EINTR);
	if (n == -1 && (errno == ECONNRESET || errno == EPIPE))
		return 0;
	if (n == -1)
		return err_sys(e, "receive");
	few = fd_detach(&msg, fds, PAGER_FDS_MAX) <= PAGER_FDS_MAX;
	/* Only what comes with it tells a message without a byte from a hang-up. */
	if (n > 0 && few && (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
		return n;
	pager_close_fds(fds);
	if (n == 0)
		return 0;
	return err_set(e, ERR_CORRUPT, "a message of %zd bytes that is none", n);
}

void
pager_close_fds(int fds[PAGER_FDS_MAX])
{
	for (unsigned i = 0; i < PAGER_FDS_MAX; i++)
		fd_close(&fds[i]);
}

void
pager_error_set(struct pager_error *to, const struct err *from)
{
	*to = (struct pager_error){ .kind = (uint32_t)from->kind, .sysno = from->sysno };
	snprintf(to->msg, sizeof(to->msg), "%s", from->msg);
}

void
pager_error_get(struct err *to, const struct pager_error *from)
{
	/* It is not for the page server to say that somebody wants out. */
	bool known = from->kind > ERR_NONE && from->kind < ERR_INTERRUPTED;

	to->kind = known ? (enum err_kind)from->kind : ERR_FAILED;
	to->sysno = from->sysno;
	snprintf(to->msg, sizeof(to->msg), "%.*s", (int)sizeof(from->msg) - 1, from->msg);
	for (char *c = to->msg; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	if (to->msg[0] == '\0')
		snprintf(to->msg, sizeof(to->msg), "the page server does not say why");
}
