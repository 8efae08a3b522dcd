/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "gmem-restore/restore-internal.h"

/* While the VMM runs: waits for its end, and for whatever is a reason to end it. */

/* How often to look for mappings that nobody serves: less and less, it reads all of /proc. */
#define CHECK_MS 1000
#define CHECK_MS_MAX 60000
#define LAST_MS 5000 /* for a VMM that has hung up to end */

/* Without its keeper the VMM is killed by the kernel. */
static void
lose_keeper(struct restore *r)
{
	struct pollfd p = { .fd = r->pidfd, .events = POLLIN };

	r->keeper_lost = true;
	r->children = false;
	if (r->child != 0 && poll(&p, 1, 0) == 0)
		return;
	r->child = 0;
	r->status = SIGKILL;
}

/* The same of the keeper's children. */
static void
look_at_vmm(struct restore *r)
{
	struct err unused = ERR_INIT;
	struct keeper_vmm vmm;

	if (r->keeper_lost || keeper_look(r->ledger, &vmm, &unused) == -1) {
		lose_keeper(r);
		return;
	}
	r->child = vmm.pid;
	r->status = vmm.status;
	r->children = vmm.children;
}

/* Reaps every child that has ended; those of the VMM come to us when it leaves them. */
static void
reap(struct restore *r)
{
	int status;
	pid_t pid;

	if (r->ledger != NULL) {
		look_at_vmm(r);
		return;
	}
	/* Those of this thread: the page server is another's. */
	while ((pid = waitpid(-1, &status, WNOHANG | __WNOTHREAD)) > 0) {
		if (pid == r->child) {
			r->child = 0;
			r->status = status;
		} else if (r->child == 0) {
			/* The VMM proper, after it had gone into the background. */
			r->status = status;
		}
	}
}

/* Children of ours, or those of the VMM that it has left to us. */
static bool
has_children(const struct restore *r)
{
	siginfo_t info;

	if (r->ledger != NULL)
		return r->children;
	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WNOTHREAD) == 0;
}

/* Those that have guest memory, whoever started them; at most max, their number. */
static size_t
processes(const struct restore *r, pid_t *pids, size_t max)
{
	if (r->handoff != NULL)
		return handoff_processes(r->handoff, pids, max);
	return driven_processes(&r->driven, pids, max);
}

/*
 * Whether the VMM has ended, and all that it has left behind with guest memory,
 * or that may still be on its way to it.
 */
static bool
is_over(struct restore *r)
{
	pid_t pids[64];
	size_t n;

	if (r->child != 0)
		return false;
	if (restore_serves(r) && !restore_has_memory(r) && has_children(r))
		return false;
	n = processes(r, pids, 64);
	for (size_t i = 0; i < n; i++)
		if (kill(pids[i], 0) == 0)
			return false;
	return true;
}

/* Of somebody else's child the number may be another's by now. */
static void
signal_vmm(const struct restore *r, int sig)
{
	if (r->ledger == NULL)
		kill(r->child, sig);
	else if (r->pidfd != -1)
		pidfd_send_signal(r->pidfd, sig, NULL, 0);
}

/* Passes a signal on, unless the terminal has sent it to the VMM as well. */
static void
pass_on(struct restore *r, const struct signalfd_siginfo *info)
{
	pid_t pids[1];

	if (info->ssi_code > 0)
		return;
	if (r->child != 0)
		signal_vmm(r, (int)info->ssi_signo);
	else if (processes(r, pids, 1) == 1)
		kill(pids[0], (int)info->ssi_signo);
}

