/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The API: as much HTTP as Cloud Hypervisor speaks.  One thread answers one request at a
 * time: while vm.receive-migration waits (and in v52 vm.send-migration), all others wait.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

#define CLIENTS_MAX 10
#define BODY_MAX ((size_t)4 << 20)

struct client {
	int fd;
	char *buf;
	size_t len;
};

/* Is a lie about the API meant for this path?  "" is for all. */
static bool
lie_for(const char *name, const char *path)
{
	const char *v = lie(name), *last = strrchr(path, '/');

	return v != NULL && (*v == '\0' || (last != NULL && strcmp(v, last + 1) == 0));
}

/* As micro_http writes it: no reason, and nothing of a body that 204 does not have. */
static void
respond(int fd, const struct answer *a)
{
	size_t len = a->body == NULL ? 0 : strlen(a->body);
	char head[256], content[96] = "";
	struct why why;

	if (a->status != 204)
		snprintf(content, sizeof(content),
		    "Content-Type: application/json\r\nContent-Length: %zu\r\n", len);
	snprintf(head, sizeof(head),
	    "HTTP/1.1 %d \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n%s\r\n",
	    a->status, content);
	if (wire_write(fd, head, strlen(head), &why) == 0 && len > 0)
		wire_write(fd, a->body, len, &why);
}

static void
answer(int fd, const struct http_request *q)
{
	static const char garbage[] = "SSH-2.0-OpenSSH_9.2p1\r\n\0\xff\xfe{\"state\": \r\n\r\n";
	struct answer a;
	struct why why;

	if (lie("api-slow") != NULL)
		usleep((unsigned)atoi(lie("api-slow")) * 1000);
	if (lie_for("api-silent", q->path))
		return;
	if (lie_for("api-close", q->path)) {
		shutdown(fd, SHUT_RDWR);
		return;
	}
	if (lie_for("api-garbage", q->path)) {
		wire_write(fd, garbage, sizeof(garbage), &why);
		return;
	}
	if (lie_for("api-500", q->path))
		a = refuse(500, "Internal Server Error", "a \"lie\"\nof two lines", NULL, NULL);
	else if (lie_for("api-no-json", q->path))
		a = (struct answer){ .status = 200, .body = strdup("{\"state\": ") };
	else
		a = api_answer(q);
	respond(fd, &a);
	free(a.body);
	if (a.exit)
		quit(0);
}

/* The length of the whole request in c->buf, 0: it has not all come, or what is no HTTP. */
static size_t
parse(const struct client *c, struct http_request *q)
{
	char *end = memmem(c->buf, c->len, "\r\n\r\n", 4);

	if (end == NULL)
		return 0;
	size_t head = (size_t)(end - c->buf) + 4;
	*q = (struct http_request){ .len = 0 };
	if (sscanf(c->buf, "%7s %255s", q->method, q->path) != 2)
		return 0;
	for (char *line = c->buf; line < end; line = strstr(line, "\r\n") + 2)
		if (strncasecmp(line, "Content-Length:", 15) == 0)
			q->len = strtoul(line + 15, NULL, 10);
	if (q->len > BODY_MAX || c->len < head + q->len)
		return 0;
	q->body = q->len > 0 ? c->buf + head : NULL;
	return head + q->len;
}

/* -1: the client has gone. */
static int
serve(struct client *c)
{
	struct http_request q;
	ssize_t n = read(c->fd, c->buf + c->len, BODY_MAX + 4096 - c->len);

	if (n <= 0)
		return -1;
	c->len += (size_t)n;
	c->buf[c->len] = '\0';
	for (size_t used; (used = parse(c, &q)) > 0;) {
		answer(c->fd, &q);
		memmove(c->buf, c->buf + used, c->len - used + 1);
		c->len -= used;
	}
	return 0;
}

static void
drop(struct client *c)
{
	close(c->fd);
	free(c->buf);
	*c = (struct client){ .fd = -1 };
}

