/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/listen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "cli/time-limit.h"
#include "gmem-restore/listen-socket.h"
#include "gmem-restore/page-server.h"
#include "image/image.h"
#include "serve/pager.h"
#include "vmm/firecracker/handoff.h"

/*
 * This process accepts, forks, and watches: the children have the page servers.  When one of
 * them can't go on, or dies, its VMM is killed: it would hang in a page fault for ever.
 */

#define MESSAGE_MS 10000 /* for the message of a VMM that has connected */
#define REFUSE_MS 1000 /* for that of one that can't be served */
#define CHILDREN_MAX 4096
#define DESCRIPTORS 64 /* beside one for each child */
#define FULL_MS 1000 /* until it is tried again to accept one */

/* How a child ends. */
enum child_status {
	CHILD_DONE, /* the VMM has ended */
	CHILD_FAILED, /* it was stopped, or is to be */
	CHILD_REFUSED, /* it was no VMM */
	CHILD_NOT_RECORDED, /* the VMM has ended, but its trace could not be written */
};

struct child {
	pid_t pid;
	struct fc_peer peer; /* of which it has the pidfd only */
};

struct listener {
	const struct listen_settings *settings;
	struct image *img;
	struct listen_socket socket;
	struct recording *recording; /* of the one VMM; open, if there is to be one */
	int signals;
	struct child *children;
	size_t nchildren, max;
	bool full; /* a connection could not be accepted, and that was told */
	bool stopping; /* no more VMMs */
	bool served; /* one was */
	bool failed; /* one was stopped */
};

/* ---- a child: one VMM ---- */

struct served {
	struct pager *server;
	struct prefetching prefetching;
	int signals; /* a signalfd for SIGUSR2, if that ends recording; or -1 */
	bool not_recorded;
};

/* What can't be written is told, and does not stop the VMM. */
static void
note_record(int rc, struct served *v, const struct err *e)
{
	if (rc == -1)
		log_error("%s", e->msg);
	v->not_recorded |= rc == -1;
}

