/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * The HTTP client against a server that says what a text tells it, in the pieces it tells: a
 * thread behind a UNIX socket, one connection each.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fdio.h"
#include "tap.h"
#include "vmm/http.h"
#include "vmm/wait.h"

/* ---- the server ---- */

enum manner {
	WHOLE, /* the answer in one piece */
	BYTES, /* byte for byte */
	SILENT, /* no answer until the client leaves */
	DEAF, /* closes without reading */
	FLOOD, /* the answer, then the letter x for as long as somebody reads */
};

struct server {
	char dir[32], path[64];
	int fd;
	pthread_t thread;
	enum manner manner;
	const char *answer;
	char request[8192]; /* what came */
};

static void
nap(int ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

static bool
has_all(const char *request)
{
	const char *end = strstr(request, "\r\n\r\n"),
		   *len = strcasestr(request, "Content-Length:");

	if (end == NULL)
		return false;
	return len == NULL || strlen(end + 4) >= strtoul(len + 15, NULL, 10);
}

static void
hear(struct server *s, int fd)
{
	size_t len = 0;
	ssize_t n;

	memset(s->request, 0, sizeof(s->request));
	while (!has_all(s->request) && len < sizeof(s->request) - 1 &&
	       (n = read(fd, s->request + len, sizeof(s->request) - 1 - len)) > 0)
		len += (size_t)n;
}

static void
say(struct server *s, int fd)
{
	char flood[4096], byte;

	if (s->manner == SILENT) {
		while (read(fd, &byte, 1) > 0)
			;
		return;
	}
	for (const char *at = s->answer; s->manner == BYTES && *at != '\0'; at++) {
		if (send(fd, at, 1, MSG_NOSIGNAL) != 1)
			return;
		nap(1);
	}
	if (s->manner != BYTES)
		(void)send(fd, s->answer, strlen(s->answer), MSG_NOSIGNAL);
	memset(flood, 'x', sizeof(flood));
	while (s->manner == FLOOD && send(fd, flood, sizeof(flood), MSG_NOSIGNAL) > 0)
		;
}

static void *
serve(void *arg)
{
	struct server *s = arg;
	int fd = accept(s->fd, NULL, NULL);

	if (fd == -1)
		return NULL;
	if (s->manner != DEAF) {
		hear(s, fd);
		say(s, fd);
	}
	close(fd);
	return NULL;
}

/* Takes connections until one has something to say. */
static void *
serve_later(void *arg)
{
	struct server *s = arg;
	int fd;

	nap(100);
	for (fd = accept(s->fd, NULL, NULL); fd != -1; fd = accept(s->fd, NULL, NULL)) {
		hear(s, fd);
		if (s->request[0] != '\0')
			break;
		close(fd);
	}
	say(s, fd);
	close(fd);
	return NULL;
}

static void
server_listen(struct server *s, int queue)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	*s = (struct server){ .dir = "/tmp/test-http-XXXXXX" };
	if (mkdtemp(s->dir) == NULL)
		abort();
	snprintf(s->path, sizeof(s->path), "%s/api", s->dir);
	memcpy(addr.sun_path, s->path, sizeof(s->path));
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s->fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
	    listen(s->fd, queue) == -1)
		abort();
}

static void
server_start(struct server *s, enum manner manner, const char *answer)
{
	server_listen(s, 4);
	s->manner = manner;
	s->answer = answer;
	if (pthread_create(&s->thread, NULL, serve, s) != 0)
		abort();
}

static void
server_remove(struct server *s)
{
	close(s->fd);
	unlink(s->path);
	rmdir(s->dir);
}

static void
server_end(struct server *s)
{
	pthread_join(s->thread, NULL);
	server_remove(s);
}

static struct http_request
request(const struct server *s, const char *method, const char *path, const char *body)
{
	return (struct http_request){ .socket = s->path,
		.method = method,
		.path = path,
		.body = body,
		.timeout_ms = 10000,
		.stop_fd = -1 };
}

