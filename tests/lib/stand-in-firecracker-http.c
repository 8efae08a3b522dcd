/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * HTTP/1.1 over the API socket, as the API thread of Firecracker: one request after the
 * other, whoever it is from, on at most ten connections that stay open.
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

#include "stand-in-firecracker.h"

#define CONNECTIONS 10
#define REQUEST_MAX 65536u
#define BODY_MAX 51200u

struct connection {
	int fd;
	size_t len;
	char *buf;
};

/* A request in a connection's buffer; all texts end with NUL. */
struct request {
	char method[16], path[256];
	char *body;
	size_t head, total; /* bytes */
};

static struct connection connections[CONNECTIONS];
static size_t nconnections;

static int
listen_at(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock == -1 || strlen(path) >= sizeof(sa.sun_path))
		quit(EXIT_USAGE, "%s: no socket can be there", path);
	memcpy(sa.sun_path, path, strlen(path));
	if (bind(sock, (struct sockaddr *)&sa, sizeof(sa)) == -1 || listen(sock, 10) == -1)
		quit(EXIT_LOAD,
		    "Failed to open the API socket at: %s. Check that it is not already used.",
		    path);
	return sock;
}

/* ---- answers ---- */

static const char *
reason(int status)
{
	/* micro-http sends no reason phrase. */
	(void)status;
	return "";
}

