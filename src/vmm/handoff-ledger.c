/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "vmm/handoff-internal.h"

/* The conversations, for another supervisor, and as another one has left them. */

struct noted_region {
	struct gmem_region region;
	uint64_t stored;
};

struct noted_client {
	bool holds, owns, mapped, served, stays;
	unsigned id;
	pid_t pid;
};

static uint32_t
client_key(const struct handoff *h, const struct client *c)
{
	return LEDGER_KEY(LEDGER_CLIENT, c - h->clients);
}

/* ---- noting ---- */

int
handoff_note_region(struct handoff *h, uint32_t i, struct err *e)
{
	struct noted_region noted = { .region = h->regions[i], .stored = h->stored[i] };

	return ledger_put(
	    h->ledger, LEDGER_KEY(LEDGER_REGION, i), &noted, sizeof(noted), &h->fds[i], 1, e);
}

static int
put_client(struct handoff *h, const struct client *c, struct err *e)
{
	const int fds[] = { c->sock, c->lifeline, c->pidfd };
	struct noted_client noted;

	/* Also the bytes between the members. */
	memset(&noted, 0, sizeof(noted));
	noted.holds = c->holds;
	noted.owns = c->owns;
	noted.mapped = c->mapped;
	noted.served = c->served;
	noted.stays = c->stays;
	noted.id = c->id;
	noted.pid = c->pid;
	if (!c->used)
		return ledger_drop(h->ledger, client_key(h, c), e);
	return ledger_put(h->ledger, client_key(h, c), &noted, sizeof(noted), fds, 3, e);
}

void
handoff_note_client(struct handoff *h, const struct client *c)
{
	struct err e = ERR_INIT;

	if (put_client(h, c, &e) == -1 || ledger_commit(h->ledger, &e) == -1)
		pager_fail(h->server, &e);
}

int
handoff_note_all(struct handoff *h, struct err *e)
{
	const int fds[] = { h->listener, h->place };
	uint32_t key = LEDGER_KEY(LEDGER_HANDOFF, 0);

	if (h->ledger == NULL)
		return 0;
	for (uint32_t i = 0; i < h->nregions; i++)
		if (handoff_note_region(h, i, e) == -1)
			return -1;
	if ((h->clients[0].used && put_client(h, &h->clients[0], e) == -1) ||
	    ledger_put(h->ledger, key, NULL, 0, fds, 2, e) == -1 ||
	    ledger_commit(h->ledger, e) == -1)
		return -1;
	/* Processes that the VMM starts may come after we have gone. */
	return ledger_path(h->ledger, key, 1, h->path, sizeof(h->path), e);
}

int
handoff_accept(struct handoff *h, const struct client *c, int *sock, struct err *e)
{
	return ledger_accept(h->ledger, client_key(h, c), sock, e);
}

/* Whatever the request has changed is noted with the reply, or not at all. */
int
handoff_reply_noted(struct handoff *h, struct client *c, const struct iovec *iov, size_t niov,
    const int *fds, size_t nfds, struct err *e)
{
	struct ledger_reply r = { .client = client_key(h, c),
		.consume = c->peeked,
		.fds = fds,
		.nfds = (unsigned)nfds };
	uint8_t *buf;
	int rc;

	for (size_t i = 0; i < niov; i++)
		r.len += iov[i].iov_len;
	buf = malloc(r.len);
	if (buf == NULL)
		return err_sys(e, "hand-off: reply");
	r.data = buf;
	for (size_t i = 0, at = 0; i < niov; at += iov[i++].iov_len)
		memcpy(buf + at, iov[i].iov_base, iov[i].iov_len);
	rc = put_client(h, c, e);
	if (rc == 0)
		rc = ledger_reply(h->ledger, &r, e);
	c->peeked = false;
	free(buf);
	return rc;
}

void
handoff_note_failure(struct handoff *h)
{
	struct err unused;

	(void)ledger_put(
	    h->ledger, LEDGER_KEY(LEDGER_STOP, LEDGER_STOP_FAILED), NULL, 0, NULL, 0, &unused);
}

/* ---- what was left ---- */

static int
take_fd(struct ledger_entry *entry, unsigned i)
{
	int fd = entry->fds[i];

	entry->fds[i] = -1;
	return fd;
}

static void
inherit_regions(struct handoff *h)
{
	struct ledger_entry *entry;
	struct noted_region noted;

	while (
	    h->nregions < GMEM_REGIONS_MAX &&
	    (entry = ledger_left(h->ledger, LEDGER_KEY(LEDGER_REGION, h->nregions))) != NULL) {
		memcpy(&noted, entry->data, sizeof(noted));
		h->regions[h->nregions] = noted.region;
		h->stored[h->nregions] = noted.stored;
		h->fds[h->nregions] = h->own_fds[h->nregions] = take_fd(entry, 0);
		h->nregions++;
	}
}

/* One that was accepted, and of whom nothing more is known; who talks is told again. */
static int
inherit_client(struct handoff *h, struct client *c, struct ledger_entry *entry, struct err *e)
{
	struct noted_client noted = { 0 };
	struct peer peer = { .pidfd = -1 };

	if (entry->len == sizeof(noted))
		memcpy(&noted, entry->data, sizeof(noted));
	*c = (struct client){
		.used = true,
		.sock = take_fd(entry, 0),
		.lifeline = take_fd(entry, 1),
		.pidfd = take_fd(entry, 2),
		.pid = noted.pid,
		.holds = noted.holds,
		.owns = noted.owns,
		.mapped = noted.mapped,
		.served = noted.served,
		.stays = noted.stays,
		.id = noted.id,
		.left = serve_now(),
	};
	if (c->lifeline != -1)
		atomic_fetch_add(&h->hellos, 1);
	if (entry->len == sizeof(noted) || peer_of(c->sock, &peer, e) == -1)
		return entry->len == sizeof(noted) ? 0 : -1;
	if (peer.uid != geteuid() && peer.uid != 0) {
		fd_close(&peer.pidfd);
		fd_close(&c->sock);
		*c = NOBODY;
		return put_client(h, c, e);
	}
	c->pid = peer.pid;
	c->pidfd = peer.pidfd;
	return put_client(h, c, e);
}

int
handoff_inherit_all(struct handoff *h, struct err *e)
{
	uint32_t key = LEDGER_KEY(LEDGER_HANDOFF, 0);
	struct ledger_entry *entry = ledger_left(h->ledger, key);

	if (entry == NULL)
		return err_set(e, ERR_FAILED, "hand-off: nothing was left of it");
	h->listener = take_fd(entry, 0);
	h->place = take_fd(entry, 1);
	inherit_regions(h);
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		entry = ledger_left(h->ledger, LEDGER_KEY(LEDGER_CLIENT, i));
		if (entry != NULL && inherit_client(h, &h->clients[i], entry, e) == -1)
			return -1;
	}
	if (ledger_commit(h->ledger, e) == -1)
		return -1;
	return ledger_path(h->ledger, key, 1, h->path, sizeof(h->path), e);
}
