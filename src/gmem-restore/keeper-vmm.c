/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "gmem-restore/keeper-internal.h"

/* The VMM's processes: children of the keeper, what they have left to it, and clients. */

#define WORDS_MAX ((size_t)16 << 20) /* bytes; execve(2) takes less */

/* ---- start ---- */

/* NUL-terminated strings, one after the other: the hand-off, the shim, the arguments. */
static char **
split(char *text, size_t len, struct err *e)
{
	size_t n = 0, at = 0;
	char **list;

	for (size_t i = 0; i < len; i++)
		n += text[i] == '\0';
	list = calloc(n + 1, sizeof(*list));
	if (list == NULL || n < 3) {
		err_set(e, ERR_FAILED, "keeper: nothing to run");
		free(list);
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		list[i] = text + at;
		at += strlen(text + at) + 1;
	}
	return list;
}

static int
launch(struct keeper *k, char *const *words, pid_t *pid, int *status, struct err *e)
{
	struct ledger_message *m = &k->message;
	struct ledger_launch what = { 0 };
	struct launch l = {
		.handoff = words[0][0] != '\0' ? words[0] : NULL,
		.shim = words[1][0] != '\0' ? words[1] : NULL,
		.argv = words + 2,
		.keep = what.keep,
		.from = m->fds + 1,
	};

	memcpy(&what, m->data, sizeof(what));
	l.nkeep = what.nkeep;
	if (l.nkeep + 1 != m->nfds)
		return err_set(e, ERR_FAILED, "keeper: %u descriptors for the VMM", m->nfds);
	return launch_start(&l, pid, status, e);
}

/* The VMM has what we were started with; we need none of it any more, but the log. */
static void
leave_terminal(void)
{
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	fd_sanitize_std();
}

void
keeper_do_launch(struct keeper *k, struct ledger_answer *a, int *pidfd)
{
	struct err e = ERR_INIT;
	char *text = NULL, **words = NULL;
	int status = LAUNCH_CANNOT_RUN;
	size_t len = 0;
	pid_t pid = 0;
	int rc = -1;

	if (k->message.nfds == 0)
		err_set(&e, ERR_FAILED, "keeper: nothing to run");
	else if (lseek(k->message.fds[0], 0, SEEK_SET) == -1)
		err_sys(&e, "keeper: arguments");
	else
		rc = fd_slurp_fd(k->message.fds[0], WORDS_MAX, &text, &len, &e);
	if (rc == 1)
		rc = err_set(&e, ERR_FAILED, "too many arguments");
	words = rc == 0 ? split(text, len, &e) : NULL;
	rc = words == NULL ? -1 : launch(k, words, &pid, &status, &e);
	free(words);
	free(text);
	a->status = status;
	if (rc == -1) {
		ledger_answer_set(a, &e);
		return;
	}
	k->launched = true;
	k->vmm = a->pid = pid;
	*pidfd = pidfd_open(pid, 0);
	leave_terminal();
}

/* ---- end ---- */

/* The supervisor, and its page servers, which come to us when it dies. */
static bool
is_supervisors(const struct keeper *k, pid_t pid)
{
	return k->is_child && (pid == k->supervisor || getsid(pid) == k->supervisor);
}

static void
note(struct keeper *k, pid_t pid, int status)
{
	if (pid == k->vmm) {
		k->vmm = 0;
		k->status = status;
	} else if (k->vmm == 0) {
		/* The VMM proper, after it had gone into the background. */
		k->status = status;
	}
}

void
keeper_reap(struct keeper *k)
{
	siginfo_t info = { 0 };
	bool any = false;
	char byte = 0;
	int status;

	/* Of a supervisor somebody else wants to know how it has ended. */
	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
		pid_t pid = info.si_pid;
		bool ours = is_supervisors(k, pid);

		if (waitpid(pid, &status, 0) != pid)
			break;
		any = true;
		if (pid == k->supervisor && k->is_child) {
			k->reaped = true;
			k->supervisor_status = status;
		} else if (!ours) {
			note(k, pid, status);
		}
		info.si_pid = 0;
	}
	/* What is not read yet tells the same. */
	if (any && send(k->events, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == -1)
		return;
}

/* Calls kill(2), or only counts (signal 0), for each child that is the VMM's. */
static unsigned
each_child(struct keeper *k, int signal)
{
	unsigned n = 0;
	char path[64];
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	if (f == NULL)
		return k->vmm != 0 && kill(k->vmm, signal) == 0;
	while (fscanf(f, "%d", &pid) == 1)
		if (!is_supervisors(k, pid)) {
			kill(pid, signal);
			n++;
		}
	fclose(f);
	return n;
}

static bool
lives(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return pidfd != -1 && poll(&p, 1, 0) == 0;
}

bool
keeper_has_children(struct keeper *k)
{
	return each_child(k, 0) != 0;
}

bool
keeper_has_vmm(struct keeper *k)
{
	if (keeper_has_children(k))
		return true;
	for (size_t i = 0; i < k->entries.n; i++)
		if (k->entries.list[i].key >> 16 == LEDGER_CLIENT &&
		    lives(k->entries.list[i].fds[2]))
			return true;
	return false;
}

void
keeper_kill_vmm(struct keeper *k)
{
	for (size_t i = 0; i < k->entries.n; i++)
		if (k->entries.list[i].key >> 16 == LEDGER_CLIENT &&
		    k->entries.list[i].fds[2] != -1)
			pidfd_send_signal(k->entries.list[i].fds[2], SIGKILL, NULL, 0);
	each_child(k, SIGKILL);
	keeper_reap(k);
}
