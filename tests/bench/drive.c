/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * gmem-bench-drive: one restore of a guest, timed.
 *
 * It starts COMMAND, which starts a QEMU in the end, and measures from then on:
 *
 *   vm      until the VM runs: QMP's RESUME, seen on the monitor --qmp
 *   answer  until the guest has answered the line --ask, sent the moment the VM runs, by a
 *           line with "GUEST ANSWER" on its serial line
 *
 * and prints a line of JSON: {"vm_ms":…, "answer_ms":…, "answer":"…"}.  Then it ends COMMAND.
 *
 * --incoming URI  the device state is loaded over that monitor, by us; else somebody else does
 * --whole         … and the memory is in there too: no x-ignore-shared
 * --save URI      no measurement: when the state is loaded, migrate all of it to there
 * --linger S      end COMMAND only so many seconds after the answer
 */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
	const char *qmp, *serial, *ask, *incoming, *save;
	bool whole;
	double linger, timeout;
} options = { .timeout = 60 };

/* A socket that is read line by line. */
struct line_reader {
	int fd;
	size_t len;
	char buf[65536], line[65536];
};

static struct line_reader qmp = { .fd = -1 }, serial = { .fd = -1 };
static pid_t child = -1;
static double began;
static bool resumed;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void
end_child(void)
{
	if (child == -1)
		return;
	kill(child, SIGTERM);
	/* Whoever does not end by itself is made to: no measurement waits for it. */
	for (int i = 0; i < 500; i++) {
		if (waitpid(child, NULL, WNOHANG) != 0)
			return;
		usleep(10000);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void __attribute__((noreturn, format(printf, 1, 2))) quit(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "gmem-bench-drive: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	end_child();
	exit(1);
}

static void
check_child(void)
{
	int status;

	if (child != -1 && waitpid(child, &status, WNOHANG) == child) {
		child = -1;
		quit("the command has ended: status %#x", (unsigned)status);
	}
	if (now() > began + options.timeout)
		quit("no answer after %.0f s", options.timeout);
}

/* As soon as somebody listens. */
static int
attach(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 || strlen(path) >= sizeof(sa.sun_path))
		quit("%s: no such socket can be", path);
	memcpy(sa.sun_path, path, strlen(path));
	while (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == -1) {
		if (errno != ENOENT && errno != ECONNREFUSED)
			quit("%s: %s", path, strerror(errno));
		check_child();
		usleep(1000);
	}
	return fd;
}

/* Reads what is there; true: a whole line is in r->line. */
static bool
take_line(struct line_reader *r)
{
	char *end = memchr(r->buf, '\n', r->len);
	size_t len;

	if (end == NULL)
		return false;
	len = (size_t)(end - r->buf);
	memcpy(r->line, r->buf, len);
	r->line[len] = '\0';
	r->len -= len + 1;
	memmove(r->buf, end + 1, r->len);
	return true;
}

/* The next line, from wherever one comes first within 100 ms. */
static bool
next_line(struct line_reader *r)
{
	struct pollfd fds = { .fd = r->fd, .events = POLLIN };
	ssize_t n;

	if (take_line(r))
		return true;
	if (poll(&fds, 1, 100) < 1) {
		check_child();
		return false;
	}
	if (r->len == sizeof(r->buf))
		r->len = 0; /* nobody's line is as long */
	n = read(r->fd, r->buf + r->len, sizeof(r->buf) - r->len);
	if (n <= 0)
		quit("the VMM is gone");
	r->len += (size_t)n;
	return take_line(r);
}

static void
say(struct line_reader *r, const char *text)
{
	size_t len = strlen(text);

	if (send(r->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
		quit("the VMM does not listen any more");
}

static void
note_event(const char *line)
{
	if (strstr(line, "\"event\": \"RESUME\"") != NULL)
		resumed = true;
}

/* A QMP command without an answer that matters; an error of it ends us, if it is to. */
static const char *__attribute__((format(printf, 2, 3)))
command(bool must, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(&qmp, text);
	for (;;) {
		if (!next_line(&qmp))
			continue;
		note_event(qmp.line);
		if (strncmp(qmp.line, "{\"return\"", 9) == 0)
			return qmp.line;
		if (strncmp(qmp.line, "{\"error\"", 8) == 0) {
			if (must)
				quit("%s: %s", text, qmp.line);
			return qmp.line;
		}
	}
}

static void
open_monitor(void)
{
	qmp.fd = attach(options.qmp);
	while (!next_line(&qmp) || strstr(qmp.line, "\"QMP\"") == NULL)
		;
	command(true, "{\"execute\":\"qmp_capabilities\"}\n");
}

static void
ignore_shared(void)
{
	if (!options.whole)
		command(true,
		    "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":"
		    "[{\"capability\":\"x-ignore-shared\",\"state\":true}]}}\n");
}

static void
wait_for(const char *query, const char *good, const char *bad)
{
	for (;;) {
		const char *line = command(true, "{\"execute\":\"%s\"}\n", query);

		if (strstr(line, good) != NULL)
			return;
		if (strstr(line, bad) != NULL)
			quit("%s", line);
		usleep(1000);
		check_child();
	}
}

static void
load(void)
{
	ignore_shared();
	command(true, "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"%s\"}}\n",
	    options.incoming);
	wait_for("query-status", "\"status\": \"paused\"", "internal-error");
}

static void
save(void)
{
	/* Everything goes; what is fast here is not what is measured. */
	command(true,
	    "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":"
	    "[{\"capability\":\"x-ignore-shared\",\"state\":false}]}}\n");
	command(false,
	    "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-bandwidth\":"
	    "10000000000}}\n");
	command(
	    true, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"%s\"}}\n", options.save);
	wait_for("query-migrate", "\"status\": \"completed\"", "\"status\": \"failed\"");
}

/* Until the VM runs. */
static void
await_run(void)
{
	const char *line = command(true, "{\"execute\":\"query-status\"}\n");

	/* It may have begun before we had a say. */
	if (strstr(line, "\"status\": \"running\"") != NULL)
		resumed = true;
	while (!resumed)
		if (next_line(&qmp))
			note_event(qmp.line);
}

static void
await_answer(char *answer, size_t size)
{
	for (;;) {
		const char *at;

		if (!next_line(&serial))
			continue;
		at = strstr(serial.line, "GUEST ANSWER ");
		if (at == NULL)
			continue;
		snprintf(answer, size, "%s", at + strlen("GUEST ANSWER "));
		answer[strcspn(answer, "\r\"\\")] = '\0';
		return;
	}
}

static void
start(char **argv)
{
	began = now();
	child = fork();
	if (child == -1)
		quit("fork: %s", strerror(errno));
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(argv[0], argv);
		fprintf(stderr, "gmem-bench-drive: %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
}

static void
measure(void)
{
	char answer[256];
	double vm, answered;

	serial.fd = attach(options.serial);
	if (options.incoming != NULL)
		command(true, "{\"execute\":\"cont\"}\n");
	await_run();
	vm = now() - began;
	say(&serial, options.ask);
	say(&serial, "\n");
	await_answer(answer, sizeof(answer));
	answered = now() - began;
	usleep((useconds_t)(options.linger * 1e6));
	end_child();
	printf("{\"vm_ms\":%.2f,\"answer_ms\":%.2f,\"answer\":\"%s\"}\n", vm * 1e3,
	    answered * 1e3, answer);
}

int
main(int argc, char **argv)
{
	static const struct option longs[] = { { "qmp", 1, NULL, 'q' },
		{ "serial", 1, NULL, 's' }, { "ask", 1, NULL, 'a' },
		{ "incoming", 1, NULL, 'i' }, { "whole", 0, NULL, 'w' },
		{ "save", 1, NULL, 'S' }, { "linger", 1, NULL, 'l' },
		{ "timeout", 1, NULL, 't' }, { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1)
		switch (c) {
		case 'q':
			options.qmp = optarg;
			break;
		case 's':
			options.serial = optarg;
			break;
		case 'a':
			options.ask = optarg;
			break;
		case 'i':
			options.incoming = optarg;
			break;
		case 'w':
			options.whole = true;
			break;
		case 'S':
			options.save = optarg;
			break;
		case 'l':
			options.linger = atof(optarg);
			break;
		case 't':
			options.timeout = atof(optarg);
			break;
		default:
			return 2;
		}
	if (optind == argc || options.qmp == NULL ||
	    (options.save == NULL && (options.serial == NULL || options.ask == NULL))) {
		fprintf(stderr,
		    "usage: gmem-bench-drive --qmp SOCKET --serial SOCKET --ask LINE "
		    "[--incoming URI [--whole]] [--save URI] -- COMMAND...\n");
		return 2;
	}
	unlink(options.qmp);
	if (options.serial != NULL)
		unlink(options.serial);
	signal(SIGPIPE, SIG_IGN);
	start(argv + optind);
	open_monitor();
	if (options.incoming != NULL)
		load();
	if (options.save != NULL) {
		save();
		end_child();
	} else {
		measure();
	}
	return 0;
}
