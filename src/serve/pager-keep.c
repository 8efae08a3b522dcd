/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "serve/pager-internal.h"

/* The thread that keeps a page server: starts it, and puts another in its place. */

#define LIFE_NS UINT64_C(1000000000) /* who lives so long has not died at once */
#define PAUSE_MS 10 /* after each that died at once, one more of these … */
#define PAUSES_MAX 100u /* … up to so many */

/* With the lock. */
void
pager_announce(struct pager *p)
{
	pthread_cond_broadcast(&p->changed);
	fd_poke(p->event_fd);
}

/* There will be no page server any more. */
static void
give_up(struct pager *p, const struct err *e)
{
	pthread_mutex_lock(&p->lock);
	p->up = false;
	p->over = true;
	err_first(&p->failure, e);
	if (!p->stopping)
		atomic_store(&p->state, SERVER_FAILED);
	pager_announce(p);
	pthread_mutex_unlock(&p->lock);
}

static bool
is_stopping(struct pager *p)
{
	bool stopping;

	pthread_mutex_lock(&p->lock);
	stopping = p->stopping;
	pthread_mutex_unlock(&p->lock);
	return stopping;
}

/* ---- one after the other ---- */

/*
 * With the lock: until nobody is asking any more, who may have something to note.  What was
 * answered is read still; but one that cannot end (child_bury) keeps its sockets open.
 */
static void
await_askers(struct pager *p)
{
	for (unsigned i = 0; i < PAGER_CHANNELS; i++)
		if (p->channels[i].sock != -1)
			shutdown(p->channels[i].sock, SHUT_RDWR);
	for (unsigned i = 0; i < PAGER_CHANNELS; i++) {
		while (p->channels[i].busy)
			pthread_cond_wait(&p->changed, &p->lock);
		fd_close(&p->channels[i].sock);
	}
}

/* What it has told is what it has done, but for its CPU, which the kernel knows. */
static void
add_past(struct pager *p, const struct pager_end *end)
{
	struct server_times *to = &p->past->times, *from = &p->told->times;

	serve_stats_merge(&p->past->stats, &p->told->stats);
	p->past->user_us += end->user_us;
	p->past->system_us += end->system_us;
	if (to->first_mapping == 0)
		to->first_mapping = from->first_mapping;
	if (to->first_fault == 0)
		to->first_fault = from->first_fault;
	if (to->prefetched == 0)
		to->prefetched = from->prefetched;
	if (to->complete == 0)
		to->complete = from->complete;
	memset(p->told, 0, sizeof(*p->told));
}

/* It is dead, or about to be: waits for that. */
static void
bury(struct pager *p, struct pager_child *c, struct err *how)
{
	struct pager_end end = { .how = ERR_INIT };

	child_bury(c, p->program, &end);
	pthread_mutex_lock(&p->lock);
	if (c == &p->child) {
		p->up = false;
		await_askers(p);
		add_past(p, &end);
	}
	fd_close(&c->pidfd);
	fd_close(&c->control);
	c->pid = 0;
	pthread_mutex_unlock(&p->lock);
	*how = end.how;
}

