/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "gmem-restore/adopt-wire.h"
#include "gmem-restore/keeper-internal.h"
#include "serve/stats.h"
#include "vmm/peer.h"

/* The socket where those who want to adopt the VM find the keeper, and who has come. */

#define GRACE_NS UINT64_C(2000000000) /* for who was killed to be dead */
#define END_NS UINT64_C(10000000000) /* and for its page server */
#define LOOK_MS 100
#define NOBODY ((struct keeper_caller){ .sock = -1, .out = { -1, -1 } })

/* ---- the place ---- */

static int
default_path(struct keeper *k, struct err *e)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	size_t room = sizeof(k->path);
	int n;

	if (dir == NULL || dir[0] != '/')
		return err_set(e, ERR_USAGE,
		    "--orphan wait: XDG_RUNTIME_DIR is not set: use --orphan wait=SOCKET");
	n = snprintf(k->path, room, "%s/gmem", dir);
	if (n > 0 && (size_t)n < room && mkdir(k->path, 0700) == -1 && errno != EEXIST)
		return err_sys(e, "--orphan wait: %s", k->path);
	n = snprintf(k->path, room, "%s/gmem/%d", dir, (int)getpid());
	if (n > 0 && (size_t)n < room)
		return 0;
	return err_set(
	    e, ERR_USAGE, "--orphan wait: XDG_RUNTIME_DIR is too long: use wait=SOCKET");
}

/* From another folder as well, and after a chdir(2). */
static int
given_path(struct keeper *k, struct err *e)
{
	const char *path = k->o->orphan_path;
	int n = snprintf(k->path, sizeof(k->path), "%s", path);

	if (n > 0 && (size_t)n < sizeof(k->path))
		return 0;
	return err_set(e, ERR_USAGE, "%s: the path of a socket has 1 to %zu bytes", path,
	    sizeof(k->path) - 1);
}

int
keeper_open_place(struct keeper *k, struct err *e)
{
	const struct listen_settings settings = {
		.path = k->path, .mode = 0600, .owner = LISTEN_NOBODY, .group = LISTEN_NO_GROUP
	};

	if ((k->o->orphan_path != NULL ? given_path(k, e) : default_path(k, e)) == -1)
		return -1;
	if (listen_socket_open(&k->place, &settings, e) == -1)
		return err_wrap(e, "--orphan wait");
	return 0;
}

/* ---- talking ---- */

static void
caller_end(struct keeper_caller *c)
{
	fd_close(&c->sock);
	fd_close(&c->out[0]);
	fd_close(&c->out[1]);
}

/* Who does not read what he is told is not waited for. */
static void
say(const struct keeper_caller *c, const struct adopt_message *m)
{
	if (send(c->sock, m, sizeof(*m), MSG_NOSIGNAL | MSG_DONTWAIT) == -1)
		log_debug("nobody hears: %s", strerror(errno));
}

static void
refuse(struct keeper_caller *c, const char *why)
{
	struct adopt_message m = { .version = ADOPT_VERSION, .type = ADOPT_REFUSED };

	snprintf(m.text, sizeof(m.text), "%s", why);
	say(c, &m);
	caller_end(c);
}

/* 1; 0: nothing yet; -1: he has gone, or talks nonsense. */
static int
hear(struct keeper_caller *c, struct adopt_message *m)
{
	struct fd_room room;
	struct iovec iov = { m, sizeof(*m) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf) };
	ssize_t n = recvmsg(c->sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int fds[2] = { -1, -1 };

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n > 0)
		fd_detach(&msg, fds, 2);
	for (size_t i = 0; i < 2; i++)
		if (c->out[i] == -1)
			c->out[i] = fds[i];
		else
			fd_close(&fds[i]);
	return n == (ssize_t)sizeof(*m) && m->version == ADOPT_VERSION ? 1 : -1;
}

/* ---- who has come ---- */

