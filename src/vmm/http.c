/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/http.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "vmm/http-await.h"
#include "vmm/http-curl.h"
#include "vmm/json-read.h"
#include "vmm/text.h"
#include "vmm/wait.h"

#define HEADERS_MAX (64 << 10)
#define SAID_MAX 300 /* of what a VMM says into a message */

/* A request on its way. */
struct call {
	const struct curl_functions *curl;
	const struct http_request *r;
	struct http_reply *reply;
	size_t room; /* of the body, without the NUL */
	size_t headers; /* bytes that came */
	int64_t end; /* wait_now_ms; -1: never */
	int sock; /* a duplicate of the one that libcurl uses, or -1 */
	bool headers_end; /* the empty line came */
	bool too_long, no_memory;
	CURL *easy;
	CURLM *multi;
	struct curl_slist *list;
	char error[CURL_ERROR_SIZE];
};

/* ---- what libcurl calls ---- */

static size_t
on_body(char *data, size_t size, size_t n, void *arg)
{
	struct call *c = arg;
	size_t len = size * n, want = c->reply->len + len;

	if (want > HTTP_BODY_MAX) {
		c->too_long = true;
		return 0;
	}
	if (want > c->room) {
		size_t room = MIN(MAX(2 * c->room, want), (size_t)HTTP_BODY_MAX);
		char *body = realloc(c->reply->body, room + 1);

		if (body == NULL) {
			c->no_memory = true;
			return 0;
		}
		c->reply->body = body;
		c->room = room;
	}
	memcpy(c->reply->body + c->reply->len, data, len);
	c->reply->len = want;
	c->reply->body[want] = '\0';
	return len;
}

/* Nothing in them is of interest, but they must end. */
static size_t
on_header(char *data, size_t size, size_t n, void *arg)
{
	struct call *c = arg;

	c->headers_end = *data == '\r' || *data == '\n';
	c->headers += size * n;
	c->too_long = c->headers > HEADERS_MAX;
	return c->too_long ? 0 : size * n;
}

/* We keep a duplicate, to see whether it was ever connected. */
static curl_socket_t
on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct call *c = arg;
	int sock = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

	(void)purpose;
	fd_close(&c->sock);
	if (sock != -1)
		c->sock = fcntl(sock, F_DUPFD_CLOEXEC, 3);
	return sock;
}

/* ---- setting up ---- */

static bool
set_header(struct call *c, const char *line)
{
	struct curl_slist *list = c->curl->slist_append(c->list, line);

	if (list != NULL)
		c->list = list;
	return list != NULL;
}

#define SET(option, value) (c->curl->easy_setopt(c->easy, (option), (value)) == CURLE_OK)

/* Where it goes: nowhere else, whatever the environment says. */
static bool
set_target(struct call *c)
{
	char url[1024];
	int n = snprintf(url, sizeof(url), "http://localhost%s", c->r->path);

	return n > 0 && (size_t)n < sizeof(url) && SET(CURLOPT_URL, url) &&
	       SET(CURLOPT_UNIX_SOCKET_PATH, c->r->socket) && SET(CURLOPT_PROXY, "") &&
	       SET(CURLOPT_NOPROXY, "*") && SET(CURLOPT_PROTOCOLS_STR, "http") &&
	       SET(CURLOPT_FOLLOWLOCATION, 0L) &&
	       SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) &&
	       SET(CURLOPT_OPENSOCKETFUNCTION, on_open) && SET(CURLOPT_OPENSOCKETDATA, c) &&
	       SET(CURLOPT_FORBID_REUSE, 1L) && SET(CURLOPT_FRESH_CONNECT, 1L) &&
	       SET(CURLOPT_NOSIGNAL, 1L);
}

static bool
set_request(struct call *c)
{
	const char *body = c->r->body;

	if (body != NULL && (!SET(CURLOPT_POSTFIELDSIZE, (long)strlen(body)) ||
				!SET(CURLOPT_POSTFIELDS, body) ||
				!set_header(c, "Content-Type: application/json")))
		return false;
	return set_header(c, "Accept: application/json") && set_header(c, "Expect:") &&
	       SET(CURLOPT_HTTPHEADER, c->list) && SET(CURLOPT_CUSTOMREQUEST, c->r->method) &&
	       SET(CURLOPT_USERAGENT, "gmem") && SET(CURLOPT_ERRORBUFFER, c->error) &&
	       SET(CURLOPT_WRITEFUNCTION, on_body) && SET(CURLOPT_WRITEDATA, c) &&
	       SET(CURLOPT_HEADERFUNCTION, on_header) && SET(CURLOPT_HEADERDATA, c);
}

