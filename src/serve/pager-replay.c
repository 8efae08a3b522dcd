/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <poll.h>

#include "base/fdio.h"
#include "serve/pager-internal.h"

/*
 * What a page server is told that goes on where another one has ended, in the order that
 * server_resume asks for.  Nobody else asks anything meanwhile.  What the other one has not
 * answered is answered by this one, and whoever has asked finds that.
 */

/* It may tell meanwhile that it will never answer: its file system hangs. */
static int
await_answer(struct pager *p, int sock, struct err *e)
{
	struct pollfd polls[] = { { .fd = sock, .events = POLLIN },
		{ .fd = p->child.control, .events = POLLIN } };

	for (;;) {
		if (poll(polls, 2, -1) == -1)
			continue;
		if (polls[0].revents != 0)
			return 0;
		if (!pager_hear(p))
			return err_set(e, ERR_FAILED, "it has hung up");
		if (pager_state(p, e) == SERVER_FAILED)
			return -1;
	}
}

/* 0, also with a reply that says no. */
static int
ask(struct pager *p, int sock, struct pager_call *c, struct err *e)
{
	int rc;

	c->await = await_answer;
	c->pager = p;
	rc = pager_exchange(sock, c, e);

	if (rc == 1)
		return 0;
	return rc == -1 ? err_wrap(e, "page server")
			: err_set(e, ERR_FAILED, "the page server does not answer");
}

/* The same; what was fine before has to be. */
static int
insist(struct pager *p, int sock, struct pager_call *c, struct err *e)
{
	if (ask(p, sock, c, e) == -1)
		return -1;
	if (c->reply.failed == 0)
		return 0;
	pager_error_get(e, &c->reply.error);
	return err_wrap(e, "page server");
}

static int
insist_plainly(struct pager *p, int sock, enum pager_type type, struct err *e)
{
	struct pager_call c = { .request = { .version = PAGER_VERSION, .type = type } };

	return insist(p, sock, &c, e);
}

static int
give_answer(
    struct pager *p, struct pager_answer *a, struct pager_call *c, int sock, struct err *e)
{
	if ((a->answered ? insist(p, sock, c, e) : ask(p, sock, c, e)) == -1)
		return -1;
	pthread_mutex_lock(&p->lock);
	a->answered = true;
	a->reply = c->reply;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* What the one before was told, unless it has refused that. */
static bool
must_be_told(const struct pager_answer *a)
{
	return a->told && !(a->answered && a->reply.failed != 0);
}

static int
replay_memories(struct pager *p, int sock, struct err *e)
{
	for (size_t i = 0; i < p->journal.nmemories; i++) {
		struct pager_memory *m = &p->journal.memories[i];
		struct pager_call c;
		int fds[3];

		if (!must_be_told(&m->answer))
			continue;
		pager_memory_call(&c, m, i, fds);
		if (give_answer(p, &m->answer, &c, sock, e) == -1)
			return -1;
	}
	return 0;
}

static int
replay_processes(struct pager *p, int sock, struct err *e)
{
	for (unsigned i = 0; i < p->journal.nprocesses; i++) {
		struct pager_process *m = &p->journal.processes[i];
		struct pager_call c;
		int fds[2];

		if (!m->alive || !must_be_told(&m->answer))
			continue;
		pager_process_call(&c, m, fds);
		if (give_answer(p, &m->answer, &c, sock, e) == -1)
			return -1;
	}
	return 0;
}

static int
replay_mappings(struct pager *p, int sock, struct err *e)
{
	for (size_t i = 0; i < p->journal.nmappings; i++) {
		struct pager_call c;

		pager_mapping_call(&c, &p->journal, &p->journal.mappings[i]);
		if (insist(p, sock, &c, e) == -1)
			return -1;
	}
	return 0;
}

/* No lock: p->up is false, so nobody is told anything and nothing is noted. */
static int
replay(struct pager *p, int sock, struct err *e)
{
	if (replay_memories(p, sock, e) == -1 || replay_processes(p, sock, e) == -1 ||
	    replay_mappings(p, sock, e) == -1)
		return -1;
	if (p->journal.begun && insist_plainly(p, sock, PAGER_START, e) == -1)
		return -1;
	return insist_plainly(p, sock, PAGER_RESUME, e);
}

int
pager_replay(struct pager *p, const struct pager_child *c, struct err *e)
{
	int sock, rc;

	if (pager_connect(c->control, &sock, e) == -1)
		return -1;
	rc = replay(p, sock, e);
	fd_close(&sock);
	return rc;
}
