/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/cgroup.h"
#include "memory/pause.h"
#include "tap.h"
#include "test-memory-lib.h"

#define NTHREADS 3

/* Shared with the children: what each of their threads counts up. */
static atomic_ulong *counters;

static void *
count(void *arg)
{
	atomic_ulong *counter = arg;

	for (;;) {
		atomic_fetch_add(counter, 1);
		usleep(200);
	}
	return NULL;
}

static void
be_busy(void *arg)
{
	pthread_t thread;

	(void)arg;
	for (size_t i = 0; i < NTHREADS; i++)
		if (pthread_create(&thread, NULL, count, &counters[i]) != 0)
			errx(1, "pthread_create");
}

/* Whether every counter moves within some seconds (the machine may be busy). */
static bool
runs(void)
{
	unsigned long before[NTHREADS];
	int n = 0;

	for (size_t i = 0; i < NTHREADS; i++)
		before[i] = atomic_load(&counters[i]);
	for (int tries = 0; tries < 500 && n < NTHREADS; tries++) {
		usleep(10000);
		n = 0;
		for (size_t i = 0; i < NTHREADS; i++)
			n += atomic_load(&counters[i]) != before[i];
	}
	return n == NTHREADS;
}

/* Whether no counter moves for a while. */
static bool
stands(void)
{
	unsigned long before[NTHREADS];
	bool same = true;

	for (size_t i = 0; i < NTHREADS; i++)
		before[i] = atomic_load(&counters[i]);
	usleep(50000);
	for (size_t i = 0; i < NTHREADS; i++)
		same = same && atomic_load(&counters[i]) == before[i];
	return same;
}

static void
test_stop(void)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child c;

	child_start(&c, be_busy, NULL);
	ok(runs(), "threads run");
	ok(pause_process(&p, c.pid, PAUSE_STOP, 2000, &e) == 0, "stop: %s", e.msg);
	ok(p.method == PAUSE_STOP && !p.was_paused, "as asked");
	ok(stands(), "no thread runs");
	ok(pause_resume(&p, &e) == 0 && p.method == PAUSE_NONE && p.fd == -1, "resume");
	ok(runs(), "threads run again");
	ok(pause_resume(&p, &e) == 0, "twice does no harm");

	kill(c.pid, SIGSTOP);
	while (!stands())
		;
	ok(pause_process(&p, c.pid, PAUSE_STOP, 2000, &e) == 0 && p.was_paused,
	    "it was stopped before: %s", e.msg);
	ok(pause_resume(&p, &e) == 0 && stands(), "and stays so");
	kill(c.pid, SIGCONT);
	child_end(&c);
}

/* Somebody lets it run for a moment. */
static void
test_disturbed(void)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child c;
	int calm = 0;

	child_start(&c, be_busy, NULL);
	for (int i = 0; i < 50; i++) {
		calm += pause_process(&p, c.pid, PAUSE_STOP, 2000, &e) == 0 &&
			pause_check(&p, &e) == 0;
		pause_resume(&p, &e);
	}
	ok(calm == 50, "undisturbed %d times of 50: %s", calm, e.msg);
	ok(pause_process(&p, c.pid, PAUSE_STOP, 2000, &e) == 0, "stop: %s", e.msg);
	kill(c.pid, SIGCONT);
	ok(runs(), "somebody lets it run");
	kill(c.pid, SIGSTOP);
	while (!stands())
		;
	ok(pause_check(&p, &e) == -1 && strstr(e.msg, "somebody let") != NULL,
	    "which is noticed though it was stopped again: %s", e.msg);
	pause_resume(&p, &e);
	child_end(&c);
}

/* systemd does so to end a service. */
static void
test_ended(void)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child c;
	siginfo_t info;

	child_start(&c, be_busy, NULL);
	ok(pause_process(&p, c.pid, PAUSE_STOP, 2000, &e) == 0, "stop: %s", e.msg);
	kill(c.pid, SIGTERM);
	kill(c.pid, SIGCONT);
	waitid(P_PID, (id_t)c.pid, &info, WEXITED | WNOWAIT);
	ok(pause_check(&p, &e) == -1, "that it ended is noticed: %s", e.msg);
	pause_resume(&p, &e);
	child_end(&c);
}