static int
set_up(struct call *c, struct err *e)
{
	c->curl = curl_load(e);
	if (c->curl == NULL)
		return -1;
	c->easy = c->curl->easy_init();
	c->multi = c->curl->multi_init();
	c->reply->body = calloc(1, 1);
	if (c->easy == NULL || c->multi == NULL || c->reply->body == NULL || !set_target(c) ||
	    !set_request(c))
		return err_set(e, ERR_FAILED, "libcurl takes no request");
	return 0;
}

static void
tear_down(struct call *c)
{
	fd_close(&c->sock);
	if (c->curl == NULL)
		return;
	c->curl->easy_cleanup(c->easy);
	c->curl->multi_cleanup(c->multi);
	c->curl->slist_free_all(c->list);
}

/* ---- the conversation ---- */

static int
sysno_of(const struct call *c)
{
	long sysno = 0;

	c->curl->easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &sysno);
	return (int)sysno;
}

/*
 * Whether the socket's queue of connections was full.  Linux says EAGAIN of that at once, which
 * libcurl takes for a connection on its way, and then fails without a reason or to send.
 */
static bool
queue_was_full(const struct call *c, CURLcode code)
{
	struct sockaddr_un peer;
	socklen_t len = sizeof(peer);

	if (code == CURLE_COULDNT_CONNECT && sysno_of(c) != 0 && sysno_of(c) != EAGAIN)
		return false;
	return (code == CURLE_COULDNT_CONNECT || code == CURLE_SEND_ERROR) && c->sock != -1 &&
	       getpeername(c->sock, (struct sockaddr *)&peer, &len) == -1 && errno == ENOTCONN;
}

/* A path too long is one that libcurl can't resolve. */
static int
no_connection(struct call *c, CURLcode code, struct err *e)
{
	if (code == CURLE_COULDNT_RESOLVE_HOST)
		return err_set(e, ERR_FAILED,
		    "%s: %zu bytes, too long for the path of a socket", c->r->socket,
		    strlen(c->r->socket));
	errno = sysno_of(c);
	return err_sys(e, "%s: connect", c->r->socket);
}

/* Whether the peer has left before it said anything. */
static bool
hung_up(const struct call *c, CURLcode code)
{
	return code == CURLE_GOT_NOTHING || code == CURLE_SEND_ERROR ||
	       (code == CURLE_COULDNT_CONNECT && sysno_of(c) == 0) ||
	       (code == CURLE_RECV_ERROR && c->headers == 0);
}

/* What libcurl has come to. */
static int
outcome(struct call *c, CURLcode code, struct err *e)
{
	if (c->too_long)
		return err_set(e, ERR_CORRUPT, "an answer of more than %d bytes",
		    c->headers > HEADERS_MAX ? HEADERS_MAX : HTTP_BODY_MAX);
	if (c->no_memory)
		return err_set(e, ERR_FAILED, "no memory for the answer");
	if (hung_up(c, code))
		return err_set(
		    e, ERR_FAILED, "the VMM has closed the connection without an answer");
	if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST)
		return no_connection(c, code, e);
	if (code != CURLE_OK || !c->headers_end) {
		text_make_printable(c->error);
		return err_set(e, ERR_FAILED, "no answer that makes sense: %s",
		    c->error[0] != '\0' ? c->error : "it ends too early");
	}
	c->curl->easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &c->reply->status);
	return 0;
}

static int
late(const struct http_request *r, struct err *e)
{
	if (r->timeout_ms < 1000)
		return err_set(e, ERR_FAILED, "no answer within %d ms", r->timeout_ms);
	return err_set(e, ERR_FAILED, "no answer within %d s", r->timeout_ms / 1000);
}

/* Whether it is over, and how. */
static bool
is_over(struct call *c, CURLcode *code)
{
	CURLMsg *m;
	int more;

	while ((m = c->curl->multi_info_read(c->multi, &more)) != NULL)
		if (m->msg == CURLMSG_DONE) {
			*code = m->data.result;
			return true;
		}
	return false;
}

