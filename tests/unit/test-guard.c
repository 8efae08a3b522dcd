/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * The guardian resumes when its parent dies, however it dies, and else never.
 * Each case runs in a parent of its own, a child of this test; what the guardian
 * did is told through shared memory.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"
#include "vmm/guard.h"

struct told {
	atomic_int ready; /* the parent has its guardian */
	atomic_int resumed; /* how often */
	atomic_int fds; /* kept one is open: 1; other ones are closed: 2 */
	atomic_int session; /* of the guardian */
	int kept, others[2];
};

static struct told *told;

static void
nap(void)
{
	struct timespec t = { .tv_nsec = 5000000 };

	nanosleep(&t, NULL);
}

/* Up to 5 s. */
static bool
becomes(atomic_int *value, int wanted)
{
	for (int i = 0; i < 1000 && atomic_load(value) != wanted; i++)
		nap();
	return atomic_load(value) == wanted;
}

static int
resume(void *arg)
{
	struct told *t = arg;
	bool closed = true;

	for (int i = 0; i < 2; i++)
		closed = closed && fcntl(t->others[i], F_GETFD) == -1 && errno == EBADF;
	atomic_store(&t->session, (int)getsid(0));
	atomic_store(&t->fds, (fcntl(t->kept, F_GETFD) != -1 ? 1 : 0) | (closed ? 2 : 0));
	atomic_fetch_add(&t->resumed, 1);
	return 0;
}

static struct guard *
start(void)
{
	struct err e = ERR_INIT;
	struct guard *g = NULL;

	if (guard_start(&g, resume, told, &told->kept, 1, &e) == -1) {
		printf("# %s\n", e.msg);
		_exit(1);
	}
	atomic_store(&told->ready, 1);
	return g;
}

/* A parent that does something; its pid. */
static pid_t
parent(void (*act)(void))
{
	pid_t pid;

	memset(told, 0, sizeof(*told));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int ends[2];

		told->kept = open("/dev/null", O_RDONLY);
		if (pipe(ends) == -1)
			_exit(1);
		memcpy(told->others, ends, sizeof(ends));
		act();
		_exit(0);
	}
	return pid;
}

/* The child of a process, 0 if it has none. */
static pid_t
child_of(pid_t pid)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return -1;
	if (fscanf(f, "%d", &child) != 1)
		child = 0;
	fclose(f);
	return child;
}

static void
act_wait(void)
{
	start();
	for (;;)
		pause();
}

/* As timeout(1) does, and shells. */
static void
act_kill_group(void)
{
	setpgid(0, 0);
	start();
	kill(0, SIGKILL);
}

static void
act_exit(void)
{
	start();
}

static void
act_stop(void)
{
	struct guard *g = start();

	guard_stop(g);
	/* It was reaped: no child is left. */
	if (waitpid(-1, NULL, 0) != -1 || errno != ECHILD)
		_exit(1);
}

/* A second child holds copies of all descriptors, and outlives the parent. */
static void
act_leak(void)
{
	start();
	if (fork() == 0) {
		for (int i = 0; i < 4; i++)
			becomes(&told->resumed, 1);
		_exit(0);
	}
	for (;;)
		pause();
}

static void
test_kill(void)
{
	pid_t pid = parent(act_wait);

	ok(becomes(&told->ready, 1), "a guardian");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ok(becomes(&told->resumed, 1), "resumes when the parent is killed");
	ok(atomic_load(&told->fds) == 3, "keeps the descriptors it was told, and no others");
	ok(atomic_load(&told->session) != getsid(0), "has its own session");
}

static void
test_group(void)
{
	int n = 0;

	for (bool resumed = true; resumed && n < 200; n += resumed) {
		waitpid(parent(act_kill_group), NULL, 0);
		resumed = becomes(&told->resumed, 1);
	}
	ok(n == 200, "resumes when the process group is killed at once (%d of 200 times)", n);
}

static void
test_exit(void)
{
	pid_t pid = parent(act_exit);

	waitpid(pid, NULL, 0);
	ok(becomes(&told->resumed, 1), "resumes when the parent exits without guard_stop");
}

static void
test_stop(void)
{
	pid_t pid = parent(act_stop);
	int status = -1;

	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "guard_stop reaps it");
	for (int i = 0; i < 20; i++)
		nap();
	ok(atomic_load(&told->resumed) == 0, "guard_stop: it does not resume");
	guard_stop(NULL);
}

static void
test_leak(void)
{
	pid_t pid = parent(act_leak);

	becomes(&told->ready, 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ok(becomes(&told->resumed, 1), "resumes though another child holds our descriptors");
}

static void
test_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE,
		SIGUSR1, SIGALRM };
	pid_t pid = parent(act_wait), guardian = -1;

	becomes(&told->ready, 1);
	guardian = child_of(pid);
	if (guardian <= 0) {
		skip(1, "the kernel does not list children");
	} else {
		for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
			kill(guardian, signals[i]);
		nap();
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (guardian > 0)
		ok(becomes(&told->resumed, 1), "other signals do not drive it away");
}

int
main(void)
{
	told = mmap(
	    NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED)
		abort();
	/* So that the guardians whose parent died are ours, not left to a container's init. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	test_kill();
	test_group();
	test_exit();
	test_stop();
	test_leak();
	test_signals();
	return done();
}
