/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdio.h"
#include "serve/pager-internal.h"

/* A request of the page server that there is, or of the next one. */

#define HURRY_MS 5000 /* for statistics */

int
pager_over(struct pager *p, struct err *e)
{
	if (p->failure.kind == ERR_NONE)
		return err_set(e, ERR_FAILED, "the page server has stopped");
	*e = p->failure;
	return -1;
}

/* A channel that is free, or the place for a new one; with the lock. */
static struct pager_channel *
free_channel(struct pager *p)
{
	struct pager_channel *place = NULL;

	for (unsigned i = 0; i < PAGER_CHANNELS; i++) {
		struct pager_channel *c = &p->channels[i];

		if (!c->busy && c->sock != -1)
			return c;
		if (!c->busy && place == NULL)
			place = c;
	}
	return place;
}

int
pager_connect(int control, int *sock, struct err *e)
{
	const struct pager_request r = { .version = PAGER_VERSION, .type = PAGER_CHANNEL };
	struct err unused = ERR_INIT;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return err_sys(e, "page server: socket");
	/* If nobody takes it, or has taken any for long, whoever uses it finds out. */
	pager_send(control,
	    &(struct pager_message){
		.head = &r, .head_len = sizeof(r), .fds = &ends[1], .nfds = 1, .now = true },
	    &unused);
	close(ends[1]);
	*sock = ends[0];
	return 0;
}

static int
take_channel(struct pager *p, struct pager_call *call, struct pager_channel **out,
    unsigned long *generation, struct err *e)
{
	struct pager_channel *c = NULL;
	int rc;

	pthread_mutex_lock(&p->lock);
	while (!p->over && !p->stopping && (!p->up || (c = free_channel(p)) == NULL))
		pthread_cond_wait(&p->changed, &p->lock);
	if (p->over || p->stopping)
		rc = pager_over(p, e);
	else
		rc = c->sock == -1 ? pager_connect(p->child.control, &c->sock, e) : 0;
	if (rc == 0) {
		c->busy = true;
		c->since = serve_now();
	}
	/* Its name for a process is another one each time. */
	if (rc == 0 && call->process != NULL)
		call->request.process = call->process->answer.reply.value;
	/* The next page server has to know of it from now on. */
	if (rc == 0 && call->answer != NULL)
		call->answer->told = true;
	*generation = p->generation;
	pthread_mutex_unlock(&p->lock);
	*out = c;
	return rc;
}

static void
put_channel(struct pager *p, struct pager_channel *c, bool good)
{
	pthread_mutex_lock(&p->lock);
	c->busy = false;
	if (!good)
		fd_close(&c->sock);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static bool
reply_fits(const struct pager_call *c, size_t len, const int fds[PAGER_FDS_MAX])
{
	const struct pager_reply *r = &c->reply;
	size_t want = sizeof(*r) + (r->failed != 0 ? 0 : c->tail_len);

	return len == want && r->version == PAGER_VERSION && r->type == c->request.type &&
	       fds[1] == -1 && (fds[0] == -1 || (c->fd != NULL && r->failed == 0));
}

int
pager_exchange(int sock, struct pager_call *c, struct err *e)
{
	const struct pager_message m = {
		.head = &c->request,
		.head_len = sizeof(c->request),
		.fds = c->fds,
		.nfds = c->nfds,
	};
	struct pollfd answer = { .fd = sock, .events = POLLIN };
	uint8_t buf[PAGER_MESSAGE_MAX];
	int fds[PAGER_FDS_MAX];
	ssize_t n;

	if (pager_send(sock, &m, e) == -1)
		return e->sysno == EPIPE || e->sysno == ECONNRESET ? 0 : -1;
	if (c->hurry && poll(&answer, 1, HURRY_MS) != 1)
		return err_set(e, ERR_FAILED, "no answer");
	if (c->await != NULL && c->await(c->pager, sock, e) == -1)
		return -1;
	n = pager_receive(sock, buf, sizeof(buf), fds, e);
	if (n < (ssize_t)sizeof(c->reply)) {
		if (n > 0)
			pager_close_fds(fds);
		return 0;
	}
	memcpy(&c->reply, buf, sizeof(c->reply));
	if (!reply_fits(c, (size_t)n, fds)) {
		pager_close_fds(fds);
		return 0;
	}
	if (c->reply.failed == 0 && c->tail_len != 0)
		memcpy(c->tail, buf + sizeof(c->reply), c->tail_len);
	if (c->fd != NULL)
		*c->fd = fds[0];
	return 1;
}

/* With the lock: what the next page server is to be told. */
static int
note_mapping(struct pager *p, const struct pager_call *c, struct err *e)
{
	const struct pager_request *r = &c->request;
	struct pager_journal *j = &p->journal;
	unsigned process = (unsigned)(c->process - j->processes);

	if (journal_reserve(j, 2, e) == -1)
		return -1;
	if (r->type == PAGER_ADD_MAPPING)
		journal_add_mapping(j,
		    &(struct pager_mapping){ process, r->hva, r->len, r->object, r->offset });
	else if (r->type == PAGER_REMOVE_MAPPING)
		journal_remove_mapping(j, process, r->hva, r->len);
	else
		journal_remove_mapping(j, process, 0, UINT64_MAX);
	if (r->type == PAGER_REMOVE_PROCESS)
		j->processes[process].alive = false;
	if (r->type == PAGER_ADD_MAPPING)
		atomic_store(&p->mapped, true);
	if (r->type == PAGER_REMOVE_PROCESS && pager_note_process(p, process, e) == -1)
		return -1;
	return pager_note_mappings(p, e);
}

/* It was answered, and no other page server is told anything until this is noted. */
static int
note(struct pager *p, struct pager_call *c, struct err *e)
{
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	if (c->answer != NULL) {
		c->answer->answered = true;
		c->answer->reply = c->reply;
	}
	if (c->process != NULL && c->reply.failed == 0)
		rc = note_mapping(p, c, e);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

/*
 * Until there is another one, or none any more.  Who talks nonsense is killed.  True: it has
 * got an answer of the next one's meanwhile.
 */
static bool
await_next(struct pager *p, unsigned long generation, struct pager_call *c)
{
	bool answered;

	pthread_mutex_lock(&p->lock);
	if (p->up && !p->stopping && p->generation == generation && p->child.pid != 0)
		child_kill(&p->child);
	while (!p->over && !p->stopping && p->generation == generation)
		pthread_cond_wait(&p->changed, &p->lock);
	answered = c->answer != NULL && c->answer->answered;
	if (answered)
		c->reply = c->answer->reply;
	pthread_mutex_unlock(&p->lock);
	return answered;
}

int
pager_ask(struct pager *p, struct pager_call *c, struct err *e)
{
	struct pager_channel *channel;
	unsigned long generation;
	int rc, noted;

	c->request.version = PAGER_VERSION;
	for (;;) {
		if (take_channel(p, c, &channel, &generation, e) == -1)
			return -1;
		rc = pager_exchange(channel->sock, c, e);
		noted = rc == 1 ? note(p, c, e) : 0;
		put_channel(p, channel, rc == 1);
		if (rc == -1)
			return err_wrap(e, "page server");
		if (noted == -1)
			return -1;
		if (rc == 1 || await_next(p, generation, c))
			break;
	}
	if (c->reply.failed == 0)
		return 0;
	pager_error_get(e, &c->reply.error);
	return -1;
}