/* ---- answers ---- */

static void
test_answer(
    const char *name, enum manner manner, const char *answer, long status, const char *body)
{
	struct http_reply reply;
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;
	int rc;

	server_start(&s, manner, answer);
	r = request(&s, "GET", "/", NULL);
	rc = http_call(&r, &reply, &e);
	ok(rc == 0 && reply.status == status && strcmp(reply.body, body) == 0 &&
		reply.len == strlen(body),
	    "%s", name);
	if (rc == -1)
		printf("# %s\n", e.msg);
	http_reply_fini(&reply);
	server_end(&s);
}

static void
test_answers(void)
{
	static const char with_body[] =
	    "HTTP/1.1 200 \r\nServer: Firecracker API\r\n"
	    "Connection: keep-alive\r\nContent-Type: application/json\r\n"
	    "Content-Length: 7\r\n\r\n{\"a\":1}";

	test_answer("204", WHOLE, "HTTP/1.1 204 \r\nConnection: keep-alive\r\n\r\n", 204, "");
	test_answer("200 with a body", WHOLE, with_body, 200, "{\"a\":1}");
	test_answer("byte for byte", BYTES, with_body, 200, "{\"a\":1}");
	test_answer("400", WHOLE, "HTTP/1.1 400 \r\nContent-Length: 2\r\n\r\nno", 400, "no");
	test_answer("100 Continue first", WHOLE,
	    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200,
	    "ok");
	test_answer("chunks", WHOLE,
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
	    "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
	    200, "abcde");
	test_answer("a body that ends with the connection", WHOLE, "HTTP/1.0 200 OK\r\n\r\nabc",
	    200, "abc");
	test_answer("a redirection is not followed", WHOLE,
	    "HTTP/1.1 302 Found\r\nLocation: http://localhost/x\r\nContent-Length: 0\r\n\r\n",
	    302, "");
}

static void
test_request(void)
{
	struct http_reply reply;
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;

	server_start(&s, WHOLE, "HTTP/1.1 204 \r\n\r\n");
	r = request(&s, "PUT", "/snapshot/load", "{\"x\":\"\xC3\xA4\"}");
	ok(http_call(&r, &reply, &e) == 0, "PUT");
	http_reply_fini(&reply);
	server_end(&s);
	ok(strncmp(s.request, "PUT /snapshot/load HTTP/1.1\r\n", 29) == 0, "its first line");
	ok(strstr(s.request, "\r\n\r\n{\"x\":\"\xC3\xA4\"}") != NULL, "its body");
	ok(strcasestr(s.request, "Content-Length: 10\r\n") != NULL, "how long it is");
	ok(strcasestr(s.request, "Content-Type: application/json\r\n") != NULL, "its type");
	ok(strcasestr(s.request, "Expect:") == NULL, "no Expect");

	server_start(&s, WHOLE, "HTTP/1.1 204 \r\n\r\n");
	r = request(&s, "PUT", "/api/v1/vm.pause", NULL);
	ok(http_call(&r, &reply, &e) == 0, "PUT without a body");
	http_reply_fini(&reply);
	server_end(&s);
	ok(strncmp(s.request, "PUT /api/v1/vm.pause HTTP/1.1\r\n", 31) == 0, "its first line");
	ok(strcasestr(s.request, "Content-Type") == NULL, "it has no type");
}

/* ---- no answers ---- */

static void
test_refusal(const char *name, enum manner manner, const char *answer, enum err_kind kind,
    const char *message)
{
	struct http_reply reply;
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;
	int rc;

	server_start(&s, manner, answer);
	r = request(&s, "PUT", "/vm", "{}");
	if (manner == SILENT)
		r.timeout_ms = 300;
	rc = http_call(&r, &reply, &e);
	ok(rc == -1 && e.kind == kind && reply.body == NULL, "%s", name);
	ok(strstr(e.msg, message) != NULL && strncmp(e.msg, "PUT /vm: ", 9) == 0,
	    "… it says so");
	printf("# %s\n", e.msg);
	http_reply_fini(&reply);
	server_end(&s);
}

