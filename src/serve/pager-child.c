/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "serve/pager-internal.h"

/* One process of the page server: its start, its first words, and its end. */

#define HELLO_MS 60000 /* for one that starts */
#define LAST_MS 100 /* from closing its sockets to its end */
#define END_MS 5000 /* for one that is to end */
#define BURY_MS 10000 /* for one that was killed to end */

/* ---- start ---- */

/*
 * What a terminal or a service manager sends to all of us is not for the page server: it ends
 * with its socket.  It ignores these as soon as it can; until then they are blocked.
 */
static int
spawn(const char *program, int end, pid_t *pid)
{
	char *argv[] = { (char *)(uintptr_t)program, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t all;
	int rc;

	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attr, &all);
	rc = posix_spawn_file_actions_adddup2(&actions, end, PAGER_FD);
	if (rc == 0)
		rc = posix_spawn_file_actions_addclosefrom_np(&actions, PAGER_FD + 1);
	if (rc == 0)
		rc = posix_spawn(pid, program, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return rc;
}

int
child_start(struct pager_child *c, const struct pager *p, struct err *e)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return err_sys(e, "page server: socket");
	errno = spawn(p->program, ends[1], &c->pid);
	if (errno != 0) {
		err_sys(e, "start the page server %s", p->program);
		c->pid = 0;
		close(ends[0]);
		close(ends[1]);
		return -1;
	}
	close(ends[1]);
	c->control = ends[0];
	c->pidfd = pidfd_open(c->pid, 0);
	if (c->pidfd != -1)
		return 0;
	/* Our own, and not waited for yet: the number is its. */
	err_sys(e, "page server: pidfd");
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	fd_close(&c->control);
	c->pid = 0;
	return -1;
}

/* Of a page server that should say something: its message, of just that size. */
static int
expect(const struct pager_child *c, const char *program, void *buf, size_t size, struct err *e)
{
	int fds[PAGER_FDS_MAX];
	ssize_t n = pager_receive(c->control, buf, size, fds, e);

	if (n == -1)
		return err_wrap(e, "the page server %s", program);
	pager_close_fds(fds);
	if (n == (ssize_t)size)
		return 0;
	if (n != 0)
		return err_set(e, ERR_FAILED, "the page server %s talks nonsense", program);
	err_set(e, ERR_FAILED, "the page server %s has ended at once", program);
	e->sysno = EPIPE;
	return -1;
}

int
child_await_hello(const struct pager_child *c, const char *program, int stop_fd, struct err *e)
{
	struct pollfd p[] = { { .fd = c->control, .events = POLLIN },
		{ .fd = stop_fd, .events = POLLIN } };
	struct pager_event ev;

	if (poll(p, 2, HELLO_MS) < 1 || p[0].revents == 0)
		return err_set(e, ERR_FAILED, "the page server %s says nothing", program);
	if (expect(c, program, &ev, sizeof(ev), e) == -1)
		return -1;
	if (ev.type != PAGER_HELLO)
		return err_set(e, ERR_FAILED, "the page server %s talks nonsense", program);
	if (ev.version != PAGER_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
		    "the page server %s speaks version %u, not %u", program, ev.version,
		    PAGER_VERSION);
	return 0;
}

/* ---- its work ---- */

/* The list of pages to prefetch goes as a file. */
static int
make_list(const struct prefetch_options *o, int *fd, struct err *e)
{
	*fd = memfd_create("gmem-list", MFD_CLOEXEC);
	if (*fd == -1)
		return err_sys(e, "page server: list");
	if (fd_write_full(*fd, o->list, o->nlist * sizeof(*o->list), e) == 0)
		return 0;
	fd_close(fd);
	return err_wrap(e, "page server: list");
}

static void
describe(const struct pager *p, bool resume, struct pager_open *open)
{
	const struct server_options *o = &p->options;

	*open = (struct pager_open){
		.nworkers = o->nworkers,
		.nfillers = o->nfillers,
		.background = o->background,
		.engine = o->engine,
		.record = o->record,
		.resume = resume,
		.kept = ledger_lifeline(p->ledger) != -1,
		.prefetch_kind = o->prefetch.kind,
		.on_error = o->on_error,
		.io_timeout = o->io_timeout,
		.prefetch_nthreads = o->prefetch.nthreads,
		.prefetch_io = o->prefetch.io,
		.background_rate = o->background_rate,
		.nlist = o->prefetch.nlist,
		.place_how = o->place.how,
		.place_urgency = o->place.urgency,
		.place_cpus = o->place.cpus,
		.log_level = p->level,
	};
	memcpy(open->root, p->img->root, sizeof(open->root));
	snprintf(open->path, sizeof(open->path), "%s", p->img->path);
}

