/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"
#include "serve/ledger-wire.h"

/* A supervisor's side. */

static int
tell(struct ledger *l, const struct ledger_request *r, const void *data, size_t len,
    const int *fds, unsigned nfds, struct err *e)
{
	int rc;

	pthread_mutex_lock(&l->lock);
	rc = ledger_send(l->sock, r, sizeof(*r), data, len, fds, nfds, e);
	pthread_mutex_unlock(&l->lock);
	return rc == -1 ? err_wrap(e, "keeper") : 0;
}

int
ledger_put(struct ledger *l, uint32_t key, const void *data, size_t len, const int *fds,
    unsigned nfds, struct err *e)
{
	struct ledger_request r = { .type = LEDGER_PUT, .key = key };
	int sent[LEDGER_FDS_MAX];
	unsigned n = 0;

	if (l == NULL)
		return 0;
	for (unsigned i = 0; i < nfds; i++)
		if (fds[i] != -1) {
			r.mask |= 1u << i;
			sent[n++] = fds[i];
		}
	return tell(l, &r, data, len, sent, n, e);
}

int
ledger_drop(struct ledger *l, uint32_t key, struct err *e)
{
	const struct ledger_request r = { .type = LEDGER_DROP, .key = key };

	return l == NULL ? 0 : tell(l, &r, NULL, 0, NULL, 0, e);
}

int
ledger_commit(struct ledger *l, struct err *e)
{
	const struct ledger_request r = { .type = LEDGER_COMMIT };
	struct ledger_answer a;

	return l == NULL ? 0 : ledger_ask(l, &r, NULL, 0, NULL, 0, &a, NULL, e);
}

int
ledger_reply(struct ledger *l, const struct ledger_reply *reply, struct err *e)
{
	const struct ledger_request r = {
		.type = LEDGER_COMMIT,
		.key = reply->client,
		.flags = reply->consume ? LEDGER_CONSUME : 0,
	};
	struct ledger_answer a;

	return ledger_ask(l, &r, reply->data, reply->len, reply->fds, reply->nfds, &a, NULL, e);
}

int
ledger_accept(struct ledger *l, uint32_t key, int *sock, struct err *e)
{
	const struct ledger_request r = { .type = LEDGER_ACCEPT, .key = key };
	struct ledger_answer a;

	return ledger_ask(l, &r, NULL, 0, NULL, 0, &a, sock, e);
}

int
ledger_path(struct ledger *l, uint32_t key, unsigned i, char *path, size_t size, struct err *e)
{
	const struct ledger_request r = { .type = LEDGER_NUMBER, .key = key, .flags = i };
	struct ledger_answer a;

	if (ledger_ask(l, &r, NULL, 0, NULL, 0, &a, NULL, e) == -1)
		return -1;
	snprintf(path, size, "/proc/%d/fd/%d", (int)a.pid, (int)a.number);
	return 0;
}

struct ledger_entry *
ledger_left(struct ledger *l, uint32_t key)
{
	return l == NULL ? NULL : ledger_find(&l->left, key);
}

bool
ledger_is_inherited(const struct ledger *l)
{
	return l != NULL && l->inherited;
}

int
ledger_lifeline(const struct ledger *l)
{
	return l == NULL ? -1 : l->lifeline;
}

int
ledger_ask(struct ledger *l, const struct ledger_request *r, const void *data, size_t len,
    const int *fds, unsigned nfds, struct ledger_answer *a, int *fd, struct err *e)
{
	struct ledger_message *m = malloc(sizeof(*m));
	int rc;

	if (m == NULL)
		return err_sys(e, "keeper");
	pthread_mutex_lock(&l->lock);
	rc = ledger_send(l->sock, r, sizeof(*r), data, len, fds, nfds, e) == -1
		 ? -1
		 : ledger_receive(l->sock, m, e);
	pthread_mutex_unlock(&l->lock);
	if (rc == 0)
		err_set(e, ERR_FAILED, "it was killed");
	if (rc != 1) {
		free(m);
		return err_wrap(e, "keeper");
	}
	memcpy(a, m->data, sizeof(*a));
	if (fd != NULL && m->nfds != 0) {
		*fd = m->fds[0];
		m->fds[0] = -1;
	}
	ledger_message_fini(m);
	free(m);
	if (a->failed == 0)
		return 0;
	err_set(e, (enum err_kind)a->failed, "%.*s", (int)sizeof(a->msg) - 1, a->msg);
	e->sysno = a->sysno;
	return -1;
}