static void
look_at_recording(struct served *v, struct recording *r)
{
	struct signalfd_siginfo info;
	struct err e = ERR_INIT;

	while (
	    v->signals != -1 && read(v->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		record_signal(r);
	note_record(record_look(r, v->server, true, &e), v, &e);
}

static int
finish(struct served *v, struct recording *r, const struct fc_peer *peer, struct err *e)
{
	struct pager *s = v->server;
	uint64_t count;

	for (;;) {
		struct pollfd p[3] = {
			{ .fd = peer->pidfd, .events = POLLIN },
			{ .fd = pager_event_fd(s), .events = POLLIN },
			{ .fd = v->signals, .events = POLLIN },
		};

		prefetching_look(&v->prefetching, s);
		if (poll(p, 3, record_timeout(r)) == -1 && errno != EINTR)
			return err_sys(e, "poll");
		look_at_recording(v, r);
		if (p[1].revents != 0 && read(pager_event_fd(s), &count, sizeof(count)) == -1 &&
		    errno != EAGAIN)
			return err_sys(e, "eventfd");
		/* A VMM that has ended leaves faults behind that fail. */
		if (p[0].revents != 0)
			return 0;
		if (pager_state(s, e) == SERVER_FAILED)
			return -1;
	}
}

static int
give_memory(const struct listener *l, struct served *v, const struct fc_peer *peer,
    const struct fc_regions *regions, int *uffd, struct err *e)
{
	struct server_options options = {
		.nworkers = l->settings->threads,
		.place = l->settings->place,
		.nfillers = l->settings->threads,
		.background = l->settings->background,
		.background_rate = l->settings->background_rate,
		.engine = l->settings->engine,
		.record = l->settings->record.path != NULL,
		.on_error = l->settings->on_error,
		.io_timeout = l->settings->io_timeout,
	};
	int taken = *uffd;

	if (prefetching_open(&v->prefetching, &l->settings->prefetch, l->img, &options, e) ==
		-1 ||
	    pager_new(&v->server, page_server_path(), log_level(), e) == -1 ||
	    pager_open(v->server, l->img, &options, e) == -1)
		return -1;
	*uffd = -1;
	if (fc_serve(v->server, l->img, peer, regions, taken, e) == -1)
		return -1;
	return pager_start(v->server, e);
}

/* Its descriptor first: whatever fails later, it is known whether it gave one. */
static int
serve_peer(const struct listener *l, struct fc_peer *peer, struct served *v, struct err *e)
{
	const struct fc_wait w = { .timeout_ms = MESSAGE_MS, .stop_fd = -1, .over_fd = -1 };
	static struct fc_regions regions;
	int uffd = -1, rc = -1;
	struct err why = ERR_INIT;

	if (fc_receive(peer, &w, &regions, &uffd, e) == 1)
		rc = give_memory(l, v, peer, &regions, &uffd, e);
	if (rc == 0) {
		log_info("process %d: its memory is served", (int)peer->pid);
		rc = finish(v, l->recording, peer, e);
	}
	/* Before the userfaultfd is closed: faults would give zeros then. */
	if (rc == -1 && peer->gave)
		pidfd_send_signal(peer->pidfd, SIGKILL, NULL, 0);
	fd_close(&uffd);
	note_record(record_finish(l->recording, v->server, rc == -1, &why), v, &why);
	if (v->server != NULL)
		pager_stop(v->server);
	pager_free(v->server);
	prefetching_close(&v->prefetching);
	return rc;
}

/* A blocked signal as a descriptor, or -1. */
static int
take_signal(int signo)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int
child_main(const struct listener *l, struct fc_peer *peer)
{
	struct served served = { .signals = -1, .prefetching.ready_fd = -1 };
	struct err e = ERR_INIT;

	if (l->settings->record.until == RECORD_READY)
		served.signals = take_signal(SIGUSR2);
	if (serve_peer(l, peer, &served, &e) == 0) {
		log_info("process %d has ended", (int)peer->pid);
		return served.not_recorded ? CHILD_NOT_RECORDED : CHILD_DONE;
	}
	log_error("process %d: %s%s", (int)peer->pid, e.msg,
	    peer->gave ? "; the VMM was stopped" : "");
	return peer->gave ? CHILD_FAILED : CHILD_REFUSED;
}

/* Stays as long as its VMM, whatever is sent to all of us by a terminal or a service manager.
 */
static void __attribute__((noreturn)) become_child(struct listener *l, struct fc_peer *peer)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
	sigset_t none;

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&none);
	if (l->settings->record.until == RECORD_READY)
		sigaddset(&none, SIGUSR2); /* it may be on its way: child_main takes it */
	sigprocmask(SIG_SETMASK, &none, NULL);
	fd_close(&l->socket.fd);
	fd_close(&l->signals);
	for (size_t i = 0; i < l->nchildren; i++)
		fc_peer_fini(&l->children[i].peer);
	_exit(child_main(l, peer));
}

/* ---- the parent ---- */

static bool
may_connect(const struct listener *l, const struct fc_peer *peer)
{
	return peer->uid == geteuid() || peer->uid == 0 ||
	       (l->settings->owner != LISTEN_NOBODY && peer->uid == l->settings->owner);
}

static int
start_child(struct listener *l, struct fc_peer *peer, struct err *e)
{
	struct child *more;
	pid_t pid;

	more = realloc(l->children, (l->nchildren + 1) * sizeof(*more));
	if (more == NULL)
		return err_sys(e, "one more VMM");
	l->children = more;
	pid = fork();
	if (pid == -1)
		return err_sys(e, "fork");
	if (pid == 0)
		become_child(l, peer);
	fd_close(&peer->sock);
	l->children[l->nchildren++] = (struct child){ pid, *peer };
	*peer = (struct fc_peer)FC_PEER_INIT;
	return 0;
}

/*
 * One that we have no process for.  It would wait for its pages for ever; but who only looks
 * whether somebody listens here does no harm, and comes to none.
 */