static int
send_open(const struct pager_child *c, const struct pager *p, bool resume, struct err *e)
{
	const struct pager_request r = { .version = PAGER_VERSION, .type = PAGER_OPEN };
	int fds[3] = { p->img->fd, -1, -1 }, rc;
	struct pager_open open;
	unsigned n = 1;

	describe(p, resume, &open);
	if (open.nlist != 0 && make_list(&p->options.prefetch, &fds[n++], e) == -1)
		return -1;
	if (open.kept)
		fds[n++] = ledger_lifeline(p->ledger);
	rc = pager_send(c->control,
	    &(struct pager_message){ .head = &r,
		.head_len = sizeof(r),
		.tail = &open,
		.tail_len = sizeof(open),
		.fds = fds,
		.nfds = n },
	    e);
	if (open.nlist != 0)
		fd_close(&fds[1]);
	return rc == -1 ? err_wrap(e, "page server") : 0;
}

int
child_open(const struct pager_child *c, const struct pager *p, bool resume, struct err *e)
{
	unsigned s = HELLO_MS / 1000 + p->options.io_timeout;
	struct pollfd answer = { .fd = c->control, .events = POLLIN };
	struct pager_reply r;

	if (send_open(c, p, resume, e) == -1)
		return -1;
	/* Nobody watches its reads of the image yet. */
	if (p->options.io_timeout != 0 && poll(&answer, 1, (int)MIN(s, 1000000u) * 1000) == 0) {
		err_set(e, ERR_FAILED,
		    "the page server %s has not opened %s within %u s: the file system hangs",
		    p->program, p->img->path, s);
		e->sysno = ETIMEDOUT;
		return -1;
	}
	if (expect(c, p->program, &r, sizeof(r), e) == -1)
		return -1;
	if (r.type != PAGER_OPEN || r.version != PAGER_VERSION)
		return err_set(e, ERR_FAILED, "the page server %s talks nonsense", p->program);
	if (r.failed == 0)
		return 0;
	pager_error_get(e, &r.error);
	return -1;
}

/* ---- its end ---- */

enum child_life
child_look(const struct pager_child *c)
{
	struct err unused = ERR_INIT;
	char path[64], *stat;
	const char *paren;
	enum child_life life = CHILD_LIVES;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)c->pid);
	if (fd_slurp(path, 4096, &stat, NULL, &unused) == -1)
		return CHILD_LIVES; /* its pidfd tells as well */
	paren = strrchr(stat, ')');
	if (paren != NULL && paren[1] == ' ' && strchr("ZX", paren[2]) != NULL)
		life = CHILD_DIES;
	else if (paren != NULL && paren[1] == ' ' && strchr("Tt", paren[2]) != NULL)
		life = CHILD_STANDS;
	free(stat);
	return life;
}

bool
child_has_ended(const struct pager_child *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	/* Its sockets are closed a moment before. */
	return poll(&p, 1, LAST_MS) == 1;
}

void
child_kill(const struct pager_child *c)
{
	pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
}

void
child_dismiss(const struct pager_child *c)
{
	const struct pager_request bye = { .version = PAGER_VERSION, .type = PAGER_BYE };
	struct pollfd ended = { .fd = c->pidfd, .events = POLLIN };
	struct err unused = ERR_INIT;

	pager_send(c->control,
	    &(struct pager_message){ .head = &bye, .head_len = sizeof(bye), .now = true },
	    &unused);
	shutdown(c->control, SHUT_WR);
	if (poll(&ended, 1, END_MS) != 1)
		child_kill(c);
}

void
child_bury(const struct pager_child *c, const char *program, struct pager_end *end)
{
	struct pollfd ended = { .fd = c->pidfd, .events = POLLIN };
	struct rusage usage = { 0 };
	int status = 0;

	/* Killed, it may go on reading a file for ever, if the file system hangs. */
	if (poll(&ended, 1, BURY_MS) != 1) {
		err_set(&end->how, ERR_FAILED,
		    "the page server %s was killed, and does not end: its file hangs", program);
		return;
	}
	while (wait4(c->pid, &status, 0, &usage) == -1 && errno == EINTR)
		;
	end->user_us = microseconds(&usage.ru_utime);
	end->system_us = microseconds(&usage.ru_stime);
	if (WIFSIGNALED(status))
		err_set(&end->how, ERR_FAILED,
		    "the page server %s was killed by signal %d (%s)", program,
		    WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		err_set(&end->how, ERR_FAILED, "the page server %s has ended with status %d",
		    program, WEXITSTATUS(status));
}
