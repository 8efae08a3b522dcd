/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cores.h"
#include "base/fdio.h"
#include "gmem-handoff.h"

/* The environment with our two variables; the strings are borrowed or in text[]. */
struct environment {
	char **list;
	char *text[2];
};

static void
environment_fini(struct environment *env)
{
	free(env->list);
	free(env->text[0]);
	free(env->text[1]);
}

static int
starts_with(const char *entry, const char *name)
{
	size_t len = strlen(name);

	return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

static int
environment_init(struct environment *env, const struct launch *l, struct err *e)
{
	const char *preload = getenv("LD_PRELOAD");
	size_t n = 0, count = 0;

	*env = (struct environment){ 0 };
	while (environ[count] != NULL)
		count++;
	env->list = calloc(count + 3, sizeof(*env->list));
	if (env->list == NULL)
		return err_sys(e, "environment");
	for (size_t i = 0; i < count; i++)
		if (!(l->shim != NULL && starts_with(environ[i], "LD_PRELOAD")) &&
		    !starts_with(environ[i], GMEM_HANDOFF_ENV))
			env->list[n++] = environ[i];
	if ((l->shim != NULL &&
		asprintf(&env->text[0], "LD_PRELOAD=%s%s%s", l->shim,
		    preload != NULL ? ":" : "", preload != NULL ? preload : "") == -1) ||
	    (l->handoff != NULL &&
		asprintf(&env->text[1], "%s=%s", GMEM_HANDOFF_ENV, l->handoff) == -1)) {
		err_sys(e, "environment");
		environment_fini(env);
		return -1;
	}
	for (size_t i = 0; i < 2; i++)
		if (env->text[i] != NULL)
			env->list[n++] = env->text[i];
	return 0;
}

/* Out of the way of the numbers that the VMM's descriptors get. */
static int
move_away(const struct launch *l, int fd)
{
	int least = 0;

	for (size_t i = 0; i < l->nkeep; i++)
		if (l->keep[i] >= least)
			least = l->keep[i] + 1;
	return fcntl(fd, F_DUPFD_CLOEXEC, least);
}

/* In the child: those of l->from get their numbers: 0, or errno. */
static int
place_descriptors(const struct launch *l, int *report)
{
	if (l->from == NULL)
		return 0;
	*report = move_away(l, *report);
	for (size_t i = 0; i < l->nkeep; i++)
		l->from[i] = move_away(l, l->from[i]);
	for (size_t i = 0; i < l->nkeep; i++)
		if (l->from[i] == -1 || dup2(l->from[i], l->keep[i]) == -1)
			return errno;
	return *report == -1 ? errno : 0;
}

/* In the child: only calls that are safe between fork and exec. */
static void __attribute__((noreturn))
become(const struct launch *l, char *const *envp, pid_t parent, int report)
{
	sigset_t none;
	int error = 0;

	/* Handlers end with exec; what we were told to ignore (nohup) the VMM ignores too. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1)
		error = errno;
	if (getppid() != parent)
		_exit(LAUNCH_CANNOT_RUN);
	if (error == 0)
		error = place_descriptors(l, &report);
	for (size_t i = 0; i < l->nkeep && error == 0; i++)
		if (fcntl(l->keep[i], F_SETFD, 0) == -1)
			error = errno;
	cores_allow();
	if (error == 0) {
		execvpe(l->argv[0], l->argv, envp);
		error = errno;
	}
	if (write(report, &error, sizeof(error)) == -1)
		_exit(LAUNCH_CANNOT_RUN);
	_exit(error == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_CANNOT_RUN);
}

/* Waits until the child has become the VMM, or tells why not. */
static int
await_exec(const struct launch *l, pid_t pid, int report, int *status, struct err *e)
{
	int error, ended;

	if (fd_read(report, &error, sizeof(error), e) != sizeof(error))
		return 0;
	waitpid(pid, &ended, 0);
	*status = error == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_CANNOT_RUN;
	errno = error;
	return err_sys(e, "start %s", l->argv[0]);
}

int
launch_start(const struct launch *l, pid_t *pid, int *status, struct err *e)
{
	struct environment env;
	pid_t self = getpid();
	int report[2], rc;

	*status = LAUNCH_CANNOT_RUN;
	if (environment_init(&env, l, e) == -1)
		return -1;
	if (pipe2(report, O_CLOEXEC) == -1) {
		environment_fini(&env);
		return err_sys(e, "start %s", l->argv[0]);
	}
	*pid = fork();
	if (*pid == 0)
		become(l, env.list, self, report[1]);
	close(report[1]);
	rc = *pid == -1 ? err_sys(e, "start %s", l->argv[0])
			: await_exec(l, *pid, report[0], status, e);
	close(report[0]);
	environment_fini(&env);
	return rc;
}
