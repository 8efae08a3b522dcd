/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/bitmap.h"
#include "base/ckd.h"
#include "base/err.h"
#include "base/fdio.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/thread.h"
#include "tap.h"

/* ---- err ---- */

static void
test_err_messages(void)
{
	struct err e = ERR_INIT, other = ERR_INIT;
	char longest[2000];
	int rc;

	rc = err_set(&e, ERR_CORRUPT, "entry %d", 7);
	ok(rc == -1 && e.kind == ERR_CORRUPT && strcmp(e.msg, "entry 7") == 0, "err_set: %s",
	    e.msg);
	rc = err_wrap(&e, "index of %s", "ram");
	ok(rc == -1 && e.kind == ERR_CORRUPT && strcmp(e.msg, "index of ram: entry 7") == 0,
	    "err_wrap: %s", e.msg);
	errno = ENOENT;
	rc = err_sys(&e, "open %s", "x");
	ok(rc == -1 && e.kind == ERR_SYS && e.sysno == ENOENT &&
		strcmp(e.msg, "open x: No such file or directory") == 0,
	    "err_sys: %s", e.msg);
	err_set(&e, ERR_CORRUPT, "first");
	err_set(&other, ERR_FAILED, "second");
	err_first(&e, &other);
	ok(e.kind == ERR_CORRUPT, "err_first keeps what is there");
	e = (struct err)ERR_INIT;
	err_first(&e, &other);
	ok(e.kind == ERR_FAILED && strcmp(e.msg, "second") == 0, "err_first takes the first");
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	err_set(&e, ERR_FAILED, "%s", longest);
	ok(strlen(e.msg) == sizeof(e.msg) - 1, "a long message is cut");
	errno = EIO;
	err_sys(&e, "%s", longest);
	ok(strlen(e.msg) == sizeof(e.msg) - 1 && e.sysno == EIO, "so is that of err_sys");
	err_wrap(&e, "outer");
	ok(strncmp(e.msg, "outer: aaa", 10) == 0 && strlen(e.msg) == sizeof(e.msg) - 1,
	    "the context survives in front of a long message");
	err_wrap(&e, "%s", longest);
	ok(strlen(e.msg) == sizeof(e.msg) - 1, "a long context is cut");
}

static void
test_err_status(void)
{
	static const struct {
		enum err_kind kind;
		int status;
	} cases[] = {
		{ ERR_NONE, 0 },
		{ ERR_FAILED, 1 },
		{ ERR_SYS, 1 },
		{ ERR_USAGE, 2 },
		{ ERR_CORRUPT, 3 },
		{ ERR_INCOMPLETE, 4 },
		{ ERR_UNSUPPORTED, 5 },
		{ ERR_INTERRUPTED, 128 + SIGTERM },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err e = { .kind = cases[i].kind, .sysno = SIGTERM };

		ok(err_status(&e) == cases[i].status, "kind %u has status %d", cases[i].kind,
		    cases[i].status);
	}
}

/* ---- ckd ---- */

static void
test_ckd(void)
{
	uint64_t u;
	uint32_t small;

	ok(ckd_add(&u, UINT64_MAX, 1) && !ckd_add(&u, UINT64_MAX - 1, 1) && u == UINT64_MAX,
	    "ckd_add");
	ok(ckd_sub(&u, UINT64_C(0), 1) && !ckd_sub(&u, UINT64_C(5), 5) && u == 0, "ckd_sub");
	ok(ckd_mul(&u, UINT64_C(1) << 32, UINT64_C(1) << 32) && !ckd_mul(&u, UINT64_C(3), 5) &&
		u == 15,
	    "ckd_mul");
	ok(ckd_add(&small, UINT64_C(1) << 32, 0), "ckd_add sees a result that is too narrow");
	ok(is_pow2(1) && is_pow2(UINT64_C(1) << 63) && !is_pow2(0) && !is_pow2(12), "is_pow2");
	ok(div_up(0, 7) == 0 && div_up(7, 7) == 1 && div_up(8, 7) == 2 &&
		div_up(UINT64_MAX, 2) == UINT64_C(1) << 63,
	    "div_up");
	ok(align_up(1, 4096) == 4096 && align_up(4096, 4096) == 4096 &&
		align_down(4097, 4096) == 4096 && align_down(4095, 4096) == 0,
	    "align_up, align_down");
}

/* ---- bitmap ---- */

#define BITS 20000

struct claimer {
	bitmap_word *map;
	unsigned won;
};

