/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "takeover.h"

static void
tell(const struct game *g, char what)
{
	if (send(g->sock, &what, 1, MSG_NOSIGNAL) != 1)
		_exit(3);
}

static int
add_memory(const struct game *g, struct server *s, struct err *e)
{
	const struct served_memory m = { .fd = g->fd,
		.page_size = g->page_size,
		.bitmap = -1,
		.source = g->how->kind == VM_ASKS,
		.claims = g->claims };

	return g->how->kind == VM_OWN ? server_add_foreign(s, 0, g->page_size, g->claims, e)
				      : server_add_memory(s, 0, &m, e);
}

static int
add_process(const struct game *g, struct server *s, unsigned *id, struct err *e)
{
	int fd = dup(g->uffd);

	return g->how->kind == VM_OWN ? server_adopt_process(s, fd, g->events, id, e)
				      : server_add_process(s, fd, id, e);
}

static int
add_mappings(const struct game *g, struct server *s, unsigned id, unsigned from, unsigned to,
    struct err *e)
{
	for (unsigned i = from; i < to; i++) {
		if (server_add_mapping(s, id, g->offer.hva[i], LENGTH, 0, 0, e) == -1)
			return -1;
		if (i >= g->mapped)
			tell(g, MAPPED);
	}
	return 0;
}

static int
begin(const struct game *g, struct server *s, struct err *e)
{
	bool again = g->servers > 1, asks = g->how->kind == VM_ASKS;
	unsigned id = 0;

	if (add_memory(g, s, e) == -1 || (!asks && add_process(g, s, &id, e) == -1) ||
	    (again && add_mappings(g, s, id, 0, g->mapped, e) == -1) ||
	    server_start(s, e) == -1 || (again && server_resume(s, e) == -1))
		return -1;
	return asks ? 0 : add_mappings(g, s, id, g->mapped, g->offer.n, e);
}

static int
answer(const struct game *g, struct server *s, struct err *e)
{
	struct vm_request r;

	if (recv(g->sock, &r, sizeof(r), 0) != (ssize_t)sizeof(r))
		_exit(3);
	if ((r.what == VM_DISCARD ? server_discard : server_provide)(s, 0, r.off, r.len, e) ==
	    -1)
		return -1;
	tell(g, ANSWER);
	return 0;
}

static _Noreturn void
fail(const struct game *g, const struct err *e)
{
	printf("# server %u: %s\n", g->servers, e->msg);
	fflush(stdout);
	tell(g, FAILED);
	_exit(1);
}

_Noreturn void
serve(const struct game *g, const char *image_path)
{
	const struct server_options o = { .nworkers = 3,
		.nfillers = 2,
		.background = g->how->background ? BACKGROUND_ON : BACKGROUND_OFF,
		.engine = g->how->engine,
		.prefetch = { .kind = g->how->prefetch, .nthreads = 2 },
		.resume = g->servers > 1 };
	struct err e = ERR_INIT;
	struct image *img;
	struct server *s;
	bool told = false;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (image_open(&img, image_path, &e) == -1 || server_new(&s, img, &o, &e) == -1 ||
	    begin(g, s, &e) == -1)
		fail(g, &e);
	tell(g, READY);
	for (;;) {
		struct pollfd p[] = { { .fd = g->sock, .events = POLLIN },
			{ .fd = server_event_fd(s), .events = POLLIN } };
		enum server_state state = server_state(s, &e);
		uint64_t count;

		if (state == SERVER_FAILED)
			fail(g, &e);
		if (state == SERVER_COMPLETE && !told)
			tell(g, COMPLETE);
		told = state == SERVER_COMPLETE;
		if (poll(p, 2, -1) == -1 ||
		    (p[1].revents != 0 && read(p[1].fd, &count, sizeof(count)) == -1))
			continue;
		if (p[0].revents != 0 && answer(g, s, &e) == -1)
			fail(g, &e);
	}
}