static void
welcome(struct client *list, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	for (size_t i = 0; i < CLIENTS_MAX && fd != -1; i++)
		if (list[i].fd == -1) {
			list[i] = (struct client){ fd, malloc(BODY_MAX + 8192), 0 };
			return;
		}
	if (fd != -1)
		close(fd);
}

static void *
loop(void *arg)
{
	struct pollfd p[CLIENTS_MAX + 1];
	struct client list[CLIENTS_MAX];

	for (size_t i = 0; i < CLIENTS_MAX; i++)
		list[i].fd = -1;
	for (;;) {
		p[CLIENTS_MAX] = (struct pollfd){ *(int *)arg, POLLIN, 0 };
		for (size_t i = 0; i < CLIENTS_MAX; i++)
			p[i] = (struct pollfd){ list[i].fd, POLLIN, 0 };
		if (poll(p, CLIENTS_MAX + 1, -1) == -1)
			continue;
		for (size_t i = 0; i < CLIENTS_MAX; i++)
			if (p[i].revents != 0 && serve(&list[i]) == -1)
				drop(&list[i]);
		if (p[CLIENTS_MAX].revents != 0)
			welcome(list, *(int *)arg);
	}
	return NULL;
}

/* Whoever calls listen is its peer: a process that stays as long as this one. */
static int
launched(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), done[2], alive[2];
	char c;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (fd == -1 || pipe(done) == -1 || pipe(alive) == -1)
		return -1;
	if (fork() == 0) {
		if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == -1 || listen(fd, 8) == -1)
			_exit(1);
		close(fd);
		close(done[0]);
		close(done[1]);
		close(alive[1]);
		_exit(read(alive[0], &c, 1) != 0);
	}
	close(done[1]);
	if (read(done[0], &c, 1) != 0)
		return -1;
	return fd;
}

int
api_start(const char *path, struct why *why)
{
	static int listener;
	pthread_t thread;

	if (lie("api-late") != NULL)
		usleep((unsigned)atoi(lie("api-late")) * 1000);
	unlink(path);
	listener = lie("api-launcher") != NULL ? launched(path) : wire_listen(path, why);
	if (listener == -1)
		return -1;
	if (pthread_create(&thread, NULL, loop, &listener) != 0)
		return -1;
	pthread_detach(thread);
	return 0;
}

/* ---- the other end ---- */

static int
connect_patiently(const char *path, struct why *why)
{
	int fd = wire_connect(path, why);

	for (int i = 0; i < 1000 && fd == -1; i++) {
		usleep(10000);
		fd = wire_connect(path, why);
	}
	return fd;
}

int
api_request(const char *socket, const char *method, const char *path, const char *body)
{
	size_t len = body == NULL ? 0 : strlen(body);
	struct why why;
	int fd = connect_patiently(socket, &why), status = 0;
	char head[512], *buf = calloc(1, BODY_MAX), *end = NULL;
	size_t have = 0;

	snprintf(head, sizeof(head),
	    "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", method, path,
	    len);
	if (fd == -1 || buf == NULL || wire_write(fd, head, strlen(head), &why) == -1 ||
	    (len > 0 && wire_write(fd, body, len, &why) == -1)) {
		say("%s", why.text);
		return 2;
	}
	for (ssize_t n; have < BODY_MAX - 1; have += (size_t)n) {
		const char *told = strstr(buf, "Content-Length:");

		end = strstr(buf, "\r\n\r\n");
		if (have >= 5 && strncmp(buf, "HTTP/", 5) != 0)
			break;
		if (end != NULL &&
		    have >= (size_t)(end - buf) + 4 +
				(told == NULL ? 0 : strtoul(told + 15, NULL, 10)))
			break;
		n = read(fd, buf + have, BODY_MAX - 1 - have);
		if (n <= 0)
			break;
	}
	if (sscanf(buf, "HTTP/1.1 %d", &status) != 1 || end == NULL) {
		say("no answer");
		return 2;
	}
	printf("%d\n%s%s", status, end + 4, end[4] == '\0' ? "" : "\n");
	free(buf);
	return status / 100 == 2 ? 0 : 1;
}
