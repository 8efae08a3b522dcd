/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/adopt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "gmem-restore/adopt-wire.h"
#include "gmem-restore/restore.h"
#include "vmm/peer.h"

struct adoption {
	const char *path;
	int sock, signals;
	bool taken;
};

static int
reach(struct adoption *a, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct peer peer;
	bool trusted;

	if (a->path[0] == '\0' || strlen(a->path) >= sizeof(addr.sun_path))
		return err_set(e, ERR_USAGE, "%s: the path of a socket has 1 to %zu bytes",
		    a->path, sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, a->path, strlen(a->path));
	a->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (a->sock == -1)
		return err_sys(e, "socket");
	if (connect(a->sock, (const struct sockaddr *)&addr, sizeof(addr)) == -1)
		return err_sys(e, "%s: no VM waits there", a->path);
	if (peer_of(a->sock, &peer, e) == -1)
		return err_wrap(e, "%s", a->path);
	fd_close(&peer.pidfd);
	trusted = peer.uid == geteuid() || peer.uid == 0 || geteuid() == 0;
	return trusted ? 0
		       : err_set(e, ERR_FAILED, "%s: belongs to user %u", a->path,
			     (unsigned)peer.uid);
}

static int
say(struct adoption *a, const struct adopt_message *m, bool outputs, struct err *e)
{
	const int fds[2] = { STDOUT_FILENO, STDERR_FILENO };
	struct fd_room room;
	struct iovec iov = { (void *)(uintptr_t)m, sizeof(*m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	fd_attach(&msg, &room, fds, outputs ? 2 : 0);
	if (sendmsg(a->sock, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(*m))
		return 0;
	return err_sys(e, "%s", a->path);
}

static int
ask(struct adoption *a, struct err *e)
{
	const struct adopt_message please = { .version = ADOPT_VERSION, .type = ADOPT_PLEASE };

	return say(a, &please, true, e);
}

/* Those that gmem-restore takes are the supervisor's. */
static int
take_signals(struct adoption *a, struct err *e)
{
	static const int passed[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
		sigaddset(&set, passed[i]);
	a->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return a->signals == -1 ? err_sys(e, "signalfd") : 0;
}

/* The keeper finds out that we are gone. */
static int
pass_signals(struct adoption *a, struct err *e)
{
	struct adopt_message m = { .version = ADOPT_VERSION, .type = ADOPT_SIGNAL };
	struct signalfd_siginfo info;

	while (read(a->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		m.number = (int32_t)info.ssi_signo;
		if (!a->taken)
			return err_set(e, ERR_FAILED, "%s: interrupted", a->path);
		if (say(a, &m, false, e) == -1)
			return -1;
	}
	return 0;
}

/* 1: it is over, with that status; 0; -1. */
static int
hear(struct adoption *a, int *status, struct err *e)
{
	struct adopt_message m;
	ssize_t n = recv(a->sock, &m, sizeof(m), MSG_WAITALL);

	if (n == -1 && errno != ECONNRESET)
		return err_sys(e, "%s", a->path);
	if (n < (ssize_t)sizeof(m))
		return err_set(e, ERR_FAILED, "%s: the keeper has %s", a->path,
		    a->taken ? "ended, and the VMM with it" : "turned us away, or ended");
	m.text[sizeof(m.text) - 1] = '\0';
	if (m.version != ADOPT_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "%s: the keeper speaks version %u, not %u",
		    a->path, m.version, ADOPT_VERSION);
	switch (m.type) {
	case ADOPT_TAKEN:
		a->taken = true;
		log_info(
		    "process %d serves the VMM, process %d", (int)m.supervisor, (int)m.vmm);
		return 0;
	case ADOPT_ENDED:
		*status = m.number;
		return 1;
	case ADOPT_LOST:
		return err_set(e, ERR_FAILED,
		    "%s: the process that served the VM was killed; it waits again", a->path);
	case ADOPT_REFUSED:
		return err_set(e, ERR_FAILED, "%s: %s", a->path, m.text);
	default:
		return err_set(e, ERR_CORRUPT, "%s: message %u", a->path, m.type);
	}
}

/* The keeper ends a moment later: nothing of it is left when we end. */
static void
await_end(const struct adoption *a)
{
	char byte;

	while (recv(a->sock, &byte, 1, 0) > 0)
		continue;
}

static int
adopt(struct adoption *a, int *status, struct err *e)
{
	int rc;

	if (reach(a, e) == -1 || take_signals(a, e) == -1 || ask(a, e) == -1)
		return -1;
	for (;;) {
		struct pollfd polls[] = { { .fd = a->sock, .events = POLLIN },
			{ .fd = a->signals, .events = POLLIN } };

		if (poll(polls, 2, -1) == -1)
			continue;
		if (polls[1].revents != 0 && pass_signals(a, e) == -1)
			return -1;
		if (polls[0].revents == 0)
			continue;
		rc = hear(a, status, e);
		if (rc == 1)
			await_end(a);
		if (rc != 0)
			return rc == 1 ? 0 : -1;
	}
}

int
adopt_run(const char *path)
{
	struct adoption a = { .path = path, .sock = -1, .signals = -1 };
	struct err e = ERR_INIT;
	int status = 0, rc = adopt(&a, &status, &e);

	fd_close(&a.sock);
	fd_close(&a.signals);
	if (rc == 0)
		return restore_same_status(status);
	log_error("%s", e.msg);
	return err_status(&e);
}
