/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "cli/opt.h"
#include "gmem-restore/keeper-internal.h"

#define WATCH_MS 1000 /* between one look for clients and the next */
#define KILL_MS 10 /* between one look and the next whether the VMM is dead */

/* The two ends of what a supervisor and the keeper have. */
struct ends {
	int sock[2], events[2], life[2]; /* [0] the keeper's: of life the one to read */
};

static void
close_ends(struct ends *x, unsigned which)
{
	fd_close(&x->sock[which]);
	fd_close(&x->events[which]);
	fd_close(&x->life[which]);
}

static int
make_ends(struct ends *x, struct err *e)
{
	*x = (struct ends){ { -1, -1 }, { -1, -1 }, { -1, -1 } };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, x->sock) == 0 &&
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, x->events) == 0 &&
	    pipe2(x->life, O_CLOEXEC) == 0)
		return 0;
	err_sys(e, "keeper");
	close_ends(x, 0);
	close_ends(x, 1);
	return -1;
}

/* The supervisor's, which takes its ends; NULL and *e. */
static struct ledger *
new_ledger(struct ends *x, struct err *e)
{
	struct ledger *l = calloc(1, sizeof(*l));

	if (l == NULL) {
		err_sys(e, "keeper");
		return NULL;
	}
	pthread_mutex_init(&l->lock, NULL);
	l->sock = x->sock[1];
	l->events = x->events[1];
	l->lifeline = x->life[1];
	fcntl(l->events, F_SETFL, O_NONBLOCK);
	return l;
}

/* ---- another supervisor ---- */

/* In the child: what the keeper has is not the supervisor's, but for the ledger. */
static void
leave_keeper(struct keeper *k)
{
	fd_close(&k->sock);
	fd_close(&k->events);
	fd_close(&k->life);
	fd_close(&k->signals);
	fd_close(&k->place.fd);
	for (size_t i = 0; i < KEEPER_WAITING; i++)
		fd_close(&k->waiting[i].sock);
	fd_close(&k->adopter.sock);
	dup2(k->adopter.out[0], STDOUT_FILENO);
	dup2(k->adopter.out[1], STDERR_FILENO);
	fd_close(&k->adopter.out[0]);
	fd_close(&k->adopter.out[1]);
}

static void __attribute__((noreturn))
be_supervisor(struct keeper *k, struct ends *x, pid_t keeper)
{
	struct err e = ERR_INIT;
	struct ledger *l;

	/* So the keeper knows our page servers, too. */
	setsid();
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != keeper)
		_exit(STATUS_FAILED);
	prctl(PR_SET_NAME, "gmem-restore");
	leave_keeper(k);
	close_ends(x, 0);
	l = new_ledger(x, &e);
	if (l == NULL) {
		log_error("%s", e.msg);
		_exit(STATUS_FAILED);
	}
	l->inherited = true;
	l->left = k->entries;
	/* Signals stay blocked: they are read. */
	exit(opt_finish(k->next(k->o, l)));
}

static void
has_supervisor(struct keeper *k, const struct ends *x, pid_t pid, bool is_child)
{
	k->sock = x->sock[0];
	k->events = x->events[0];
	k->life = x->life[0];
	k->supervisor = pid;
	k->is_child = is_child;
	k->serves = true;
	k->gone = k->reaped = false;
}

static void
start_supervisor(struct keeper *k)
{
	struct err e = ERR_INIT;
	pid_t keeper = getpid(), pid;
	struct ends x;

	if (make_ends(&x, &e) == -1) {
		log_error("%s", e.msg);
		keeper_dismiss(k, false, 0);
		return;
	}
	pid = fork();
	if (pid == 0)
		be_supervisor(k, &x, keeper);
	close_ends(&x, 1);
	if (pid == -1) {
		log_error("keeper: fork: %s", strerror(errno));
		close_ends(&x, 0);
		keeper_dismiss(k, false, 0);
		return;
	}
	has_supervisor(k, &x, pid, true);
	keeper_welcome(k);
}

/* ---- the keeper ---- */

static bool
must_stop(const struct keeper *k)
{
	return ledger_find(&k->entries, LEDGER_KEY(LEDGER_STOP, LEDGER_STOP_FAILED)) != NULL ||
	       ledger_find(&k->entries, LEDGER_KEY(LEDGER_STOP, LEDGER_STOP_LOADING)) != NULL;
}

/* It says nothing more: what it has begun to say is forgotten. */
static void
end_conversation(struct keeper *k)
{
	fd_close(&k->sock);
	fd_close(&k->events);
	keeper_forget_pending(k);
	k->serves = false;
}

