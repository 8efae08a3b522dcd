/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/ledger-wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fdio.h"
#include "base/fdpass.h"

int
ledger_send(int sock, const void *head, size_t head_len, const void *data, size_t len,
    const int *fds, unsigned nfds, struct err *e)
{
	struct fd_room room;
	struct iovec iov[] = { { (void *)(uintptr_t)head, head_len },
		{ (void *)(uintptr_t)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len != 0 ? 2 : 1 };
	ssize_t n;

	if (nfds > LEDGER_SENT_MAX || len > LEDGER_DATA_MAX)
		return err_set(
		    e, ERR_UNSUPPORTED, "%u descriptors, %zu bytes at once", nfds, len);
	fd_attach(&msg, &room, fds, nfds);
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n == -1 && errno == EINTR);
	return n == -1 ? err_sys(e, "send") : 0;
}

int
ledger_receive(int sock, struct ledger_message *m, struct err *e)
{
	struct fd_room room;
	struct iovec iov[] = { { &m->r, sizeof(m->r) }, { m->data, sizeof(m->data) } };
	struct msghdr msg = { .msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf) };
	ssize_t n;

	m->nfds = 0;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n == -1 && errno == EINTR);
	if (n == -1 && errno != ECONNRESET && errno != EPIPE)
		return err_sys(e, "receive");
	if (n > 0)
		m->nfds = (unsigned)fd_detach(&msg, m->fds, LEDGER_SENT_MAX);
	if (n < (ssize_t)sizeof(m->r)) {
		ledger_message_fini(m);
		return 0;
	}
	m->len = (size_t)n - sizeof(m->r);
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
		return 1;
	ledger_message_fini(m);
	/* What does not come for lack of descriptors would be lost: it is not gone on without.
	 */
	return err_set(e, ERR_FAILED, "a message did not come whole: too many open files?");
}

void
ledger_message_fini(struct ledger_message *m)
{
	for (unsigned i = 0; i < m->nfds; i++)
		fd_close(&m->fds[i]);
	m->nfds = 0;
}

void
ledger_answer_set(struct ledger_answer *a, const struct err *e)
{
	a->failed = (int32_t)e->kind;
	a->sysno = e->sysno;
	snprintf(a->msg, sizeof(a->msg), "%s", e->msg);
}

/* ---- entries ---- */

struct ledger_entry *
ledger_find(const struct ledger_entries *t, uint32_t key)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->list[i].key == key)
			return &t->list[i];
	return NULL;
}

int
ledger_set(struct ledger_entries *t, struct ledger_entry *from, struct err *e)
{
	struct ledger_entry *to = ledger_find(t, from->key);
	size_t room = 2 * t->room + 16;

	if (to != NULL) {
		ledger_entry_fini(to);
		*to = *from;
		return 0;
	}
	if (t->n == t->room) {
		to = realloc(t->list, room * sizeof(*t->list));
		if (to == NULL)
			return err_sys(e, "keeper");
		t->list = to;
		t->room = room;
	}
	t->list[t->n++] = *from;
	return 0;
}

void
ledger_remove(struct ledger_entries *t, uint32_t key)
{
	struct ledger_entry *entry = ledger_find(t, key);

	if (entry == NULL)
		return;
	ledger_entry_fini(entry);
	*entry = t->list[--t->n];
}

void
ledger_entry_fini(struct ledger_entry *entry)
{
	for (unsigned i = 0; i < LEDGER_FDS_MAX; i++)
		fd_close(&entry->fds[i]);
	free(entry->data);
	entry->data = NULL;
}

void
ledger_entries_fini(struct ledger_entries *t)
{
	for (size_t i = 0; i < t->n; i++)
		ledger_entry_fini(&t->list[i]);
	free(t->list);
	*t = (struct ledger_entries){ 0 };
}
