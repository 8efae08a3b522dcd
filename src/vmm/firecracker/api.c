/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/api.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fdio.h"
#include "vmm/http.h"

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
	struct http_reply reply;

	if (http_expect(&r, what, &reply, e) == -1)
		return -1;
	*out = json_loadb(reply.body, reply.len, JSON_REJECT_DUPLICATES, NULL);
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

int
fc_api_peer(const struct fc_api *a, pid_t *pid, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int sock, rc = 0;

	if (strlen(a->socket) >= sizeof(addr.sun_path))
		return err_set(
		    e, ERR_FAILED, "%s: too long for the path of a socket", a->socket);
	memcpy(addr.sun_path, a->socket, strlen(a->socket));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock == -1)
		return err_sys(e, "socket");
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
	    getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1)
		rc = err_sys(e, "%s: connect", a->socket);
	else
		*pid = cred.pid;
	fd_close(&sock);
	return rc;
}
