/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * vmm-drive save DRIVER SOCKET MS [as-before|paused|running|quit [memory|commit|none [PID]]]
 * vmm-drive load DRIVER IMAGE MS COMMAND...
 *
 * For tests: what gmem-snap and gmem-restore do with a driver of src/vmm, but with a time
 * limit of MS for each answer and an image that keeps nothing, and with a step that fails.
 * Prints when memory is read and the image complete, what has become of the
 * VM, and the error; the exit status is that of the error.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "image/image.h"
#include "serve/pager.h"
#include "vmm/driver.h"

/* ---- a sink for what is saved ---- */

static int
fact(void *arg, const char *key, const char *value, struct err *e)
{
	(void)arg, (void)key, (void)value, (void)e;
	return 0;
}

static int
command(void *arg, char *const *argv, size_t argc, struct err *e)
{
	(void)arg, (void)argv, (void)argc, (void)e;
	return 0;
}

static int
nothing(void *arg, struct err *e)
{
	(void)arg, (void)e;
	return 0;
}

static void
told(void *arg)
{
	(void)arg;
}

static void
released(void *arg, enum vmm_outcome outcome, const struct err *why)
{
	static const char *const names[] = { "untouched", "runs", "paused", "ended", "let go",
		"unknown" };

	(void)arg, (void)why;
	printf("outcome: %s\n", names[outcome]);
}

static int
state_begin(void *arg, const char *name, const char *kind, struct err *e)
{
	(void)arg, (void)name, (void)kind, (void)e;
	return 0;
}

static int
state_put(void *arg, const void *buf, size_t len, struct err *e)
{
	(void)arg, (void)buf, (void)len, (void)e;
	return 0;
}

static int
region(void *arg, const struct object *o, struct memory_source *source, uint64_t offset,
    struct err *e)
{
	(void)arg, (void)o, (void)offset, (void)e;
	memory_source_free(source);
	return 0;
}

/* The step of that name, which may be the one that is to fail. */
static int
step(const char *failing, const char *name, struct err *e)
{
	printf("%s\n", name);
	if (failing != NULL && strcmp(failing, name) == 0)
		return err_set(e, ERR_FAILED, "%s: was to fail", name);
	return 0;
}

static int
memory(void *arg, struct err *e)
{
	return step(arg, "memory", e);
}

static int
commit(void *arg, struct err *e)
{
	return step(arg, "commit", e);
}

static enum vmm_leave
leave_of(const char *name)
{
	static const char *const names[] = { "as-before", "paused", "running", "quit" };
	int i = 3;

	while (i > 0 && (name == NULL || strcmp(names[i], name) != 0))
		i--;
	return (enum vmm_leave)i;
}

/* argv: after the time limit. */
static int
save(const struct vmm_driver *driver, const char *socket, int ms, char **argv, struct err *e)
{
	const struct vmm_save how = {
		.socket = socket,
		.leave = leave_of(argv[0]),
		.pid =
		    argv[0] != NULL && argv[1] != NULL && argv[2] != NULL ? atoi(argv[2]) : 0,
		.timeout_ms = ms,
		.stop_fd = eventfd(0, EFD_CLOEXEC),
	};
	const struct vmm_sink sink = {
		.arg = argv[0] != NULL ? argv[1] : NULL,
		.fact = fact,
		.command = command,
		.start = nothing,
		.paused = told,
		.releasing = told,
		.released = released,
		.state_begin = state_begin,
		.state_put = state_put,
		.state_end = nothing,
		.region = region,
		.memory = memory,
		.commit = commit,
	};

	return driver->save(&how, &sink, e);
}

/* ---- loading ---- */

static pid_t
launch(char **argv)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(argv[0], argv);
	_exit(127);
}

static int
load_into(const struct vmm_driver *driver, const struct vmm_load *how, struct err *e)
{
	struct vmm_load_times times = { 0 };
	void *session;
	pid_t pid;
	int r;

	if (driver->open(&session, how, e) == -1 || pager_start(how->server, e) == -1)
		return -1;
	pid = launch((char **)(uintptr_t)how->argv);
	r = driver->load(session, pid, &times, e);
	printf("connected %d, ready %d, loaded %d, running %d\n", times.connected != 0,
	    times.ready != 0, times.loaded != 0, times.running != 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	driver->close(session);
	return r;
}

static int
load(const struct vmm_driver *driver, const char *path, int ms, char **argv, struct err *e)
{
	const struct server_options options = { .background = BACKGROUND_OFF };
	struct vmm_load how = {
		.argv = argv,
		.timeout_ms = ms,
		.stop_fd = eventfd(0, EFD_CLOEXEC),
	};
	struct image *img;
	int r;

	if (image_open(&img, path, e) == -1)
		return -1;
	how.img = img;
	r = pager_new(&how.server, getenv("GMEM_PAGE_SERVER"), LOG_LEVEL_WARN, e);
	if (r == 0)
		r = pager_open(how.server, img, &options, e);
	if (r == 0)
		r = load_into(driver, &how, e);
	pager_free(how.server);
	image_close(img);
	return r;
}

int
main(int argc, char **argv)
{
	const struct vmm_driver *driver = argc >= 5 ? vmm_driver(argv[2]) : NULL;
	struct err e = ERR_INIT;
	int r;

	if (driver == NULL)
		return STATUS_USAGE;
	log_setup("vmm-drive", LOG_LEVEL_WARN);
	signal(SIGPIPE, SIG_IGN);
	if (strcmp(argv[1], "save") == 0)
		r = save(driver, argv[3], atoi(argv[4]), argv + 5, &e);
	else
		r = load(driver, argv[3], atoi(argv[4]), argv + 5, &e);
	if (r == 0)
		return 0;
	log_error("%s", e.msg);
	return err_status(&e);
}