static void *
claim_all(void *arg)
{
	struct claimer *c = arg;

	for (uint64_t i = 0; i < BITS; i++)
		c->won += bitmap_claim(c->map, i);
	return NULL;
}

static void
test_bitmap(void)
{
	bitmap_word *map = calloc(1, bitmap_bytes(BITS));
	struct claimer claimers[4];
	pthread_t threads[4];
	unsigned won = 0;

	ok(bitmap_bytes(0) == 0 && bitmap_bytes(1) == 8 && bitmap_bytes(64) == 8 &&
		bitmap_bytes(65) == 16,
	    "bitmap_bytes");
	ok(!bitmap_test(map, 63) && bitmap_claim(map, 63) && bitmap_test(map, 63) &&
		!bitmap_claim(map, 63) && !bitmap_test(map, 62) && !bitmap_test(map, 64),
	    "a bit is claimed once");
	bitmap_clear(map, 63);
	ok(!bitmap_test(map, 63), "and cleared");
	for (int i = 0; i < 4; i++) {
		claimers[i] = (struct claimer){ .map = map };
		if (pthread_create(&threads[i], NULL, claim_all, &claimers[i]) != 0)
			abort();
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		won += claimers[i].won;
	}
	ok(won == BITS, "four threads claim each of %d bits once: %u", BITS, won);
	free((void *)(uintptr_t)map);
}

/* ---- arena ---- */

static void
test_arena(void)
{
	struct arena a = { NULL };
	bool aligned = true, zero = true;
	char *text, *big;

	for (size_t n = 0; n < 3000; n++) {
		unsigned char *p = arena_alloc(&a, n % 97);

		if (p == NULL)
			abort();
		aligned = aligned && (uintptr_t)p % alignof(max_align_t) == 0;
		for (size_t i = 0; i < n % 97; i++)
			zero = zero && p[i] == 0;
		memset(p, 0xff, n % 97);
	}
	ok(aligned, "arena memory is aligned");
	ok(zero, "arena memory is zeroed and not given out twice");
	big = arena_array(&a, 1000, 1000);
	ok(big != NULL && big[999999] == 0, "more than a block in one piece");
	text = arena_strndup(&a, "abcdef", 3);
	ok(text != NULL && strcmp(text, "abc") == 0, "arena_strndup ends the string");
	text = arena_strdup(&a, "");
	ok(text != NULL && *text == '\0', "arena_strdup of nothing");
	errno = 0;
	ok(arena_alloc(&a, SIZE_MAX) == NULL && errno == ENOMEM, "SIZE_MAX bytes: ENOMEM");
	errno = 0;
	ok(arena_alloc(&a, SIZE_MAX - 40) == NULL && errno == ENOMEM,
	    "so many that the block's head does not fit: ENOMEM");
	ok(arena_array(&a, SIZE_MAX / 4, 5) == NULL, "an array that overflows");
	arena_free(&a);
	arena_free(&a);
	ok(a.blocks == NULL, "arena_free, twice");
}

/* ---- pool ---- */

struct test_job {
	unsigned n, result;
	pthread_t thread;
};

struct test_worker {
	unsigned *alive;
};

static unsigned workers_alive, workers_made, workers_fail_at;

static int
test_worker_new(void **worker, void *arg, struct err *e)
{
	struct test_worker *w;

	if (workers_made++ == workers_fail_at)
		return err_set(e, ERR_FAILED, "no worker");
	w = calloc(1, sizeof(*w));
	w->alive = arg;
	++*w->alive;
	*worker = w;
	return 0;
}

static void
test_worker_free(void *worker)
{
	struct test_worker *w = worker;

	--*w->alive;
	free(w);
}

static int
test_run(void *worker, void *slot, struct err *e)
{
	struct test_job *job = slot;

	(void)worker;
	/* Late jobs of each group finish first. */
	usleep((7 - job->n % 8) * 200);
	job->thread = pthread_self();
	job->result = job->n * job->n;
	if (job->n == 1000)
		return err_set(e, ERR_CORRUPT, "job %u", job->n);
	return 0;
}

static const struct pool_work test_work = {
	.worker_new = test_worker_new,
	.worker_free = test_worker_free,
	.run = test_run,
	.arg = &workers_alive,
	.job_size = sizeof(struct test_job),
};

