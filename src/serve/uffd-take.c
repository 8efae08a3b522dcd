/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/uffd-take.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "memory/inject.h"

/* What the child has to tell. */
struct taken {
	int fd; /* -1: there is none */
	struct err why;
};

/* A filter would kill it for a call that it never makes. */
static int
check_filter(pid_t pid, struct err *e)
{
	const char *line;
	char path[64], *text;
	bool filtered;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (fd_slurp(path, 65536, &text, NULL, e) == -1)
		return -1;
	line = strstr(text, "\nSeccomp:");
	filtered = line != NULL && strtol(line + strlen("\nSeccomp:"), NULL, 10) != 0;
	free(text);
	if (!filtered)
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "process %d has a seccomp filter, which may not let it create a userfaultfd",
	    (int)pid);
}

static int
take_number(pid_t pid, long number, int *fd, struct err *e)
{
	int pidfd = pidfd_open(pid, 0);

	*fd = pidfd == -1 ? -1 : pidfd_getfd(pidfd, (int)number, 0);
	if (*fd == -1)
		err_sys(e, "take descriptor %ld of process %d", number, (int)pid);
	fd_close(&pidfd);
	return *fd == -1 ? -1 : 0;
}

static int
take(struct inject *in, pid_t pid, int *fd, struct err *e)
{
	const uint64_t flags[6] = { O_CLOEXEC | O_NONBLOCK };
	uint64_t number[6] = { 0 };
	long result, closed;
	int rc;

	if (inject_call(in, SYS_userfaultfd, flags, &result, e) == -1)
		return -1;
	if (result == -EPERM)
		return err_set(e, ERR_UNSUPPORTED,
		    "process %d may not create a userfaultfd: vm.unprivileged_userfaultfd=1, "
		    "or "
		    "CAP_SYS_PTRACE for the VMM",
		    (int)pid);
	if (result < 0) {
		errno = (int)-result;
		return err_sys(e, "userfaultfd of process %d", (int)pid);
	}
	rc = take_number(pid, result, fd, e);
	number[0] = (uint64_t)result;
	if (inject_call(in, SYS_close, number, &closed, e) == -1)
		rc = -1;
	return rc;
}

/* The child's: it shares our descriptors. */
static int
take_alone(pid_t pid, int *fd, struct err *e)
{
	struct inject *in;
	sigset_t all;
	int rc;

	/* What a terminal or a service manager sends to all of us. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setsid();
	if (inject_begin(&in, pid, e) == -1)
		return -1;
	rc = take(in, pid, fd, e);
	inject_end(in);
	return rc;
}

/* fork(2), but for the descriptors. */
static pid_t
fork_beside(void)
{
	return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
}

static int
take_in_child(struct taken *shared, pid_t pid, struct err *e)
{
	pid_t child = fork_beside();
	int status;

	if (child == 0)
		_exit(take_alone(pid, &shared->fd, &shared->why) == 0 ? 0 : 1);
	if (child == -1)
		return err_sys(e, "fork");
	while (waitpid(child, &status, 0) == -1)
		if (errno != EINTR)
			return err_sys(e, "wait");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	fd_close(&shared->fd);
	if (shared->why.kind == ERR_NONE)
		return err_set(e, ERR_FAILED, "who should create a userfaultfd in it died");
	*e = shared->why;
	return -1;
}

int
uffd_take(pid_t pid, int *fd, struct err *e)
{
	struct taken *shared;
	int rc;

	if (check_filter(pid, e) == -1)
		return -1;
	shared = mmap(
	    NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return err_sys(e, "userfaultfd");
	shared->fd = -1;
	rc = take_in_child(shared, pid, e);
	*fd = shared->fd;
	munmap(shared, sizeof(*shared));
	return rc;
}