/* A guardian made between prepare and enter knows enough to resume. */
static void
test_guardian(void)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child c;
	pid_t guardian;
	int hold[2];
	char byte;

	child_start(&c, be_busy, NULL);
	if (pipe(hold) == -1 || pause_prepare(&p, c.pid, PAUSE_STOP, &e) == -1)
		errx(1, "%s", e.msg);
	ok(runs(), "prepared, not yet paused");
	guardian = fork();
	if (guardian == 0) {
		close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? pause_release(&p) : 1);
	}
	close(hold[0]);
	ok(pause_enter(&p, 2000, &e) == 0 && stands(), "paused");
	close(hold[1]);
	waitpid(guardian, NULL, 0);
	ok(runs(), "the guardian let it run");
	pause_resume(&p, &e);
	child_end(&c);
}

/* A vfork parent sleeps uninterruptibly in the kernel: no signal stops it. */
static void *
be_stuck(void *arg)
{
	pid_t pid = vfork();

	(void)arg;
	if (pid == 0) {
		char *argv[] = { (char *)(uintptr_t) "sleep", NULL };

		usleep(1500000);
		execv("/nonexistent", argv);
		_exit(0);
	}
	return NULL;
}

static void
start_stuck(void *arg)
{
	pthread_t thread;

	be_busy(arg);
	pthread_create(&thread, NULL, be_stuck, NULL);
	usleep(100000);
}

static void
test_stuck(void)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child c;

	child_start(&c, start_stuck, NULL);
	ok(pause_process(&p, c.pid, PAUSE_STOP, 100, &e) == -1 && e.kind == ERR_FAILED &&
		strstr(e.msg, "100 ms") != NULL,
	    "time limit: %s", e.msg);
	ok(runs(), "after which it runs again");
	child_end(&c);
}

static void
test_refusals(void)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child c;

	ok(pause_process(&p, getpid(), PAUSE_STOP, 100, &e) == -1, "ourselves: %s", e.msg);
	ok(pause_process(&p, 4194305, PAUSE_STOP, 100, &e) == -1, "nobody: %s", e.msg);
	child_start(&c, be_busy, NULL);
	ok(pause_process(&p, c.pid, PAUSE_FREEZER, 100, &e) == -1 && p.fd == -1 &&
		p.events == -1,
	    "our own cgroup: %s", e.msg);
	ok(runs(), "it runs");
	ok(pause_process(&p, c.pid, PAUSE_NONE, 100, &e) == 0 && runs() &&
		pause_resume(&p, &e) == 0,
	    "none does nothing");
	if (pause_process(&p, c.pid, PAUSE_AUTO, 1000, &e) == -1)
		errx(1, "%s", e.msg);
	ok(p.method == PAUSE_STOP && stands(), "auto stops what shares our cgroup");
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	ok(pause_resume(&p, &e) == 0, "that it ended is no error");
	close(c.control);
}