/* Runs jobs from..end; how many came back, in order and right, until one failed. */
static unsigned
run_jobs(struct pool *p, unsigned from, unsigned end, bool *inline_only, struct err *e)
{
	unsigned next = from, good = 0;

	while (next < end || pool_busy(p) != 0) {
		struct test_job *job = next < end ? pool_slot(p) : NULL;

		if (job != NULL) {
			job->n = next++;
			pool_submit(p);
			continue;
		}
		job = pool_collect(p, e);
		if (job == NULL)
			return good;
		if (job->n == from + good && job->result == job->n * job->n)
			good++;
		if (!pthread_equal(job->thread, pthread_self()))
			*inline_only = false;
		pool_release(p);
	}
	return good;
}

static void
test_pool(unsigned nworkers, unsigned nslots)
{
	struct err e = ERR_INIT;
	struct pool *p;
	bool inline_only = true;
	unsigned n;

	workers_made = 0;
	workers_fail_at = UINT32_MAX;
	if (pool_new(&p, nworkers, nslots, &test_work, &e) == -1)
		abort();
	n = run_jobs(p, 0, 100, &inline_only, &e);
	ok(n == 100, "%u workers, %u slots: 100 jobs in order: %u", nworkers, nslots, n);
	ok(inline_only == (nworkers == 1), "%u workers: %s thread", nworkers,
	    nworkers == 1 ? "no" : "another");
	n = run_jobs(p, 990, 1100, &inline_only, &e);
	ok(n == 10 && e.kind == ERR_CORRUPT && strcmp(e.msg, "job 1000") == 0,
	    "%u workers: the failed job is told in its place: %u, %s", nworkers, n, e.msg);
	pool_free(p);
	ok(workers_alive == 0, "%u workers are freed", nworkers);
}

static void
test_pool_edges(void)
{
	struct err e = ERR_INIT;
	struct pool *p = NULL;

	workers_made = 0;
	workers_fail_at = 2;
	ok(pool_new(&p, 4, 8, &test_work, &e) == -1 && p == NULL && workers_alive == 0,
	    "the third of four workers cannot be made: %s", e.msg);
	workers_fail_at = UINT32_MAX;
	if (pool_new(&p, 2, 3, &test_work, &e) == -1)
		abort();
	for (unsigned i = 0; i < 3; i++) {
		struct test_job *job = pool_slot(p);

		if (job == NULL)
			break;
		job->n = i;
		pool_submit(p);
	}
	ok(pool_slot(p) == NULL && pool_busy(p) == 3, "no slot while all are in flight");
	pool_free(p);
	ok(workers_alive == 0, "a pool is freed with jobs in flight");
	pool_free(NULL);
	ok(pool_ncpus() >= 1, "pool_ncpus");
}

/* ---- threads ---- */

static void *
own_mask(void *mask)
{
	pthread_sigmask(SIG_SETMASK, NULL, mask);
	return NULL;
}

/* Of all signals that one can block. */
static unsigned
count_blocked(const sigset_t *mask)
{
	unsigned n = 0;

	for (int sig = 1; sig <= SIGRTMAX; sig++)
		n += sigismember(mask, sig) == 1;
	return n;
}

static void
test_quiet_thread(void)
{
	static const int takes[] = { SIGURG, SIGBUS, 0 };
	sigset_t mine, none, some, before, after, all;
	pthread_t thread;
	int rc;

	sigemptyset(&mine);
	sigaddset(&mine, SIGUSR1);
	sigaddset(&mine, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &mine, &before);
	rc = quiet_thread(&thread, own_mask, &none, NULL);
	if (rc == 0)
		pthread_join(thread, NULL);
	if (rc == 0 && (rc = quiet_thread(&thread, own_mask, &some, takes)) == 0)
		pthread_join(thread, NULL);
	pthread_sigmask(SIG_SETMASK, &before, &after);
	ok(rc == 0, "quiet threads are started");
	if (rc == -1)
		return;
	sigfillset(&all);
	sigdelset(&all, SIGKILL);
	sigdelset(&all, SIGSTOP);
	ok(count_blocked(&none) == count_blocked(&all), "one takes no signal: %u are blocked",
	    count_blocked(&none));
	ok(count_blocked(&some) == count_blocked(&all) - 2 && sigismember(&some, SIGURG) == 0 &&
		sigismember(&some, SIGBUS) == 0,
	    "one takes two: %u are blocked", count_blocked(&some));
	ok(count_blocked(&after) == 2 && sigismember(&after, SIGUSR1) == 1 &&
		sigismember(&after, SIGBUS) == 1,
	    "whoever starts them has the mask it had");
}

/* ---- fdio ---- */

static void
on_alarm(int sig)
{
	(void)sig;
}

