/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <poll.h>

#include "base/fdio.h"
#include "base/log.h"
#include "serve/pager-internal.h"

/* What a page server tells by itself, and what can be seen of one that tells nothing. */

#define LOOK_MS 2000 /* how often to look */
#define DEAF_NS UINT64_C(5000000000) /* for an answer, after it has failed */

static bool
is_event(const struct pager_event *ev, ssize_t n, const int fds[PAGER_FDS_MAX])
{
	return n == (ssize_t)sizeof(*ev) && ev->version == PAGER_VERSION &&
	       ev->type == PAGER_EVENT && ev->state <= SERVER_FAILED && fds[0] == -1;
}

static void
note(struct pager *p, const struct pager_event *ev)
{
	struct err e = ERR_INIT;

	pthread_mutex_lock(&p->lock);
	if (ev->prefetched != 0)
		atomic_store(&p->prefetched, true);
	if (ev->state == SERVER_FAILED) {
		pager_error_get(&e, &ev->error);
		err_first(&p->failure, &e);
	}
	for (size_t i = 0; ev->state == SERVER_COMPLETE && i < p->journal.nmemories; i++)
		pager_unmark_memory(p, &p->journal.memories[i]);
	/* A failure stays one. */
	if (ev->state != SERVER_FILLING && atomic_load(&p->state) != SERVER_FAILED)
		atomic_store(&p->state, (int)ev->state);
	pager_announce(p);
	pthread_mutex_unlock(&p->lock);
}

bool
pager_hear(struct pager *p)
{
	struct err unused = ERR_INIT;
	struct pager_event ev;
	int fds[PAGER_FDS_MAX];
	ssize_t n = pager_receive(p->child.control, &ev, sizeof(ev), fds, &unused);

	if (n <= 0)
		return false;
	if (!is_event(&ev, n, fds)) {
		pager_close_fds(fds);
		return false;
	}
	note(p, &ev);
	return true;
}

/*
 * Now and then, since nothing tells of it: whether it was killed, and can't end.  One that
 * stands still was made to, and the VM waits for whoever did that; so this is told, once.
 */
static bool
is_dying(const struct pager *p, bool *stands)
{
	enum child_life life = child_look(&p->child);

	if (life == CHILD_STANDS && !*stands)
		log_warn(
		    "the page server, process %d, is stopped (SIGSTOP, or a debugger): the "
		    "VM waits for it",
		    (int)p->child.pid);
	*stands = life == CHILD_STANDS;
	return life == CHILD_DIES;
}

/*
 * Whether it has failed, and somebody waits for an answer all the same: a thread of it reads a
 * file that hangs.
 */
static bool
is_deaf(struct pager *p)
{
	uint64_t now = serve_now();
	bool deaf = false;

	if (atomic_load(&p->state) != SERVER_FAILED)
		return false;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < PAGER_CHANNELS; i++)
		deaf |= p->channels[i].busy && now - p->channels[i].since > DEAF_NS;
	pthread_mutex_unlock(&p->lock);
	return deaf;
}

bool
pager_watch(struct pager *p)
{
	struct pollfd polls[] = {
		{ .fd = p->wake_fd, .events = POLLIN },
		{ .fd = p->child.control, .events = POLLIN },
		{ .fd = p->child.pidfd, .events = POLLIN },
		{ .fd = p->stop_fd, .events = POLLIN },
	};
	bool stands = false;
	int n;

	for (;;) {
		n = poll(polls, 4, atomic_load(&p->state) == SERVER_COMPLETE ? -1 : LOOK_MS);
		if (n == 0 && is_dying(p, &stands))
			return true;
		if (n == 0 && is_deaf(p))
			child_kill(&p->child);
		if (n < 1)
			continue;
		if (polls[3].revents != 0)
			return false;
		if (polls[0].revents != 0 && fd_poked(p->wake_fd))
			return false;
		/* Its last words come first. */
		if (polls[1].revents != 0 && !pager_hear(p)) {
			/* One that has hung up is none any more. */
			child_kill(&p->child);
			polls[1].fd = -1;
		} else if (polls[1].revents == 0 && polls[2].revents != 0) {
			return true;
		}
	}
}