static void
take_caller(struct keeper *k)
{
	int sock = accept4(k->place.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct keeper_caller *c = NULL;
	struct peer peer = { .pidfd = -1 };
	struct err unused;

	if (sock == -1)
		return;
	for (size_t i = 0; i < KEEPER_WAITING && c == NULL; i++)
		if (k->waiting[i].sock == -1)
			c = &k->waiting[i];
	if (c == NULL || peer_of(sock, &peer, &unused) == -1 ||
	    (peer.uid != geteuid() && peer.uid != 0)) {
		log_warn(
		    "%s: a connection of user %u was turned away", k->path, (unsigned)peer.uid);
		close(sock);
	} else {
		*c = NOBODY;
		c->sock = sock;
	}
	fd_close(&peer.pidfd);
}

static void
hear_caller(struct keeper_caller *c)
{
	struct adopt_message m;
	int rc = hear(c, &m);

	if (rc == 0)
		return;
	if (rc == -1 || m.type != ADOPT_PLEASE || c->asks || c->out[1] == -1) {
		caller_end(c);
		return;
	}
	c->asks = true;
	c->since = serve_now();
}

/* He may have come because it was killed, before we have seen that. */
static void
refuse_late(struct keeper *k, struct keeper_caller *c)
{
	uint64_t limit = k->serves ? GRACE_NS : END_NS;
	char why[128];

	if (k->gone || c->sock == -1 || !c->asks || serve_now() - c->since < limit)
		return;
	snprintf(why, sizeof(why),
	    k->serves
		? "gmem-restore, process %d, serves it"
		: "the page server of process %d, which was killed, has not ended yet: does "
		  "its file system hang?",
	    (int)k->supervisor);
	refuse(c, why);
}

int
keeper_place_wait(const struct keeper *k)
{
	for (size_t i = 0; i < KEEPER_WAITING; i++)
		if (k->waiting[i].sock != -1 && k->waiting[i].asks)
			return LOOK_MS;
	return -1;
}

/* The adopter's signals are the supervisor's; its end is the supervisor's end. */
static void
hear_adopter(struct keeper *k)
{
	struct adopt_message m;
	int rc = hear(&k->adopter, &m);

	if (rc == 0 || k->reaped)
		return;
	if (rc == 1 && m.type == ADOPT_SIGNAL)
		kill(k->supervisor, m.number);
	else if (!k->done)
		kill(k->supervisor, SIGKILL);
	if (rc == -1)
		caller_end(&k->adopter);
}

void
keeper_place_polls(const struct keeper *k, struct pollfd *polls)
{
	for (size_t i = 0; i < KEEPER_WAITING; i++)
		polls[i] = (struct pollfd){ .fd = k->waiting[i].sock, .events = POLLIN };
	polls[KEEPER_WAITING] = (struct pollfd){ .fd = k->place.fd, .events = POLLIN };
	polls[KEEPER_WAITING + 1] = (struct pollfd){ .fd = k->adopter.sock, .events = POLLIN };
}

void
keeper_place_look(struct keeper *k, const struct pollfd *polls)
{
	for (size_t i = 0; i < KEEPER_WAITING; i++)
		if (polls[i].revents != 0 && k->waiting[i].sock != -1)
			hear_caller(&k->waiting[i]);
	for (size_t i = 0; i < KEEPER_WAITING; i++)
		refuse_late(k, &k->waiting[i]);
	if (polls[KEEPER_WAITING + 1].revents != 0 && k->adopter.sock != -1)
		hear_adopter(k);
	if (polls[KEEPER_WAITING].revents != 0)
		take_caller(k);
}

/* ---- the adopter ---- */

bool
keeper_take_adopter(struct keeper *k)
{
	bool found = false;

	for (size_t i = 0; i < KEEPER_WAITING; i++) {
		struct keeper_caller *c = &k->waiting[i];

		if (c->sock == -1 || !c->asks)
			continue;
		if (found) {
			refuse(c, "somebody else has adopted it");
			continue;
		}
		caller_end(&k->adopter);
		k->adopter = *c;
		*c = NOBODY;
		found = true;
	}
	return found;
}

void
keeper_welcome(struct keeper *k)
{
	const struct adopt_message m = {
		.version = ADOPT_VERSION,
		.type = ADOPT_TAKEN,
		.supervisor = (int32_t)k->supervisor,
		.vmm = (int32_t)k->vmm,
	};

	say(&k->adopter, &m);
	fd_close(&k->adopter.out[0]);
	fd_close(&k->adopter.out[1]);
}

void
keeper_dismiss(struct keeper *k, bool ended, int status)
{
	const struct adopt_message m = {
		.version = ADOPT_VERSION,
		.type = ended ? ADOPT_ENDED : ADOPT_LOST,
		.number = status,
	};

	if (k->adopter.sock != -1)
		say(&k->adopter, &m);
	caller_end(&k->adopter);
}