static void
refuse(struct listener *l, struct fc_peer *peer, const struct err *why)
{
	const struct fc_wait w = { .timeout_ms = REFUSE_MS, .stop_fd = -1, .over_fd = -1 };
	static struct fc_regions regions;
	struct err unused = ERR_INIT;
	int uffd = -1;

	fc_receive(peer, &w, &regions, &uffd, &unused);
	if (peer->gave) {
		l->served = l->failed = true;
		pidfd_send_signal(peer->pidfd, SIGKILL, NULL, 0);
	}
	fd_close(&uffd);
	log_error("process %d was sent away: %s%s", (int)peer->pid, why->msg,
	    peer->gave ? "; the VMM was stopped" : "");
}

/* What goes wrong here is the peer's affair: others may come. */
static void
take_connection(struct listener *l)
{
	const struct fc_wait w = { .timeout_ms = 0, .stop_fd = -1, .over_fd = -1 };
	struct err e = ERR_INIT;
	struct fc_peer peer;

	if (fc_accept(l->socket.fd, &w, &peer, &e) != 1) {
		if (!l->full)
			log_warn("%s: %s", l->settings->path, e.msg);
		l->full = true;
		return;
	}
	l->full = false;
	if (!may_connect(l, &peer))
		log_warn("process %d of user %u was sent away: not the user of the socket "
			 "(--socket-owner)",
		    (int)peer.pid, (unsigned)peer.uid);
	else if (start_child(l, &peer, &e) == -1)
		refuse(l, &peer, &e);
	else
		log_info(
		    "process %d has connected", (int)l->children[l->nchildren - 1].peer.pid);
	fc_peer_fini(&peer);
}

static void
kill_peer(const struct child *c)
{
	pidfd_send_signal(c->peer.pidfd, SIGKILL, NULL, 0);
}

static void
child_ended(struct listener *l, struct child *c, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_REFUSED)
		return;
	l->served = true;
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_DONE)
		return;
	l->failed = true;
	if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_NOT_RECORDED)
		return;
	kill_peer(c);
	if (WIFSIGNALED(status))
		log_error("process %d: its page server was killed by signal %d; the VMM was "
			  "stopped",
		    (int)c->peer.pid, WTERMSIG(status));
}

static void
reap(struct listener *l)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < l->nchildren; i++)
			if (l->children[i].pid == pid) {
				child_ended(l, &l->children[i], status);
				fc_peer_fini(&l->children[i].peer);
				l->children[i] = l->children[--l->nchildren];
				break;
			}
}

/* The first time: no more VMMs.  The second time: those that are there, too. */
static void
stop(struct listener *l, int signo)
{
	bool again = l->stopping;

	l->stopping = true;
	listen_socket_close(&l->socket);
	if (l->nchildren == 0)
		return;
	if (!again) {
		log_warn("signal %d: serving on until the VMMs end (%zu now); another signal "
			 "stops them",
		    signo, l->nchildren);
		return;
	}
	log_error("signal %d again: the VMMs are stopped (%zu)", signo, l->nchildren);
	l->failed = true;
	for (size_t i = 0; i < l->nchildren; i++)
		kill_peer(&l->children[i]);
}

/* To those that serve. */
static void
pass_on(const struct listener *l, int signo)
{
	for (size_t i = 0; i < l->nchildren; i++)
		kill(l->children[i].pid, signo);
}