static void
test_refusals(void)
{
	static char headers[100 << 10] = "HTTP/1.1 200 OK\r\n";
	char *end = headers + strlen(headers);

	while (end + 32 < headers + sizeof(headers))
		end += sprintf(end, "X-Header: a b c d e f\r\n");
	test_refusal("silence", SILENT, "", ERR_FAILED, "no answer within 300 ms");
	test_refusal("closed at once", DEAF, "", ERR_FAILED, "closed the connection");
	test_refusal(
	    "closed after the request", WHOLE, "", ERR_FAILED, "closed the connection");
	test_refusal("closed within the header", WHOLE, "HTTP/1.1 200 OK\r\nContent-Le",
	    ERR_FAILED, "no answer that makes sense");
	test_refusal("closed within the body", WHOLE,
	    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", ERR_FAILED,
	    "no answer that makes sense");
	test_refusal("garbage", WHOLE, "\001\002\003 I am not HTTP\r\n\r\n", ERR_FAILED,
	    "no answer that makes sense");
	test_refusal("a length that is none", WHOLE,
	    "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", ERR_FAILED,
	    "no answer that makes sense");
	test_refusal("a body without end", FLOOD, "HTTP/1.1 200 OK\r\n\r\n", ERR_CORRUPT,
	    "more than 1048576 bytes");
	test_refusal("a huge body", FLOOD,
	    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", ERR_CORRUPT,
	    "more than 1048576 bytes");
	test_refusal(
	    "headers without end", FLOOD, headers, ERR_CORRUPT, "more than 65536 bytes");
}

static void
test_connections(void)
{
	char longer[200];
	struct http_reply reply;
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;
	int waiting[3];

	server_listen(&s, 0);
	r = request(&s, "GET", "/", NULL);
	r.timeout_ms = 200;
	for (size_t i = 0; i < 3; i++) {
		struct sockaddr_un addr = { .sun_family = AF_UNIX };

		memcpy(addr.sun_path, s.path, sizeof(s.path));
		waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(waiting[i], (struct sockaddr *)&addr, sizeof(addr));
	}
	ok(http_call(&r, &reply, &e) == -1 && e.kind == ERR_FAILED, "a queue that stays full");
	printf("# %s\n", e.msg);
	for (size_t i = 0; i < 3; i++)
		close(waiting[i]);
	s.answer = "HTTP/1.1 204 \r\n\r\n";
	pthread_create(&s.thread, NULL, serve_later, &s);
	r.timeout_ms = 10000;
	ok(http_call(&r, &reply, &e) == 0 && reply.status == 204, "one that empties");
	http_reply_fini(&reply);
	pthread_join(s.thread, NULL);
	server_remove(&s);
	ok(http_call(&r, &reply, &e) == -1 && e.kind == ERR_SYS && e.sysno == ENOENT,
	    "no socket");
	printf("# %s\n", e.msg);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	r.socket = longer;
	ok(http_call(&r, &reply, &e) == -1 && strstr(e.msg, "too long") != NULL,
	    "a path too long");
}

/* ---- wanting out ---- */

static void *
ring_later(void *arg)
{
	nap(100);
	eventfd_write(*(int *)arg, 1);
	return NULL;
}

static void
test_stop(void)
{
	int64_t begin = wait_now_ms();
	struct http_reply reply;
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;
	pthread_t thread;
	int stop = eventfd(0, EFD_CLOEXEC);

	server_start(&s, SILENT, "");
	r = request(&s, "GET", "/", NULL);
	r.stop_fd = stop;
	r.timeout_ms = -1;
	pthread_create(&thread, NULL, ring_later, &stop);
	ok(http_call(&r, &reply, &e) == -1 && e.kind == ERR_INTERRUPTED && e.sysno == SIGINT,
	    "interrupted while it waits for ever");
	ok(wait_now_ms() - begin < 5000, "… at once");
	pthread_join(thread, NULL);
	server_end(&s);
	close(stop);
}

