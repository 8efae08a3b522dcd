/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/* A process is made to create userfaultfds, again and again, and must not notice. */

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "serve/uffd-protect.h"
#include "serve/uffd-take.h"
#include "tap.h"

#define TIMES 200

/* What the process under test says of itself; in shared memory. */
struct victim {
	atomic_ulong turns, signals;
	atomic_int wrong; /* an errno that no call may give, or -1: a wrong number */
	atomic_bool stop;
	char *page;
};

static struct victim *victim;

static void
on_alarm(int sig)
{
	(void)sig;
	atomic_fetch_add(&victim->signals, 1);
}

static void
note(int rc)
{
	if (rc == -1 && errno != EINTR && errno != EAGAIN)
		atomic_store(&victim->wrong, errno);
}

/* Numbers in registers, and calls of every kind that a signal interrupts. */
static void
turn(unsigned i, const int *pipes)
{
	const struct timespec nap = { .tv_nsec = 200000 };
	struct pollfd p = { .fd = pipes[0], .events = POLLIN };
	uint64_t a = i, b = i * UINT64_C(3), c = i * UINT64_C(7);
	char byte = 0;

	for (int k = 0; k < 1000; k++) {
		a += 5;
		b ^= a;
		c += b ^ a;
		b ^= a;
	}
	if (a != i + UINT64_C(5000) || b != i * UINT64_C(3))
		atomic_store(&victim->wrong, -1);
	memcpy(victim->page, &c, sizeof(c));
	note(nanosleep(&nap, NULL));
	note(poll(&p, 1, 1));
	note((int)write(pipes[1], "x", 1));
	if (read(pipes[0], &byte, 1) == 1 && byte != 'x')
		atomic_store(&victim->wrong, -1);
}

static void __attribute__((noreturn)) be_victim(void)
{
	const struct itimerval often = { { 0, 15000 }, { 0, 15000 } };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	int pipes[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipe(pipes) == -1)
		_exit(1);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (unsigned i = 0; !atomic_load(&victim->stop); i++) {
		turn(i, pipes);
		atomic_fetch_add(&victim->turns, 1);
	}
	_exit(0);
}

static pid_t
start_victim(void)
{
	pid_t pid;

	atomic_store(&victim->turns, 0);
	pid = fork();
	if (pid == 0)
		be_victim();
	while (atomic_load(&victim->turns) == 0)
		usleep(1000);
	return pid;
}

static unsigned
descriptors(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir != NULL && readdir(dir) != NULL)
		n++;
	if (dir != NULL)
		closedir(dir);
	return n;
}

/* That it is one of that process: its page can be registered. */
static bool
works(int fd)
{
	struct err e = ERR_INIT;

	return uffd_protect_handshake(fd, &e) == 0 &&
	       uffd_protect_register(fd, (uintptr_t)victim->page, 4096, &e) == 0;
}

static void
test_many(pid_t pid)
{
	unsigned before = descriptors(pid), good = 0, served = 0;
	unsigned long turns = atomic_load(&victim->turns);
	struct err e = ERR_INIT;
	int fd;

	for (int i = 0; i < TIMES; i++) {
		if (uffd_take(pid, &fd, &e) == -1)
			continue;
		good++;
		served += i % 10 != 0 || works(fd);
		close(fd);
	}
	ok(good == TIMES, "taken each of %d times (%s)", TIMES, e.msg);
	ok(served == good, "it is the process's own");
	ok(descriptors(pid) == before, "nothing is left open in it");
	ok(atomic_load(&victim->wrong) == 0, "it has noticed nothing (%d)",
	    atomic_load(&victim->wrong));
	usleep(100000);
	ok(atomic_load(&victim->signals) != 0, "it had signals meanwhile");
	ok(atomic_load(&victim->turns) > turns, "it runs");
}

/* Whoever asks for it may be killed. */
static void
test_killed(pid_t pid)
{
	for (int i = 0; i < 60; i++) {
		pid_t child = fork();
		struct err e = ERR_INIT;
		int fd;

		if (child == 0)
			_exit(uffd_take(pid, &fd, &e) == 0 ? 0 : 1);
		usleep((useconds_t)(i * 50));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	usleep(300000);
	ok(atomic_load(&victim->wrong) == 0, "who asks is killed: it has noticed nothing");
	ok(waitpid(pid, NULL, WNOHANG) == 0, "and lives");
}

static void
test_stopped(pid_t pid)
{
	struct err e = ERR_INIT;
	int fd, rc;

	kill(pid, SIGSTOP);
	waitpid(pid, NULL, WUNTRACED);
	rc = uffd_take(pid, &fd, &e);
	ok(rc == 0, "one that is stopped (%s)", e.msg);
	if (rc == 0)
		close(fd);
	kill(pid, SIGCONT);
	usleep(50000);
	ok(waitpid(pid, NULL, WNOHANG) == 0, "it goes on");
}

static void
test_refused(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = { 1, &allow };
	struct err e = ERR_INIT;
	int fd = 0;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
		for (;;)
			pause();
	}
	usleep(100000);
	ok(uffd_take(pid, &fd, &e) == -1 && e.kind == ERR_UNSUPPORTED && fd == 0,
	    "one with a filter is left alone");
	ok(strstr(e.msg, "seccomp") != NULL, "the reason: %s", e.msg);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	e = (struct err)ERR_INIT;
	ok(uffd_take(pid, &fd, &e) == -1 && e.kind == ERR_SYS, "one that is gone: %s", e.msg);
}

int
main(void)
{
	struct err e = ERR_INIT;
	pid_t pid;
	int fd;

	victim = mmap(
	    NULL, sizeof(*victim), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (victim == MAP_FAILED)
		return 99;
	victim->page =
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = start_victim();
	if (uffd_take(pid, &fd, &e) == -1 && e.kind == ERR_UNSUPPORTED) {
		kill(pid, SIGKILL);
		printf("1..0 # SKIP %s\n", e.msg);
		return 0;
	}
	if (e.kind == ERR_NONE)
		close(fd);
	test_many(pid);
	test_killed(pid);
	test_stopped(pid);
	atomic_store(&victim->stop, true);
	waitpid(pid, &fd, 0);
	ok(WIFEXITED(fd) && WEXITSTATUS(fd) == 0, "it ends by itself");
	test_refused();
	return done();
}