static int
start(struct pager *p, struct pager_child *c, struct err *e)
{
	int rc;

	pthread_mutex_lock(&p->lock);
	rc = child_start(c, p, e);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

/* It answers from now on. */
static void
be_up(struct pager *p)
{
	pthread_mutex_lock(&p->lock);
	p->up = true;
	p->generation++;
	pager_announce(p);
	pthread_mutex_unlock(&p->lock);
}

/* What one says of the image any other would say; and each would hang as long in its file. */
static bool
is_final(const struct err *e)
{
	return e->kind == ERR_CORRUPT || e->kind == ERR_INCOMPLETE ||
	       e->kind == ERR_UNSUPPORTED || e->kind == ERR_MISMATCH || e->sysno == ETIMEDOUT;
}

static void
fail(struct pager *p, const struct err *e)
{
	pthread_mutex_lock(&p->lock);
	err_first(&p->failure, e);
	atomic_store(&p->state, SERVER_FAILED);
	pthread_mutex_unlock(&p->lock);
}

/* The new one goes on; or is dead, and why. */
static int
go_on(struct pager *p, struct err *e)
{
	if (child_open(&p->child, p, true, e) == -1) {
		if (is_final(e))
			fail(p, e);
		return -1;
	}
	if (pager_replay(p, &p->child, e) == -1)
		return -1;
	be_up(p);
	return 0;
}

/* ---- when one has died ---- */

/* Of deaths in a row, each at once. */
struct deaths {
	unsigned n;
	uint64_t born; /* when the last one went on */
	uint64_t given; /* pages, when the one before died */
	uint64_t provided; /* answers to who asks for pages in words, by then */
};

/* With the lock: all memory is there, and nobody will ever tell or ask it anything. */
static bool
is_idle(const struct pager *p)
{
	if (atomic_load(&p->state) != SERVER_COMPLETE)
		return false;
	for (unsigned i = 0; i < p->journal.nprocesses; i++)
		if (p->journal.processes[i].events != -1)
			return false;
	for (size_t i = 0; i < p->journal.nmemories; i++)
		if (p->journal.memories[i].memory.source)
			return false;
	return true;
}

/* With one more; false: they are too many. */
static bool
count_death(struct pager *p, struct deaths *d)
{
	uint64_t given, provided = atomic_load(&p->provided);
	bool idle;

	pthread_mutex_lock(&p->lock);
	given = journal_given(&p->journal);
	idle = is_idle(p);
	p->restarts++;
	pthread_mutex_unlock(&p->lock);
	if (given != d->given || provided != d->provided || serve_now() - d->born > LIFE_NS)
		d->n = 0;
	d->given = given;
	d->provided = provided;
	/* Without it the VM is as well as with it. */
	return ++d->n < PAGER_DEATHS || idle;
}

/* The more of them have died, the longer; false: the owner wants no other one. */
static bool
pause_between(struct pager *p, unsigned n)
{
	struct pollfd stop = { .fd = p->stop_fd, .events = POLLIN };

	if (n > 1)
		poll(&stop, 1, (int)MIN(n - 1, PAUSES_MAX) * PAUSE_MS);
	return !is_stopping(p);
}

static int
too_many(const struct err *how, struct err *e)
{
	*e = *how;
	return err_wrap(
	    e, "the page server died %u times in a row; the last time", PAGER_DEATHS);
}

/* One that can't go on, for that reason; if it had ended by itself, how that was tells more. */
static void
end(struct pager *p, const struct err *why, struct err *how)
{
	bool by_itself = child_has_ended(&p->child);

	child_kill(&p->child);
	bury(p, &p->child, how);
	if (!by_itself)
		*how = *why;
}

static bool
has_failed(struct pager *p)
{
	return atomic_load(&p->state) == SERVER_FAILED;
}

/*
 * Puts another one in the place of one that is dead.  0; -1 with *e: there will be none.
 * *how: the way in which the last one has ended.
 */
static int
succeed(struct pager *p, struct deaths *d, struct err *how, struct err *e)
{
	struct err why = ERR_INIT;

	for (;;) {
		if (!count_death(p, d))
			return too_many(how, e);
		log_warn("%s; another one goes on", how->msg);
		if (!pause_between(p, d->n))
			return err_set(e, ERR_FAILED, "the page server has stopped");
		d->born = serve_now();
		if (start(p, &p->child, how) == -1)
			continue;
		if (child_await_hello(&p->child, p->program, p->stop_fd, &why) == 0 &&
		    go_on(p, &why) == 0)
			return 0;
		end(p, &why, how);
		/* It has said what no other one could mend. */
		if (has_failed(p)) {
			*e = why;
			return -1;
		}
	}
}

/* ---- replacing one that lives ---- */

/* The new one runs before the old one is asked to end. */
static int
prepare_next(struct pager *p, struct err *e)
{
	struct err unused;

	if (start(p, &p->next, e) == -1)
		return -1;
	if (child_await_hello(&p->next, p->program, p->stop_fd, e) == 0)
		return 0;
	child_kill(&p->next);
	bury(p, &p->next, &unused);
	return -1;
}

static void
change_places(struct pager *p)
{
	pthread_mutex_lock(&p->lock);
	p->child = p->next;
	p->next = PAGER_CHILD_NONE;
	pthread_mutex_unlock(&p->lock);
}

/* Who is about to end; without waiting for long. */
static void
ask_last_stats(struct pager *p)
{
	struct pager_stats *s = calloc(1, sizeof(*s));
	struct pager_call c = { .request = { .version = PAGER_VERSION, .type = PAGER_STATS },
		.tail = s,
		.tail_len = sizeof(*s),
		.hurry = true };
	struct err unused;
	int sock = -1;

	if (s != NULL && pager_connect(p->child.control, &sock, &unused) == 0 &&
	    pager_exchange(sock, &c, &unused) == 1 && c.reply.failed == 0) {
		pthread_mutex_lock(&p->lock);
		memcpy(p->told, s, sizeof(*s));
		pthread_mutex_unlock(&p->lock);
	}
	fd_close(&sock);
	free(s);
}

/* 0; 1: the new one has died, and *how; requests that are not answered are asked again. */
static int
replace(struct pager *p, struct err *how)
{
	struct err e = ERR_INIT, unused;

	if (prepare_next(p, &e) == -1) {
		log_error("%s; the old one goes on", e.msg);
		return 0;
	}
	ask_last_stats(p);
	pthread_mutex_lock(&p->lock);
	p->up = false;
	pthread_mutex_unlock(&p->lock);
	child_dismiss(&p->child);
	bury(p, &p->child, &unused);
	change_places(p);
	pthread_mutex_lock(&p->lock);
	p->restarts++;
	pthread_mutex_unlock(&p->lock);
	if (go_on(p, &e) == 0) {
		log_info("another page server goes on, process %d", (int)p->child.pid);
		return 0;
	}
	end(p, &e, how);
	return 1;
}

/* ---- the thread ---- */

/* Until the owner wants it, or nothing any more: false. */
static bool
await_wanted(struct pager *p)
{
	bool wanted;

	pthread_mutex_lock(&p->lock);
	while (!p->wanted && !p->stopping)
		pthread_cond_wait(&p->changed, &p->lock);
	wanted = p->wanted && !p->stopping;
	pthread_mutex_unlock(&p->lock);
	return wanted;
}

static bool
take_replace(struct pager *p)
{
	bool replace;

	pthread_mutex_lock(&p->lock);
	replace = p->replace;
	p->replace = false;
	pthread_mutex_unlock(&p->lock);
	return replace;
}

/* Until the owner wants no more (0), or there is none any more (-1). */
static int
keep(struct pager *p, struct err *e)
{
	struct deaths deaths = { .born = serve_now() };
	struct err how = ERR_INIT;

	for (;;) {
		bool dead = pager_watch(p);

		if (is_stopping(p))
			return 0;
		if (dead)
			bury(p, &p->child, &how);
		else if (!take_replace(p) || has_failed(p) || replace(p, &how) == 0)
			continue;
		if (has_failed(p)) {
			*e = how;
			return -1;
		}
		if (succeed(p, &deaths, &how, e) == -1)
			return -1;
	}
}

/* The first one.  What it says is wrong no other one could mend; but it may be killed. */
static int
begin(struct pager *p, struct err *e)
{
	struct deaths deaths = { .born = serve_now() };
	struct err how = ERR_INIT;

	if (child_await_hello(&p->child, p->program, p->stop_fd, e) == 0) {
		if (ledger_is_inherited(p->ledger)) {
			if (go_on(p, e) == 0)
				return 0;
		} else if (child_open(&p->child, p, false, e) == 0) {
			be_up(p);
			return 0;
		}
	}
	end(p, e, &how);
	if (e->sysno != EPIPE || is_stopping(p))
		return -1;
	return succeed(p, &deaths, &how, e);
}

void *
pager_main(void *arg)
{
	struct pager *p = arg;
	struct err e = ERR_INIT, unused;

	if (start(p, &p->child, &e) == -1) {
		give_up(p, &e);
		return NULL;
	}
	if (await_wanted(p) && (begin(p, &e) == -1 || keep(p, &e) == -1))
		give_up(p, &e);
	if (p->child.pid != 0) {
		child_dismiss(&p->child);
		bury(p, &p->child, &unused);
	}
	return NULL;
}
