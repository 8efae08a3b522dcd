/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/fdpass.h"
#include "gmem-restore/keeper-internal.h"

/* What the supervisor tells and asks. */

#define DROPPED SIZE_MAX /* the len of an entry that is to be dropped */

/* The descriptors of the message become the entry's. */
static int
put(struct keeper *k, struct err *e)
{
	struct ledger_message *m = &k->message;
	struct ledger_entry entry = { .key = m->r.key, .len = m->len };
	unsigned n = 0;

	entry.data = malloc(m->len + 1);
	if (entry.data == NULL)
		return err_sys(e, "keeper");
	memcpy(entry.data, m->data, m->len);
	for (unsigned i = 0; i < LEDGER_FDS_MAX; i++) {
		entry.fds[i] = -1;
		if ((m->r.mask & (1u << i)) != 0 && n < m->nfds) {
			entry.fds[i] = m->fds[n];
			m->fds[n++] = -1;
		}
	}
	if (ledger_set(&k->pending, &entry, e) == 0)
		return 0;
	ledger_entry_fini(&entry);
	return -1;
}

static int
drop(struct keeper *k, struct err *e)
{
	struct ledger_entry entry = { .key = k->message.r.key, .len = DROPPED };

	for (unsigned i = 0; i < LEDGER_FDS_MAX; i++)
		entry.fds[i] = -1;
	return ledger_set(&k->pending, &entry, e);
}

static int
apply(struct keeper *k, struct err *e)
{
	struct ledger_entries *p = &k->pending;

	for (size_t i = 0; i < p->n; i++) {
		if (p->list[i].len == DROPPED)
			ledger_remove(&k->entries, p->list[i].key);
		else if (ledger_set(&k->entries, &p->list[i], e) == -1)
			return -1;
		else
			/* They are the other one's now. */
			p->list[i] = (struct ledger_entry){ .fds = { -1, -1, -1 } };
	}
	keeper_forget_pending(k);
	return 0;
}

void
keeper_forget_pending(struct keeper *k)
{
	ledger_entries_fini(&k->pending);
}

/* The request was looked at only: off with it, and its descriptors. */
static void
consume(int sock)
{
	char byte;

	if (recv(sock, &byte, 1, MSG_DONTWAIT) == -1)
		return; /* the client has gone */
}

static int
reply(struct keeper *k, struct err *e)
{
	const struct ledger_message *m = &k->message;
	const struct ledger_entry *client = ledger_find(&k->entries, m->r.key);
	struct fd_room room;
	struct iovec iov = { (void *)(uintptr_t)m->data, m->len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (client == NULL || client->fds[0] == -1)
		return err_set(e, ERR_FAILED, "keeper: client %#x is not known", m->r.key);
	if ((m->r.flags & LEDGER_CONSUME) != 0)
		consume(client->fds[0]);
	fd_attach(&msg, &room, m->fds, m->nfds);
	if (sendmsg(client->fds[0], &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == -1)
		return err_sys(e, "send");
	return 0;
}

/* *sock stays the entry's. */
static int
take_client(struct keeper *k, int *sock, struct err *e)
{
	const struct ledger_entry *h = ledger_find(&k->entries, LEDGER_KEY(LEDGER_HANDOFF, 0));
	struct ledger_entry entry = { .key = k->message.r.key, .fds = { -1, -1, -1 } };

	if (h == NULL || h->fds[0] == -1)
		return err_set(e, ERR_FAILED, "keeper: nobody listens");
	entry.fds[0] = accept4(h->fds[0], NULL, NULL, SOCK_CLOEXEC);
	if (entry.fds[0] == -1)
		return err_sys(e, "accept");
	*sock = entry.fds[0];
	return ledger_set(&k->entries, &entry, e);
}

static int
number(struct keeper *k, struct ledger_answer *a, struct err *e)
{
	const struct ledger_entry *entry = ledger_find(&k->entries, k->message.r.key);

	if (entry == NULL || k->message.r.flags >= LEDGER_FDS_MAX)
		return err_set(e, ERR_FAILED, "keeper: no such entry");
	a->pid = (int32_t)getpid();
	a->number = entry->fds[k->message.r.flags];
	return 0;
}

static int
answer(struct keeper *k, struct ledger_answer *a, int *fd, bool *owned, struct err *e)
{
	switch (k->message.r.type) {
	case LEDGER_COMMIT:
		if (apply(k, e) == -1)
			return -1;
		return k->message.r.key != 0 ? reply(k, e) : 0;
	case LEDGER_ACCEPT:
		return take_client(k, fd, e);
	case LEDGER_NUMBER:
		return number(k, a, e);
	case LEDGER_LAUNCH:
		keeper_do_launch(k, a, fd);
		*owned = true;
		return 0;
	case LEDGER_LOOK:
		keeper_reap(k);
		a->pid = (int32_t)k->vmm;
		a->status = k->status;
		a->children = keeper_has_children(k);
		return 0;
	case LEDGER_KILL:
		keeper_kill_vmm(k);
		return 0;
	default:
		return err_set(e, ERR_FAILED, "keeper: request %u", k->message.r.type);
	}
}

static void
converse(struct keeper *k)
{
	const struct ledger_request head = { .type = k->message.r.type };
	struct ledger_answer a = { 0 };
	struct err e = ERR_INIT, unused;
	bool owned = false;
	int fd = -1;

	if (answer(k, &a, &fd, &owned, &e) == -1)
		ledger_answer_set(&a, &e);
	/* If it has died, that is seen next. */
	(void)ledger_send(
	    k->sock, &head, sizeof(head), &a, sizeof(a), &fd, fd != -1 ? 1 : 0, &unused);
	if (owned)
		fd_close(&fd);
}

bool
keeper_hear(struct keeper *k)
{
	struct err e = ERR_INIT;
	int rc = ledger_receive(k->sock, &k->message, &e);

	if (rc != 1)
		return false;
	if (k->message.r.type == LEDGER_BYE)
		k->done = true;
	else if (k->message.r.type == LEDGER_PUT)
		rc = put(k, &e);
	else if (k->message.r.type == LEDGER_DROP)
		rc = drop(k, &e);
	else
		converse(k);
	ledger_message_fini(&k->message);
	/* What is not noted may not be gone on with. */
	return rc != -1;
}