/* A child that writes len bytes to a pipe in small pieces; the end to read from. */
static int
slow_writer(size_t len, pid_t *pid)
{
	int fds[2];

	if (pipe(fds) == -1 || (*pid = fork()) == -1)
		abort();
	if (*pid == 0) {
		for (size_t i = 0; i < len; i++) {
			char c = (char)(i * 7);

			if (write(fds[1], &c, 1) != 1)
				_exit(1);
			if (i % 64 == 0)
				usleep(300);
		}
		_exit(0);
	}
	close(fds[1]);
	return fds[0];
}

static void
test_short_reads(void)
{
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction sa = { .sa_handler = on_alarm };
	struct err e = ERR_INIT;
	char buf[2000];
	bool good = true;
	ssize_t n;
	pid_t pid;
	int fd = slow_writer(1500, &pid);

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	n = fd_read(fd, buf, sizeof(buf), &e);
	setitimer(ITIMER_REAL, &never, NULL);
	for (size_t i = 0; i < 1500; i++)
		good = good && buf[i] == (char)(i * 7);
	ok(n == 1500 && good, "fd_read: short and interrupted reads until the end: %zd", n);
	close(fd);
	while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		;
	ok(fd_read(-1, buf, 1, &e) == -1 && e.kind == ERR_SYS && e.sysno == EBADF,
	    "fd_read fails: %s", e.msg);
}

static const char file[] = "test-base.tmp";

static void
test_full(void)
{
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600), full;
	struct err e = ERR_INIT;
	char buf[16];

	ok(fd_write_full(fd, "0123456789", 10, &e) == 0 &&
		fd_pwrite_full(fd, "ab", 2, 4, &e) == 0 &&
		fd_pread_full(fd, buf, 10, 0, &e) == 0 && memcmp(buf, "0123ab6789", 10) == 0,
	    "written and read back");
	ok(fd_pread_full(fd, buf, 5, 6, &e) == -1 && e.kind == ERR_CORRUPT &&
		strstr(e.msg, "ends at byte 10, 5 bytes wanted at 6") != NULL,
	    "fd_pread_full beyond the end: %s", e.msg);
	fd_close(&fd);
	errno = 42;
	fd_close(&fd);
	ok(fd == -1 && errno == 42, "fd_close of a closed one, errno kept");
	full = open("/dev/full", O_WRONLY);
	ok(fd_write_full(full, buf, 1, &e) == -1 && e.sysno == ENOSPC, "fd_write_full: %s",
	    e.msg);
	ok(fd_pwrite_full(full, buf, 1, 0, &e) == -1 && e.sysno == ENOSPC, "fd_pwrite_full: %s",
	    e.msg);
	fd_close(&full);
}

static void
test_slurp(size_t size, size_t max, bool good)
{
	struct err e = ERR_INIT;
	char *text = NULL;
	size_t len = 0;
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600), rc;

	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		abort();
	close(fd);
	rc = fd_slurp(file, max, &text, &len, &e);
	ok(good ? rc == 0 && len == size && text[len] == '\0' : rc == -1 && text == NULL,
	    "fd_slurp of %zu bytes, at most %zu: %s", size, max, good ? "read" : e.msg);
	free(text);
}

static void
test_slurps(void)
{
	struct err e = ERR_INIT;
	char *text = NULL;

	test_slurp(0, 10, true);
	test_slurp(10, 10, true);
	test_slurp(11, 10, false);
	test_slurp(4096, 4096, true);
	test_slurp(4097, 4096, false);
	test_slurp(5000, 6000, true);
	test_slurp(6001, 6000, false);
	test_slurp(100000, 1 << 20, true);
	ok(fd_slurp("/proc/self/status", 1 << 20, &text, NULL, &e) == 0 &&
		strstr(text, "VmSize") != NULL,
	    "fd_slurp of a file in /proc, which has no size");
	free(text);
	ok(fd_slurp("/no/such/file", 10, &text, NULL, &e) == -1 && e.sysno == ENOENT,
	    "fd_slurp: %s", e.msg);
	unlink(file);
}

static void
test_sanitize(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		closefrom(0);
		fd_sanitize_std();
		_exit(fcntl(0, F_GETFD) == -1 || fcntl(1, F_GETFD) == -1 ||
		      fcntl(2, F_GETFD) == -1 || fcntl(3, F_GETFD) != -1);
	}
	waitpid(pid, &status, 0);
	ok(status == 0, "fd_sanitize_std opens 0, 1 and 2 and nothing else");
}