static void
handle_signals(struct restore *r)
{
	struct signalfd_siginfo info;

	while (read(r->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(r);
		else if (info.ssi_signo == SIGUSR1)
			restore_write_report(r, false);
		else if (info.ssi_signo == SIGUSR2 && record_signal(&r->recording))
			continue;
		else if (info.ssi_signo == SIGHUP && info.ssi_code <= 0)
			pager_replace(r->server); /* of the terminal the VMM hears itself */
		else
			pass_on(r, &info);
	}
}

static int
handle_server(struct restore *r, struct err *e)
{
	uint64_t count;

	if (read(pager_event_fd(r->server), &count, sizeof(count)) == -1 && errno != EAGAIN)
		return err_sys(e, "eventfd");
	switch (pager_state(r->server, e)) {
	case SERVER_FAILED:
		return -1;
	case SERVER_COMPLETE:
		if (r->served)
			log_info("all memory is there");
		r->served = false;
		break;
	case SERVER_FILLING:
		break;
	}
	return 0;
}

static int
handle_loader(struct restore *r, struct err *e)
{
	struct err why;
	int rc = loader_result(r->loader, &why);

	r->loading = false;
	/*
	 * A VMM that is about to end tells more by its own message and status, unless that
	 * is 0; its sockets are closed a moment before.
	 */
	if (rc == -1 && r->child != 0) {
		struct pollfd p = { .fd = r->pidfd, .events = POLLIN };

		poll(&p, 1, LAST_MS);
		reap(r);
	}
	if (rc == 0)
		return restore_note_loaded(r, e);
	if (r->status != 0 && is_over(r))
		return 0;
	*e = why;
	return -1;
}

/* Milliseconds for the VMM to hand over its memory; -1: it has, or may take its time. */
static int
patience(const struct restore *r)
{
	uint64_t limit = r->o->handoff_timeout * UINT64_C(1000000000);
	uint64_t since = r->handoff != NULL ? handoff_last_memory(r->handoff) : 0, waited;

	/* Drivers have limits of their own. */
	if (limit == 0 || r->driven.driver != NULL || pager_has_memory(r->server))
		return -1;
	if (since == UINT64_MAX) /* it is being filled: ask again */
		return CHECK_MS;
	waited = serve_now() - MAX(since, r->times.launched);
	return waited < limit ? (int)((limit - waited) / 1000000) + 1 : 0;
}

static int
check_patience(const struct restore *r, struct err *e)
{
	if (patience(r) != 0)
		return 0;
	return err_set(e, ERR_FAILED,
	    "%s has not handed over its memory within %u s (--handoff-timeout): one that does "
	    "not speak the hand-off, gmem-handoff(7), needs {mem} among its arguments",
	    r->guest.argv[0], r->o->handoff_timeout);
}

/* How long to wait for events, ms; -1: for ever. */
static int
poll_time(const struct restore *r, int check_ms)
{
	int wait = r->child == 0 ? CHECK_MS : r->served ? check_ms : -1;
	int left = patience(r), look = record_timeout(&r->recording);

	if (look != -1)
		wait = wait == -1 ? look : MIN(wait, look);
	return left != -1 && (wait == -1 || left < wait) ? left : wait;
}

/* A trace that can't be written is no reason to stop the VM. */
static void
look_at_recording(struct restore *r)
{
	struct err e = ERR_INIT;
	bool runs = !r->loading && restore_has_memory(r);

	if (record_look(&r->recording, r->server, runs, &e) == -1) {
		log_error("%s", e.msg);
		r->file_failed = true;
	}
}

/* Waits until the VMM is over (0), or something has gone wrong (-1). */
int
restore_supervise(struct restore *r, struct err *e)
{
	uint64_t checked = serve_now();
	int check_ms = CHECK_MS;

	while (!is_over(r)) {
		struct pollfd polls[] = {
			{ .fd = r->signals, .events = POLLIN },
			{ .fd = restore_serves(r) ? pager_event_fd(r->server) : -1,
			    .events = POLLIN },
			{ .fd = r->loading ? loader_event_fd(r->loader) : -1,
			    .events = POLLIN },
			{ .fd = keeper_event_fd(r->ledger), .events = POLLIN },
		};
		int n;

		prefetching_look(&r->prefetching, r->server);
		n = poll(polls, 4, poll_time(r, check_ms));
		if (n == -1 && errno != EINTR)
			return err_sys(e, "poll");
		handle_signals(r);
		if (polls[3].revents != 0)
			reap(r);
		if (r->keeper_lost)
			return err_set(e, ERR_FAILED, "the keeper was killed");
		look_at_recording(r);
		if (polls[1].revents != 0 && handle_server(r, e) == -1)
			return -1;
		if (polls[2].revents != 0 && handle_loader(r, e) == -1)
			return -1;
		if (check_patience(r, e) == -1)
			return -1;
		if (r->served && serve_now() - checked >= check_ms * UINT64_C(1000000)) {
			if (r->handoff != NULL && handoff_check(r->handoff, e) == -1)
				return -1;
			check_ms = MIN(2 * check_ms, CHECK_MS_MAX);
			checked = serve_now();
		}
	}
	/* The hand-off may have seen the end of a VMM in the background before us. */
	reap(r);
	/* A VMM that was refused may end before we are told why. */
	return pager_state(r->server, e) == SERVER_FAILED ? -1 : 0;
}

/* ---- its end ---- */

/* Those of our children become ours when these die. */
static void
kill_children(const struct restore *r)
{
	char path[64];
	FILE *f;
	int pid;

	if (r->ledger != NULL) {
		keeper_kill(r->ledger);
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	if (f == NULL)
		return;
	while (fscanf(f, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	fclose(f);
}

/* One that was not started by us may have it, behind a jailer. */
static void
kill_driven(const struct restore *r)
{
	pid_t pids[64];
	size_t n = driven_processes(&r->driven, pids, 64);

	for (size_t i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
}

/* Whoever may have the memory, handed over or not, is the VMM or was started by it. */
void
restore_kill(struct restore *r)
{
	while (!is_over(r) || has_children(r)) {
		if (r->handoff != NULL)
			handoff_kill(r->handoff);
		kill_driven(r);
		if (r->child != 0)
			signal_vmm(r, SIGKILL);
		kill_children(r);
		poll(NULL, 0, 10);
		reap(r);
	}
}
