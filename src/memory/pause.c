/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/pause.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "memory/cgroup.h"
#include "memory/threads.h"

static const char *const names[] = {
	[PAUSE_NONE] = "none",
	[PAUSE_AUTO] = "auto",
	[PAUSE_FREEZER] = "freezer",
	[PAUSE_STOP] = "stop",
};

#define RELEASE_TRIES 5
#define RELEASE_NAP_MS 10
#define NMETHODS (sizeof(names) / sizeof(names[0]))

const char *
pause_method_name(enum pause_method method)
{
	return (size_t)method < NMETHODS ? names[method] : "unknown";
}

int
pause_method_parse(const char *name, enum pause_method *method, struct err *e)
{
	for (size_t i = 0; i < NMETHODS; i++) {
		if (strcmp(name, names[i]) == 0) {
			*method = (enum pause_method)i;
			return 0;
		}
	}
	return err_set(e, ERR_USAGE, "no way to pause is called '%s'", name);
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Reads a small file from its start into buf, NUL-terminated; false on failure. */
static bool
read_small(int fd, char *buf, size_t room)
{
	ssize_t n = pread(fd, buf, room - 1, 0);

	if (n < 0)
		return false;
	buf[n] = '\0';
	return true;
}

static int
gone(pid_t pid, struct err *e)
{
	return err_set(e, ERR_FAILED, "process %d has ended", (int)pid);
}

static int
prepare_stop(struct pause *p, struct err *e)
{
	struct threads count;

	p->fd = pidfd_open(p->pid, 0);
	if (p->fd == -1)
		return err_sys(e, "process %d", (int)p->pid);
	if (threads_count(p->pid, &count, e) == -1)
		return -1;
	if (count.stopped + count.traced + count.running == 0)
		return gone(p->pid, e);
	p->was_paused = count.traced + count.running == 0;
	if (pidfd_send_signal(p->fd, 0, NULL, 0) == -1)
		return err_sys(e,
		    "process %d cannot be stopped: run as its user or as root (CAP_KILL)",
		    (int)p->pid);
	p->method = PAUSE_STOP;
	return 0;
}

static int
open_freezer(struct pause *p, const struct cgroup *cg, struct err *e)
{
	char text[16];

	p->fd = cgroup_open_file(cg, "cgroup.freeze", O_RDWR);
	if (p->fd == -1 && errno == ENOENT)
		return err_set(e, ERR_FAILED,
		    "process %d is in the root cgroup, which cannot be frozen: use --pause "
		    "stop",
		    (int)p->pid);
	if (p->fd == -1)
		return err_sys(e, "freezer of cgroup %.200s (use --pause stop?)", cg->path);
	p->events = cgroup_open_file(cg, "cgroup.events", O_RDONLY);
	if (p->events == -1 || !read_small(p->fd, text, sizeof(text)))
		return err_sys(e, "freezer of cgroup %.200s", cg->path);
	p->was_paused = text[0] == '1';
	return 0;
}

static int
prepare_freezer(struct pause *p, const struct cgroup *cg, struct err *e)
{
	if (open_freezer(p, cg, e) == -1)
		return -1;
	if (cgroup_has_us(cg))
		return err_set(e, ERR_FAILED,
		    "cgroup %.200s cannot be frozen: this command is in it too; use --pause "
		    "stop",
		    cg->path);
	p->method = PAUSE_FREEZER;
	return 0;
}

static void
clear(struct pause *p)
{
	fd_close(&p->fd);
	fd_close(&p->events);
	fd_close(&p->lock);
	*p = (struct pause)PAUSE_INIT;
}

/*
 * The folder in /proc stays the same one as long as somebody has it open.  Who can't lock it
 * at all goes on: only "somebody else has it" is an answer.
 */
static int
lock(struct pause *p, struct err *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", (int)p->pid);
	p->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->lock == -1 && errno == ENOENT)
		return gone(p->pid, e);
	if (p->lock == -1)
		return err_sys(e, "open %s", path);
	if (flock(p->lock, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK)
		return err_set(e, ERR_FAILED,
		    "process %d is just being saved by another gmem-snap: wait for its end",
		    (int)p->pid);
	return 0;
}

/* The freezer if it touches nobody else, and can be had at all. */
static int
prepare_auto(struct pause *p, struct err *e)
{
	struct cgroup cg;

	if (cgroup_find(p->pid, &cg, e) == 0 && cgroup_is_alone(&cg, p->pid) &&
	    prepare_freezer(p, &cg, e) == 0)
		return 0;
	fd_close(&p->fd);
	fd_close(&p->events);
	p->was_paused = false;
	return prepare_stop(p, e);
}

int
pause_prepare(struct pause *p, pid_t pid, enum pause_method method, struct err *e)
{
	struct cgroup cg;
	int r = 0;

	*p = (struct pause)PAUSE_INIT;
	p->pid = pid;
	if (method != PAUSE_NONE && pid == getpid())
		return err_set(e, ERR_FAILED, "process %d is this command itself", (int)pid);
	if (method != PAUSE_NONE && lock(p, e) == -1) {
		clear(p);
		return -1;
	}
	switch (method) {
	case PAUSE_NONE:
		break;
	case PAUSE_AUTO:
		r = prepare_auto(p, e);
		break;
	case PAUSE_FREEZER:
		r = cgroup_find(pid, &cg, e);
		if (r == 0)
			r = prepare_freezer(p, &cg, e);
		break;
	case PAUSE_STOP:
		r = prepare_stop(p, e);
		break;
	}
	if (r == -1)
		clear(p);
	return r;
}

/* Sleeps for a moment that grows; false when the deadline has passed. */
static bool
wait_a_moment(int64_t deadline, long *ms)
{
	struct timespec t = { .tv_nsec = *ms * 1000000 };

	if (now_ms() >= deadline)
		return false;
	nanosleep(&t, NULL);
	*ms = MIN(*ms * 2, 16);
	return true;
}

/*
 * Whether no thread runs, and none was missed while they were counted: who is stopped creates
 * none.  p->moves is what it takes to see whether one ran later.
 */
static int
stands_still(struct pause *p, struct threads *count, bool *still, struct err *e)
{
	struct threads again;

	*still = false;
	if (threads_count(p->pid, count, e) == -1)
		return -1;
	if (count->stopped + count->traced + count->running == 0)
		return gone(p->pid, e);
	if (count->running != 0)
		return 0;
	p->moves = threads_moves(p->pid);
	if (threads_count(p->pid, &again, e) == -1)
		return -1;
	*still = again.running == 0 && threads_moves(p->pid) == p->moves;
	return 0;
}

static int
enter_stop(struct pause *p, unsigned timeout_ms, struct err *e)
{
	int64_t deadline = now_ms() + timeout_ms;
	struct threads count;
	bool still;
	long ms = 1;

	if (!p->was_paused && pidfd_send_signal(p->fd, SIGSTOP, NULL, 0) == -1)
		return err_sys(e, "stop process %d", (int)p->pid);
	do {
		if (stands_still(p, &count, &still, e) == -1)
			return -1;
		if (still)
			return 0;
	} while (wait_a_moment(deadline, &ms));
	return err_set(e, ERR_FAILED,
	    "process %d did not stop within %u ms: %u of its threads are busy in the kernel, "
	    "perhaps waiting for memory pages that are still being restored",
	    (int)p->pid, timeout_ms, count.running);
}

/* Who is moved out of a frozen cgroup runs. */
static int
check_cgroup(const struct pause *p, struct err *e)
{
	struct stat ours, now;
	struct cgroup cg;
	int fd = -1, same = 0;

	if (cgroup_find(p->pid, &cg, e) == -1)
		return -1;
	fd = cgroup_open_file(&cg, "cgroup.events", O_RDONLY);
	if (fd != -1 && fstat(p->events, &ours) == 0 && fstat(fd, &now) == 0)
		same = ours.st_dev == now.st_dev && ours.st_ino == now.st_ino;
	fd_close(&fd);
	if (same)
		return 0;
	return err_set(e, ERR_FAILED,
	    "process %d was moved out of the cgroup that is frozen: it is not consistent",
	    (int)p->pid);
}

/*
 * Waits until the kernel says so; it wakes poll(2) at each change, some milliseconds later if
 * there was one just before.  When we return it has told of ours: pause_check sees the next.
 */
static int
enter_freezer(const struct pause *p, unsigned timeout_ms, struct err *e)
{
	struct pollfd pfd = { .fd = p->events, .events = POLLPRI };
	int64_t deadline = now_ms() + timeout_ms, left;
	char text[256];

	if (!read_small(p->events, text, sizeof(text)) ||
	    (!p->was_paused && pwrite(p->fd, "1", 1, 0) != 1))
		return err_sys(e, "freeze process %d", (int)p->pid);
	for (;;) {
		left = deadline - now_ms();
		if (!p->was_paused)
			poll(&pfd, 1, (int)MIN(MAX(left, 0), 100));
		if (!read_small(p->events, text, sizeof(text)))
			return err_sys(e, "freeze process %d", (int)p->pid);
		if (strstr(text, "populated 0") != NULL)
			return gone(p->pid, e);
		if (strstr(text, "frozen 1") != NULL)
			return check_cgroup(p, e);
		if (left <= 0)
			break;
		if (p->was_paused)
			poll(&pfd, 1, (int)MIN(left, 100));
	}
	return err_set(e, ERR_FAILED,
	    "process %d did not freeze within %u ms: one of its threads is busy in the kernel, "
	    "perhaps waiting for memory pages that are still being restored",
	    (int)p->pid, timeout_ms);
}

int
pause_enter(struct pause *p, unsigned timeout_ms, struct err *e)
{
	int r = 0;

	if (p->method == PAUSE_STOP)
		r = enter_stop(p, timeout_ms, e);
	else if (p->method == PAUSE_FREEZER)
		r = enter_freezer(p, timeout_ms, e);
	if (r == -1)
		pause_release(p);
	return r;
}

static int
check_stopped(const struct pause *p, bool *paused, struct err *e)
{
	struct threads count;

	if (threads_count(p->pid, &count, e) == -1)
		return -1;
	/* Whether it ran before its end cannot be seen any more. */
	if (count.stopped + count.traced + count.running == 0)
		return gone(p->pid, e);
	*paused = count.running == 0 && threads_moves(p->pid) == p->moves;
	return 0;
}

static int
check_frozen(const struct pause *p, bool *paused, struct err *e)
{
	struct pollfd pfd = { .fd = p->events, .events = POLLPRI };
	char text[256];

	*paused = poll(&pfd, 1, 0) == 0;
	if (!read_small(p->events, text, sizeof(text)))
		return err_sys(e, "state of process %d", (int)p->pid);
	*paused = *paused && strstr(text, "frozen 1") != NULL;
	return check_cgroup(p, e);
}

int
pause_check(const struct pause *p, struct err *e)
{
	bool paused = true;
	int rc = 0;

	if (p->method == PAUSE_STOP)
		rc = check_stopped(p, &paused, e);
	else if (p->method == PAUSE_FREEZER)
		rc = check_frozen(p, &paused, e);
	if (rc == -1 || paused)
		return rc;
	return err_set(e, ERR_FAILED,
	    "somebody let process %d run while its memory was read: it is not consistent",
	    (int)p->pid);
}

int
pause_process(
    struct pause *p, pid_t pid, enum pause_method method, unsigned timeout_ms, struct err *e)
{
	if (pause_prepare(p, pid, method, e) == -1)
		return -1;
	if (pause_enter(p, timeout_ms, e) == 0)
		return 0;
	clear(p);
	return -1;
}

/* 0, or an errno. */
static int
let_run(const struct pause *p)
{
	int r = 0;

	if (p->method == PAUSE_STOP)
		r = pidfd_send_signal(p->fd, SIGCONT, NULL, 0);
	else if (p->method == PAUSE_FREEZER)
		r = pwrite(p->fd, "0", 1, 0) == 1 ? 0 : -1;
	return r == 0 || errno == ESRCH || errno == ENODEV ? 0 : errno;
}

/* A VM that stays paused is the worst that can happen: nothing is left at one failure. */
int
pause_release(const struct pause *p)
{
	int saved = errno, why = 0;

	for (int i = 0; i < RELEASE_TRIES && !p->was_paused; i++) {
		why = let_run(p);
		if (why == 0)
			break;
		poll(NULL, 0, RELEASE_NAP_MS);
	}
	errno = saved;
	return why;
}

int
pause_resume(struct pause *p, struct err *e)
{
	int why = pause_release(p), r = 0;

	if (why != 0) {
		errno = why;
		r = err_sys(e, "resume process %d", (int)p->pid);
	}
	clear(p);
	return r;
}