/* It and all of its page servers are dead. */
static void
supervisor_gone(struct keeper *k)
{
	if (k->serves)
		while (keeper_hear(k))
			continue;
	end_conversation(k);
	fd_close(&k->life);
	k->gone = true;
	if (k->done || !k->launched || must_stop(k))
		return;
	keeper_reap(k);
	keeper_dismiss(k, false, 0);
	if (keeper_has_vmm(k))
		log_warn("process %d was killed; the VMM, process %d, waits for "
			 "gmem-restore --adopt %s",
		    (int)k->supervisor, (int)k->vmm, k->path);
}

/* Whether there is nothing more to be kept. */
static bool
is_over(struct keeper *k)
{
	if (k->done)
		return !k->is_child || k->reaped;
	return k->gone && (!k->launched || must_stop(k) || !keeper_has_vmm(k));
}

static void
look(struct keeper *k, const struct pollfd *polls)
{
	struct signalfd_siginfo info;

	if (polls[2].revents != 0)
		while (read(k->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
			continue;
	keeper_reap(k);
	if (k->serves && polls[0].revents != 0 && !keeper_hear(k))
		end_conversation(k);
	if (!k->gone && polls[1].revents != 0)
		supervisor_gone(k);
	keeper_place_look(k, polls + 3);
	if (k->gone && !is_over(k) && keeper_take_adopter(k))
		start_supervisor(k);
}

static void
keep(struct keeper *k)
{
	struct pollfd polls[3 + KEEPER_PLACE_POLLS];

	while (!is_over(k)) {
		/* Clients that are no children of ours tell nothing when they end. */
		int wait = k->gone ? WATCH_MS : keeper_place_wait(k);

		polls[0] = (struct pollfd){ .fd = k->sock, .events = POLLIN };
		polls[1] = (struct pollfd){ .fd = k->life };
		polls[2] = (struct pollfd){ .fd = k->signals, .events = POLLIN };
		keeper_place_polls(k, polls + 3);
		if (poll(polls, 3 + KEEPER_PLACE_POLLS, wait) != -1 || errno == EINTR)
			look(k, polls);
	}
}

static void
end_vmm(struct keeper *k)
{
	while (k->launched && keeper_has_vmm(k)) {
		keeper_kill_vmm(k);
		poll(NULL, 0, KILL_MS);
	}
}

static void
tell_end(const struct keeper *k)
{
	if (k->done || !k->launched)
		return;
	if (must_stop(k))
		log_warn("process %d was killed before the VMM could wait for another one: it "
			 "was stopped",
		    (int)k->supervisor);
	else if (WIFSIGNALED(k->status))
		log_warn("the VMM was killed by signal %d, and nobody had adopted it",
		    WTERMSIG(k->status));
	else
		log_warn("the VMM has ended with status %d, and nobody had adopted it",
		    WEXITSTATUS(k->status));
}

static void __attribute__((noreturn)) keeper_main(struct keeper *k)
{
	prctl(PR_SET_NAME, "gmem-keeper");
	/* A VMM that puts itself into the background stays ours. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	keep(k);
	tell_end(k);
	if (!k->done)
		end_vmm(k);
	listen_socket_close(&k->place);
	keeper_dismiss(k, k->done, k->supervisor_status);
	_exit(0);
}

/* ---- the start ---- */

static int
prepare(struct keeper *k, struct err *e)
{
	sigset_t set;

	k->signals = -1;
	k->place.fd = k->adopter.sock = k->adopter.out[0] = k->adopter.out[1] = -1;
	for (size_t i = 0; i < KEEPER_WAITING; i++)
		k->waiting[i] = k->adopter;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (k->signals == -1)
		return err_sys(e, "keeper");
	return keeper_open_place(k, e);
}

/* All signals are blocked in it, for ever: those of a terminal are for the others. */
static pid_t
spawn(struct keeper *k, struct ends *x)
{
	pid_t self = getpid(), pid;
	sigset_t all, old;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0) {
		close_ends(x, 1);
		has_supervisor(k, x, self, false);
		keeper_main(k);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

int
keeper_start(
    struct ledger **out, const struct options *o, keeper_supervisor *next, struct err *e)
{
	struct keeper *k = calloc(1, sizeof(*k));
	struct ledger *l = NULL;
	struct ends x;
	int rc = -1;

	if (k == NULL)
		return err_sys(e, "keeper");
	k->o = o;
	k->next = next;
	if (prepare(k, e) == -1 || make_ends(&x, e) == -1) {
		listen_socket_close(&k->place);
	} else if ((l = new_ledger(&x, e)) == NULL || spawn(k, &x) == -1) {
		if (l != NULL)
			err_sys(e, "keeper: fork");
		listen_socket_close(&k->place);
		close_ends(&x, 0);
		close_ends(&x, 1);
		free(l);
	} else {
		close_ends(&x, 0);
		*out = l;
		rc = 0;
	}
	fd_close(&k->place.fd); /* its name stays */
	fd_close(&k->signals);
	free(k);
	return rc;
}