static void
test_pokes(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const uint64_t full = UINT64_MAX - 1;
	struct err e = ERR_INIT;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	bool before, after;

	before = poll(&p, 1, 0) == 1 || fd_poked(fd);
	fd_poke(fd);
	fd_poke(fd);
	ok(!before && poll(&p, 1, 0) == 1, "an eventfd is poked");
	before = fd_poked(fd);
	after = fd_poked(fd);
	ok(before && !after && poll(&p, 1, 0) == 0, "twice is like once");
	if (fd_write_full(fd, &full, sizeof(full), &e) == 0)
		fd_poke(fd);
	ok(fd_poked(fd) && !fd_poked(fd), "one that is full is as good as poked");
	fd_close(&fd);
	fd_poke(-1);
	ok(!fd_poked(-1), "nothing is poked");
}

/* ---- descriptors that are passed ---- */

static bool
is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

/* Of ours, and of those whom we inherit from. */
static unsigned
count_open(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += is_open(fd);
	return n;
}

/* Passes n of them to somebody who takes `max`: how many came, -1: none was sent. */
static ssize_t
pass(const int *fds, size_t n, int *got, size_t max)
{
	int ends[2];
	char byte = 'x';
	struct fd_room room;
	struct iovec iov = { &byte, 1 };
	struct msghdr out = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct msghdr in = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf) };
	ssize_t count = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return -1;
	fd_attach(&out, &room, fds, n);
	if (sendmsg(ends[0], &out, 0) == 1 && recvmsg(ends[1], &in, MSG_CMSG_CLOEXEC) == 1)
		count = (ssize_t)fd_detach(&in, got, max);
	close(ends[0]);
	close(ends[1]);
	return count;
}

static void
test_passing(void)
{
	int fds[FD_PASS_MAX] = { 0 }, got[FD_PASS_MAX], two[2] = { -1, -1 };
	const unsigned already = count_open();
	ssize_t n;

	n = pass(fds, 0, got, 2);
	ok(n == 0 && count_open() == already, "no descriptor is passed");
	n = pass(fds, 2, two, 2);
	ok(n == 2 && is_open(two[0]) && is_open(two[1]), "two of two");
	n = pass(fds, 3, got, 1);
	ok(n == 3 && is_open(got[0]), "three, of which one is wanted: %d", (int)n);
	fd_close(&got[0]);
	n = pass(fds, FD_PASS_MAX, got, 0);
	ok(n == FD_PASS_MAX, "as many as can be, of which none is wanted: %d", (int)n);
	fd_close(&two[0]);
	fd_close(&two[1]);
	ok(count_open() == already, "none is left but those that were wanted");
}

/* ---- log ---- */

/* What a message becomes on stderr. */
static void
test_log(const char *message, const char *wanted)
{
	char line[2048] = "";
	int ends[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	if (saved == -1 || pipe(ends) == -1)
		return;
	log_setup("me", LOG_LEVEL_ERROR);
	dup2(ends[1], STDERR_FILENO);
	log_error("%s", message);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(ends[1]);
	n = read(ends[0], line, sizeof(line) - 1);
	close(ends[0]);
	ok(n > 0 && strcmp(line, wanted) == 0, "logged: %.*s",
	    (int)MIN(strlen(wanted) - 1, (size_t)40), wanted);
}

static void
test_logs(void)
{
	char longest[3000], cut[1024] = "me: ";

	test_log("a file: no", "me: a file: no\n");
	test_log("red \x1b[31m\r\n\x7f", "me: red \\x1b[31m\\x0d\\x0a\\x7f\n");
	test_log("gr\xc3\xbc\xc3\x9f", "me: gr\xc3\xbc\xc3\x9f\n");
	test_log("\xc2\x9b"
		 "31m \xff \xe2\x80\xae",
	    "me: \\u{9b}31m \\xff \\u{202e}\n");
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	memset(cut + 4, 'x', sizeof(cut) - 6);
	cut[sizeof(cut) - 2] = '\n';
	test_log(longest, cut);
}

int
main(void)
{
	test_logs();
	test_err_messages();
	test_err_status();
	test_ckd();
	test_bitmap();
	test_arena();
	test_pool(1, 1);
	test_pool(1, 4);
	test_pool(2, 3);
	test_pool(4, 16);
	test_pool_edges();
	test_quiet_thread();
	test_short_reads();
	test_full();
	test_pokes();
	test_passing();
	test_slurps();
	test_sanitize();
	return done();
}
