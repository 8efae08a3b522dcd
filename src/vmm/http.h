/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_HTTP_H
#define GMEM_VMM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * The HTTP API of a VMM, over its UNIX socket: one connection for each request, no proxy, no
 * redirection, and nothing of the environment.  The peer is not trusted.  Any thread.
 */

/* All borrowed. */
struct http_request {
	const char *socket; /* path */
	const char *method; /* "PUT" */
	const char *path; /* "/vm" */
	const char *body; /* JSON, or NULL */
	int timeout_ms; /* for all of it, the connection too; -1 for ever */
	int stop_fd; /* readable: somebody wants out; or -1 */
};

#define HTTP_BODY_MAX (1 << 20) /* bytes; more is ERR_CORRUPT */

struct http_reply {
	long status; /* 200 */
	char *body; /* owned, NUL-terminated, never NULL; whatever the peer said */
	size_t len; /* without the NUL */
};

/*
 * 0 whatever the status.  -1 if there was no answer: no connection, a time limit (named in the
 * message), a peer that hung up or speaks no HTTP, or ERR_INTERRUPTED (sysno is SIGINT, who
 * knows better sets it).  The request may have been carried out all the same.
 */
int http_call(const struct http_request *r, struct http_reply *reply, struct err *e);

/* Of such a failure: whether another attempt can't do better, for nobody listens there. */
bool http_is_final(const struct err *e);

/* Leaves it empty; may be called again. */
void http_reply_fini(struct http_reply *reply);

/* Of an answer: an error unless its status is 2xx, as below. */
int http_check(const struct http_reply *reply, const char *what, struct err *e);

/*
 * The same, and an error unless the status is 2xx: "what: the VMM says 400: its message",
 * printable.  reply may be NULL; on failure there is nothing in it but the status, which is 0
 * if there was no answer.
 */
int http_expect(
    const struct http_request *r, const char *what, struct http_reply *reply, struct err *e);

/*
 * Until the socket accepts connections.  Gives up when the process vmm ends (0: unknown), when
 * the time is over (-1: never), or when stop_fd (or -1) becomes readable.
 */
int http_await(const char *socket, pid_t vmm, int timeout_ms, int stop_fd, struct err *e);

#endif
