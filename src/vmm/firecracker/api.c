/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/api.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "vmm/http-await.h"
#include "vmm/http.h"
#include "vmm/json-read.h"
#include "vmm/wait.h"

#define AGAIN_MS 100 /* between two attempts to resume a VM */
#define TOO_MANY 503 /* connections, it says, and hangs up */

static struct http_request
request(const struct fc_api *a, const char *method, const char *path, const char *body)
{
	return (struct http_request){ .socket = a->socket,
		.method = method,
		.path = path,
		.body = body,
		.timeout_ms = a->timeout_ms,
		.stop_fd = a->stop_fd };
}

int
fc_api_get(
    const struct fc_api *a, const char *path, const char *what, json_t **out, struct err *e)
{
	const struct http_request r = request(a, "GET", path, NULL);
	struct err ignored = ERR_INIT;
	struct http_reply reply;

	if (http_expect(&r, what, &reply, e) == -1)
		return -1;
	*out = json_read(reply.body, reply.len, JSON_REJECT_DUPLICATES, &ignored);
	http_reply_fini(&reply);
	if (json_is_object(*out))
		return 0;
	json_decref(*out);
	return err_set(
	    e, ERR_CORRUPT, "%s: GET %s: what is answered is no JSON object", what, path);
}

int
fc_api_send(const struct fc_api *a, const char *method, const char *path, json_t *body,
    const char *what, struct err *e)
{
	char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
	struct http_request r;
	int rc;

	json_decref(body);
	if (text == NULL)
		return err_set(
		    e, ERR_FAILED, "%s: no memory, or a path that is no UTF-8", what);
	r = request(a, method, path, text);
	rc = http_expect(&r, what, NULL, e);
	free(text);
	return rc;
}

int
fc_api_set_state(const struct fc_api *a, const char *state, struct err *e)
{
	return fc_api_send(a, "PATCH", "/vm", json_pack("{s:s}", "state", state),
	    strcmp(state, "Paused") == 0 ? "pause the VM" : "resume the VM", e);
}

static bool
has_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return pidfd != -1 && poll(&p, 1, 0) == 1;
}

/* Once: 1 if another attempt may do better. */
static int
try_to_resume(const struct fc_api *a, struct err *e)
{
	const struct http_request r = request(a, "PATCH", "/vm", "{\"state\":\"Resumed\"}");
	struct http_reply reply;
	int rc;

	*e = (struct err)ERR_INIT;
	rc = http_call(&r, &reply, e);
	if (rc == -1) {
		err_wrap(e, "resume the VM");
		return http_is_final(e) ? -1 : 1;
	}
	rc = http_check(&reply, "resume the VM", e);
	if (rc == -1 && reply.status == TOO_MANY)
		rc = 1;
	http_reply_fini(&reply);
	return rc;
}

int
fc_api_resume(const struct fc_api *a, int pidfd, struct err *e)
{
	struct fc_api patient = *a;
	bool told = false;
	int rc;

	patient.timeout_ms = -1;
	patient.stop_fd = -1;
	while ((rc = try_to_resume(&patient, e)) == 1) {
		if (has_ended(pidfd))
			return -1;
		if (!told)
			log_warn("%s: trying again", e->msg);
		told = true;
		poll(NULL, 0, AGAIN_MS);
	}
	return rc;
}

/* Its queue of connections may be full: a moment later it is not. */
static int
connect_to(const struct fc_api *a, int sock, const struct sockaddr_un *addr, struct err *e)
{
	int64_t end = a->timeout_ms < 0 ? -1 : wait_now_ms() + a->timeout_ms;

	while (connect(sock, (const struct sockaddr *)addr, sizeof(*addr)) == -1) {
		if (errno != EAGAIN && errno != EINTR)
			return err_sys(e, "%s: connect", a->socket);
		if (http_is_late(end))
			return err_set(
			    e, ERR_FAILED, "%s: nobody accepts the connection", a->socket);
		if (http_pause(a->stop_fd, -1, end))
			return wait_interrupted("connection", e);
	}
	return 0;
}

int
fc_api_peer(const struct fc_api *a, pid_t *pid, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int sock, rc;

	if (strlen(a->socket) >= sizeof(addr.sun_path))
		return err_set(
		    e, ERR_FAILED, "%s: too long for the path of a socket", a->socket);
	memcpy(addr.sun_path, a->socket, strlen(a->socket));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock == -1)
		return err_sys(e, "socket");
	rc = connect_to(a, sock, &addr, e);
	if (rc == 0 && getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1)
		rc = err_sys(e, "%s: who listens", a->socket);
	if (rc == 0)
		*pid = cred.pid;
	fd_close(&sock);
	return rc;
}