/* ---- what a VMM says ---- */

static void
test_said(const char *name, const char *answer, const char *message)
{
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;

	server_start(&s, WHOLE, answer);
	r = request(&s, "PUT", "/vm", "{}");
	ok(http_expect(&r, "pause", NULL, &e) == -1 && strcmp(e.msg, message) == 0, "%s", name);
	printf("# %s\n", e.msg);
	server_end(&s);
}

static void
test_expect(void)
{
	struct http_reply reply;
	struct err e = ERR_INIT;
	struct server s;
	struct http_request r;

	test_said("a fault message",
	    "HTTP/1.1 400 \r\nContent-Length: 30\r\n\r\n{\"fault_message\":\"not\\u001b[\"}",
	    "pause: the VMM says 400: not?[");
	test_said("a list of messages",
	    "HTTP/1.1 500 X\r\nContent-Length: 14\r\n\r\n[\"a b\",\"c\",1]\n",
	    "pause: the VMM says 500: a b: c");
	test_said("a text", "HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\nno \x1b such",
	    "pause: the VMM says 404: no ? such");
	test_said("nothing", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
	    "pause: the VMM says 500");
	server_start(&s, WHOLE, "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}");
	r = request(&s, "GET", "/", NULL);
	ok(http_expect(&r, "what it is", &reply, &e) == 0 && strcmp(reply.body, "{}") == 0,
	    "200");
	http_reply_fini(&reply);
	http_reply_fini(&reply);
	server_end(&s);
}

/* ---- waiting for a VMM ---- */

static void *
come_later(void *arg)
{
	struct server *s = arg;
	char aside[80];

	snprintf(aside, sizeof(aside), "%s2", s->path);
	nap(100);
	if (rename(aside, s->path) == -1)
		abort();
	return NULL;
}

static void
test_await(void)
{
	char aside[80];
	struct err e = ERR_INIT;
	struct server s;
	pthread_t thread;
	int stop = eventfd(1, EFD_CLOEXEC);
	pid_t pid;

	server_listen(&s, 4);
	snprintf(aside, sizeof(aside), "%s2", s.path);
	rename(s.path, aside);
	pthread_create(&thread, NULL, come_later, &s);
	ok(http_await(s.path, getpid(), 10000, -1, &e) == 0, "a socket that comes later");
	pthread_join(thread, NULL);
	close(s.fd);
	ok(http_await(s.path, 0, 100, -1, &e) == -1 && strstr(e.msg, "refused") != NULL,
	    "one that nobody listens on");
	printf("# %s\n", e.msg);
	server_remove(&s);
	ok(http_await(s.path, 0, 100, -1, &e) == -1 &&
		strstr(e.msg, "no API socket within 1 s"),
	    "none at all");
	printf("# %s\n", e.msg);
	ok(http_await(s.path, 0, -1, stop, &e) == -1 && e.kind == ERR_INTERRUPTED,
	    "interrupted");
	close(stop);

	pid = fork();
	if (pid == 0) {
		nap(100);
		_exit(0);
	}
	ok(http_await(s.path, pid, -1, -1, &e) == -1 && strstr(e.msg, "has ended") != NULL,
	    "a VMM that ends");
	printf("# %s\n", e.msg);
	ok(http_await(s.path, pid, -1, -1, &e) == -1 && strstr(e.msg, "has ended") != NULL,
	    "one that has ended");
	waitpid(pid, NULL, 0);
	ok(http_await("/proc/self/stat/x", 0, 10000, -1, &e) == -1 && e.sysno == ENOTDIR,
	    "a path that can't be");
}

int
main(void)
{
	/* Nothing of these is to be looked at. */
	setenv("http_proxy", "http://127.0.0.1:9", 1);
	setenv("all_proxy", "http://127.0.0.1:9", 1);
	test_answers();
	test_request();
	test_refusals();
	test_connections();
	test_stop();
	test_expect();
	test_await();
	return done();
}