/* Moves a process into the folder of a cgroup. */
static bool
move(const char *dir, pid_t pid)
{
	char path[PATH_MAX + 32], text[16];
	bool good;
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	snprintf(text, sizeof(text), "%d", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	good = fd != -1 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

/* A process of the cgroup itself must not freeze it. */
static int
pause_from_inside(const char *dir, pid_t pid)
{
	struct pause p = PAUSE_INIT;
	struct err e = ERR_INIT;
	int status;
	pid_t us;

	us = fork();
	if (us == 0) {
		if (!move(dir, getpid()) ||
		    pause_process(&p, pid, PAUSE_FREEZER, 100, &e) != -1 ||
		    strstr(e.msg, "in it too") == NULL)
			_exit(1);
		if (pause_process(&p, pid, PAUSE_AUTO, 1000, &e) == -1 ||
		    p.method != PAUSE_STOP)
			_exit(2);
		_exit(pause_resume(&p, &e) == -1 ? 3 : 0);
	}
	waitpid(us, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool
freeze(const char *dir, const char *how)
{
	char path[PATH_MAX + 64];
	int fd;
	bool good;

	snprintf(path, sizeof(path), "%s/cgroup.freeze", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	good = fd != -1 && write(fd, how, 1) == 1;
	if (fd != -1)
		close(fd);
	return good;
}

static void
test_freezer_in(const char *dir, const char *parent, const struct child *c)
{
	struct pause p = PAUSE_INIT, outer = PAUSE_INIT;
	struct err e = ERR_INIT;
	struct child other;

	ok(pause_process(&p, c->pid, PAUSE_FREEZER, 2000, &e) == 0, "freezer: %s", e.msg);
	ok(p.method == PAUSE_FREEZER && stands(), "no thread runs");
	ok(pause_process(&outer, c->pid, PAUSE_FREEZER, 2000, &e) == -1 &&
		strstr(e.msg, "another gmem-snap") != NULL,
	    "not twice");
	ok(pause_resume(&p, &e) == 0 && runs(), "resume");
	ok(freeze(dir, "1") && stands(), "somebody freezes it");
	ok(pause_process(&outer, c->pid, PAUSE_FREEZER, 2000, &e) == 0 && outer.was_paused,
	    "it was frozen before");
	ok(pause_resume(&outer, &e) == 0 && stands(), "and stays so");
	ok(freeze(dir, "0") && runs(), "until it is thawed");

	ok(pause_process(&p, c->pid, PAUSE_AUTO, 2000, &e) == 0 && p.method == PAUSE_FREEZER,
	    "auto freezes who is alone");
	ok(stands() && pause_release(&p) == 0 && runs(), "release");
	pause_resume(&p, &e);

	child_start(&other, be_busy, NULL);
	ok(move(dir, other.pid) && pause_process(&p, c->pid, PAUSE_AUTO, 2000, &e) == 0 &&
		p.method == PAUSE_STOP,
	    "auto stops who is not alone");
	ok(runs(), "the other one runs");
	pause_resume(&p, &e);
	child_end(&other);

	ok(pause_process(&p, c->pid, PAUSE_FREEZER, 2000, &e) == 0 && pause_check(&p, &e) == 0,
	    "nobody lets it run");
	usleep(20000); /* the kernel tells of changes so often */
	ok(freeze(dir, "0") && runs() && freeze(dir, "1") && stands(), "somebody does");
	ok(pause_check(&p, &e) == -1, "which is noticed though it is frozen again: %s", e.msg);
	pause_resume(&p, &e);
	ok(pause_process(&p, c->pid, PAUSE_FREEZER, 2000, &e) == 0 && move(parent, c->pid) &&
		runs(),
	    "somebody moves it out");
	ok(pause_check(&p, &e) == -1 && strstr(e.msg, "moved out") != NULL,
	    "which is noticed: %s", e.msg);
	pause_resume(&p, &e);
	if (!move(dir, c->pid))
		errx(1, "it cannot be moved back");

	ok(pause_from_inside(dir, c->pid) == 0, "not from inside");
	ok(runs(), "it runs");
}

static void
test_freezer(void)
{
	char dir[PATH_MAX + 32];
	struct err e = ERR_INIT;
	struct cgroup cg;
	struct child c;

	if (cgroup_find(getpid(), &cg, &e) == -1) {
		skip(19, "%s", e.msg);
		return;
	}
	snprintf(dir, sizeof(dir), "%s/gmem-test.%d", cg.dir, (int)getpid());
	if (mkdir(dir, 0755) == -1) {
		skip(19, "no cgroup can be made below %.200s", cg.dir);
		return;
	}
	child_start(&c, be_busy, NULL);
	if (move(dir, c.pid))
		test_freezer_in(dir, cg.dir, &c);
	else
		skip(19, "no process can be moved into a cgroup");
	child_end(&c);
	for (int i = 0; rmdir(dir) == -1 && i < 50; i++)
		usleep(20000);
}

static void
test_names(void)
{
	struct err e = ERR_INIT;
	enum pause_method m, back;
	bool good = true;

	for (m = PAUSE_NONE; m <= PAUSE_STOP; m++)
		good = good && pause_method_parse(pause_method_name(m), &back, &e) == 0 &&
		       back == m;
	ok(good, "names of methods");
	ok(pause_method_parse("kill", &back, &e) == -1 && e.kind == ERR_USAGE, "%s", e.msg);
}

int
main(void)
{
	counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counters == MAP_FAILED)
		err(1, "mmap");
	test_names();
	test_stop();
	test_disturbed();
	test_ended();
	test_guardian();
	test_stuck();
	test_refusals();
	test_freezer();
	return done();
}