static void
say(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static size_t
print_answer(char *text, size_t size, const struct answer *a)
{
	size_t n = (size_t)snprintf(text, size,
	    "HTTP/1.1 %d %s\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n%s",
	    a->status, reason(a->status), a->deprecated ? "Deprecation: true\r\n" : "");

	if (a->status == 204)
		n += (size_t)snprintf(text + n, size - n, "\r\n");
	else
		n += (size_t)snprintf(text + n, size - n,
		    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		    strlen(a->body), a->body);
	return n;
}

static void
say_much(int fd)
{
	static char page[PAGE];

	memset(page, 'x', sizeof(page));
	say(fd, "HTTP/1.1 200 \r\nContent-Length: 16777216\r\n\r\n", 43);
	for (int i = 0; i < 4096; i++)
		say(fd, page, sizeof(page));
}

/* Whether --api wants trouble here: MODE, or MODE:PART OF THE PATH. */
static bool
troubled(const char *mode, const char *path)
{
	size_t n = strlen(mode);

	if (opt.api == NULL || strncmp(opt.api, mode, n) != 0)
		return false;
	return opt.api[n] == 0 || (opt.api[n] == ':' && strstr(path, opt.api + n + 1) != NULL);
}

/* Before anything is done; false: there will be no answer. */
static bool
trouble_before(struct connection *c, const struct request *r, struct answer *a)
{
	static int busy;

	if (troubled("silent", r->path))
		return false;
	if (troubled("close", r->path)) {
		shutdown(c->fd, SHUT_RDWR);
		return false;
	}
	if (troubled("die", r->path))
		die_at(NULL);
	if (troubled("slow", r->path))
		sleep_ms(2000);
	if (troubled("busy", r->path) && strstr(r->body, "Resumed") != NULL && busy++ < 3)
		a->status = 503;
	if (troubled("refuse", r->path))
		fault(a, "The requested operation is not supported: --api refuse \\u001b[31m");
	return true;
}

static void
send_answer(struct connection *c, const struct request *r, const struct answer *a)
{
	char text[4096];
	size_t n = print_answer(text, sizeof(text), a);

	if (troubled("garbage", r->path))
		say(c->fd, "\x01\x02 this is no HTTP\r\n\r\n", 22);
	else if (troubled("much", r->path))
		say_much(c->fd);
	else if (troubled("half", r->path))
		say(c->fd, text, n / 2);
	else if (!troubled("done-silent", r->path))
		say(c->fd, text, n);
	if (troubled("garbage", r->path) || troubled("half", r->path))
		shutdown(c->fd, SHUT_RDWR);
	if (a->ends)
		quit(EXIT_LOAD, "%s", a->body);
}

/* ---- requests ---- */

static size_t
content_length(const char *head)
{
	for (const char *p = strstr(head, "\r\n"); p != NULL; p = strstr(p + 2, "\r\n"))
		if (strncasecmp(p + 2, "Content-Length:", 15) == 0)
			return strtoul(p + 17, NULL, 10);
	return 0;
}

/* 1: a whole one; 0: there is more to come; -1: nonsense, answered. */
static int
parse(struct connection *c, struct request *r, struct answer *a)
{
	char *end = memmem(c->buf, c->len, "\r\n\r\n", 4), version[16];
	size_t body;

	if (end == NULL)
		return 0;
	*end = 0;
	if (sscanf(c->buf, "%15s %255s %15[^\r]", r->method, r->path, version) != 3 ||
	    strncmp(version, "HTTP/1.", 7) != 0) {
		fault(a, "Invalid request.");
		return -1;
	}
	body = content_length(c->buf);
	*end = '\r';
	if (body > BODY_MAX) {
		fault(a, "Request payload with size %zu is larger than the limit of %u bytes.",
		    body, BODY_MAX);
		return -1;
	}
	r->head = (size_t)(end - c->buf) + 4;
	r->total = r->head + body;
	return c->len >= r->total;
}

static void
handle(struct connection *c, struct request *r)
{
	struct answer a = { .status = 0 };

	r->body = strndup(c->buf + r->head, r->total - r->head);
	if (r->body == NULL)
		quit(EXIT_CALL, "no memory");
	if (trouble_before(c, r, &a)) {
		if (a.status == 0)
			api_request(r->method, r->path, r->body[0] == 0 ? NULL : r->body, &a);
		send_answer(c, r, &a);
	}
	free(r->body);
	c->len -= r->total;
	memmove(c->buf, c->buf + r->total, c->len);
}

/* false: the connection is over. */
static bool
receive(struct connection *c)
{
	ssize_t n = recv(c->fd, c->buf + c->len, REQUEST_MAX - c->len, 0);
	struct request r;
	struct answer a = { .status = 0 };
	char text[4096];
	int rc;

	if (n <= 0)
		return false;
	c->len += (size_t)n;
	while ((rc = parse(c, &r, &a)) == 1)
		handle(c, &r);
	if (rc == -1)
		say(c->fd, text, print_answer(text, sizeof(text), &a));
	return rc == 0 && c->len < REQUEST_MAX;
}

static void
accept_one(int sock)
{
	int fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
	struct connection *c = &connections[nconnections];

	if (fd == -1)
		return;
	if (nconnections == CONNECTIONS) {
		say(fd, "HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", 37);
		close(fd);
		return;
	}
	nconnections++;
	c->fd = fd;
	c->len = 0;
	if (c->buf == NULL)
		c->buf = malloc(REQUEST_MAX);
	if (c->buf == NULL)
		quit(EXIT_CALL, "no memory");
}

static void
hang_up(size_t i)
{
	struct connection last = connections[--nconnections];

	close(connections[i].fd);
	connections[nconnections] = connections[i];
	connections[i] = last;
	connections[nconnections].fd = -1;
}

void
http_serve(void)
{
	int sock = listen_at(opt.api_sock);

	for (;;) {
		struct pollfd fds[CONNECTIONS + 1] = { { .fd = sock, .events = POLLIN } };
		size_t n = nconnections;

		for (size_t i = 0; i < n; i++)
			fds[i + 1] =
			    (struct pollfd){ .fd = connections[i].fd, .events = POLLIN };
		if (poll(fds, n + 1, -1) == -1)
			continue;
		for (size_t i = n; i-- > 0;)
			if (fds[i + 1].revents != 0 && !receive(&connections[i]))
				hang_up(i);
		if (fds[0].revents != 0)
			accept_one(sock);
	}
}