static void
handle_signals(struct listener *l)
{
	struct signalfd_siginfo info;

	while (read(l->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(l);
		else if (info.ssi_signo == SIGUSR2)
			pass_on(l, SIGUSR2);
		else
			stop(l, (int)info.ssi_signo);
	}
}

/* Those that were ignored (nohup) stay so: a signalfd would give them, too. */
static int
take_signals(struct listener *l, struct err *e)
{
	static const int handled[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
	struct sigaction old;
	sigset_t set;

	signal(SIGPIPE, SIG_IGN); /* of who read our log: the VMMs go on */
	signal(SIGXFSZ, SIG_IGN); /* write(2) tells as well */
	signal(SIGCHLD, SIG_DFL); /* ignored, we would not be told how children ended */
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (l->settings->record.until == RECORD_READY)
		sigaddset(&set, SIGUSR2);
	for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++)
		if (sigaction(handled[i], NULL, &old) == -1 || old.sa_handler != SIG_IGN)
			sigaddset(&set, handled[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	l->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return l->signals == -1 ? err_sys(e, "signalfd") : 0;
}

static bool
is_over(const struct listener *l)
{
	return l->nchildren == 0 && (l->stopping || (l->settings->once && l->served));
}

/* Those that wait meanwhile are in the socket's queue. */
static bool
accepts(const struct listener *l)
{
	if (l->settings->once)
		return l->nchildren == 0 && !l->served;
	return l->nchildren < l->max;
}

static int
run(struct listener *l, struct err *e)
{
	bool pause = false; /* after one that could not be accepted: it is still there */

	while (!is_over(l)) {
		struct pollfd p[2] = {
			{ .fd = l->signals, .events = POLLIN },
			{ .fd = accepts(l) && !pause ? l->socket.fd : -1, .events = POLLIN },
		};

		if (poll(p, 2, pause ? FULL_MS : -1) == -1 && errno != EINTR)
			return err_sys(e, "poll");
		handle_signals(l);
		pause = false;
		if (p[1].revents != 0 && l->socket.fd != -1) {
			take_connection(l);
			pause = l->full;
		}
	}
	return 0;
}

/* Each child costs us a descriptor; and a VMM that was accepted must not fail for lack of one.
 */
static int
take_descriptors(struct listener *l, struct err *e)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == -1)
		return err_sys(e, "RLIMIT_NOFILE");
	r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &r) == -1)
		return err_sys(e, "RLIMIT_NOFILE");
	if (r.rlim_cur <= DESCRIPTORS)
		return err_set(e, ERR_FAILED,
		    "RLIMIT_NOFILE allows %llu descriptors, more than %d are wanted",
		    (unsigned long long)r.rlim_cur, DESCRIPTORS);
	l->max = (size_t)MIN(r.rlim_cur - DESCRIPTORS, (rlim_t)CHILDREN_MAX);
	return 0;
}

static int
open_image(struct listener *l, struct err *e)
{
	const struct listen_settings *s = l->settings;
	struct time_limit *limit;
	int rc;

	if (time_limit_start(&limit, s->image, s->io_timeout, e) == -1)
		return -1;
	rc = image_open_expected(&l->img, s->image, s->expect_root, e);
	time_limit_stop(limit);
	return rc;
}

static int
prepare(struct listener *l, struct err *e)
{
	if (take_descriptors(l, e) == -1 || open_image(l, e) == -1)
		return -1;
	if (l->img->manifest.nregions == 0)
		return err_set(e, ERR_FAILED, "%s: holds no memory", l->img->path);
	if (record_open(l->recording, &l->settings->record, e) == -1)
		return -1;
	if (take_signals(l, e) == -1 || listen_socket_open(&l->socket, l->settings, e) == -1)
		return -1;
	log_info("%s: waiting for VMMs", l->settings->path);
	return 0;
}

int
listen_run(const struct listen_settings *settings)
{
	struct recording recording = { .out = NULL };
	struct listener l = { .settings = settings,
		.socket = LISTEN_SOCKET_INIT,
		.recording = &recording,
		.signals = -1 };
	struct err e = ERR_INIT;
	int status = STATUS_OK;

	if (prepare(&l, &e) == -1 || run(&l, &e) == -1) {
		log_error("%s", e.msg);
		status = err_status(&e);
	} else if (l.failed) {
		status = STATUS_FAILED;
	}
	for (size_t i = 0; i < l.nchildren; i++)
		kill_peer(&l.children[i]);
	record_close(&recording);
	listen_socket_close(&l.socket);
	fd_close(&l.signals);
	free(l.children);
	image_close(l.img);
	return status;
}