/* Until libcurl has done what it can; -1: the time is over, or somebody wants out. */
static int
wait_for(struct call *c, CURLcode *code, struct err *e)
{
	struct curl_waitfd stop = { .fd = c->r->stop_fd, .events = CURL_WAIT_POLLIN };
	unsigned nstop = c->r->stop_fd == -1 ? 0 : 1;
	int running, left = 1000;
	CURLMcode rc;

	for (;;) {
		rc = c->curl->multi_perform(c->multi, &running);
		if (rc == CURLM_OK && is_over(c, code))
			return 0;
		if (http_is_late(c->end))
			return late(c->r, e);
		if (c->end != -1)
			left = (int)MIN(c->end - wait_now_ms() + 1, (int64_t)1000);
		if (rc == CURLM_OK)
			rc = c->curl->multi_poll(c->multi, &stop, nstop, left, NULL);
		if (rc != CURLM_OK)
			return err_set(
			    e, ERR_FAILED, "libcurl: %s", c->curl->multi_strerror(rc));
		if (stop.revents != 0)
			return wait_interrupted("answer", e);
	}
}

/* Once: 0 with *code, 1 if nobody took the connection, or -1. */
static int
attempt(struct call *c, CURLcode *code, struct err *e)
{
	int rc;

	if (c->curl->multi_add_handle(c->multi, c->easy) != CURLM_OK)
		return err_set(e, ERR_FAILED, "libcurl takes no request");
	rc = wait_for(c, code, e);
	if (rc == 0 && queue_was_full(c, *code))
		rc = 1;
	c->curl->multi_remove_handle(c->multi, c->easy);
	return rc;
}

static int
converse(struct call *c, struct err *e)
{
	CURLcode code = CURLE_OK;
	int rc;

	while ((rc = attempt(c, &code, e)) == 1) {
		if (http_is_late(c->end))
			return err_set(e, ERR_FAILED, "nobody accepts the connection");
		if (http_pause(c->r->stop_fd, -1, c->end))
			return wait_interrupted("connection", e);
	}
	return rc == 0 ? outcome(c, code, e) : -1;
}

bool
http_is_final(const struct err *e)
{
	static const int final[] = { ECONNREFUSED, ENOENT, ENOTDIR, ELOOP, EACCES, EPERM };

	for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++)
		if (e->kind == ERR_SYS && e->sysno == final[i])
			return true;
	return false;
}

int
http_call(const struct http_request *r, struct http_reply *reply, struct err *e)
{
	struct call c = { .r = r, .reply = reply, .sock = -1, .end = -1 };
	int rc;

	*reply = (struct http_reply){ 0 };
	if (r->timeout_ms >= 0)
		c.end = wait_now_ms() + r->timeout_ms;
	rc = set_up(&c, e);
	if (rc == 0)
		rc = converse(&c, e);
	tear_down(&c);
	if (rc == 0)
		return 0;
	http_reply_fini(reply);
	return err_wrap(e, "%s %s", r->method, r->path);
}

void
http_reply_fini(struct http_reply *reply)
{
	free(reply->body);
	*reply = (struct http_reply){ 0 };
}

/* ---- what a VMM says when it says no ---- */

/* Cloud Hypervisor has a list of texts, outermost first. */
static void
join(char out[SAID_MAX], const json_t *list)
{
	size_t i, used = 0;
	json_t *item;

	json_array_foreach(list, i, item)
	{
		const char *text = json_string_value(item);

		if (text == NULL || used >= SAID_MAX - 1)
			continue;
		used += (size_t)snprintf(
		    out + used, SAID_MAX - used, "%s%s", used > 0 ? ": " : "", text);
	}
}

/* Firecracker has {"fault_message": …}; others a text. */
static void
said(char out[SAID_MAX], const struct http_reply *reply)
{
	struct err ignored = ERR_INIT;
	json_t *root = json_read(reply->body, reply->len, 0, &ignored);
	const char *text = json_string_value(json_object_get(root, "fault_message"));

	out[0] = '\0';
	if (text != NULL)
		snprintf(out, SAID_MAX, "%s", text);
	else if (json_is_array(root))
		join(out, root);
	if (out[0] == '\0')
		snprintf(out, SAID_MAX, "%s", reply->body);
	json_decref(root);
	text_make_printable(out);
}

int
http_check(const struct http_reply *reply, const char *what, struct err *e)
{
	char text[SAID_MAX];

	if (reply->status >= 200 && reply->status < 300)
		return 0;
	said(text, reply);
	return err_set(e, ERR_FAILED, "%s: the VMM says %ld%s%s", what, reply->status,
	    text[0] != '\0' ? ": " : "", text);
}

int
http_expect(
    const struct http_request *r, const char *what, struct http_reply *reply, struct err *e)
{
	struct http_reply own;
	long status;
	int rc;

	if (reply == NULL)
		reply = &own;
	if (http_call(r, reply, e) == -1)
		return err_wrap(e, "%s", what);
	rc = http_check(reply, what, e);
	status = reply->status;
	if (rc == -1 || reply == &own)
		http_reply_fini(reply);
	reply->status = status;
	return rc;
}
