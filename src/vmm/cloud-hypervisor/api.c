/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/api.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/thread.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/http.h"
#include "vmm/json-read.h"
#include "vmm/text.h"
#include "vmm/wait.h"

#define API "/api/v1/"
#define VERB_MAX 48
#define PATH_MAX_LEN (sizeof(API) + VERB_MAX)
#define POLL_MS_MAX 100
#define ATTEMPTS 5 /* to make the VM what it was … */
#define AGAIN_MS 100 /* … so far apart */
#define STATUS_MAX (64u << 10) /* of /proc/PID/status, bytes */

static int
call(const struct ch_api *a, const char *method, const char *verb, const char *body,
    struct http_reply *reply, struct err *e)
{
	char path[PATH_MAX_LEN];
	const struct http_request r = {
		.socket = a->socket,
		.method = method,
		.path = path,
		.body = body,
		.timeout_ms = a->timeout_ms,
		.stop_fd = a->stop_fd,
	};

	snprintf(path, sizeof(path), API "%.*s", VERB_MAX, verb);
	return http_expect(&r, verb, reply, e);
}

/* GET; the reply (the caller's) is an object. */
static int
get(const struct ch_api *a, const char *verb, json_t **out, struct err *e)
{
	struct http_reply reply;
	struct err ignored = ERR_INIT;

	if (call(a, "GET", verb, NULL, &reply, e) == -1)
		return -1;
	*out = json_read(reply.body, reply.len, CH_JSON, &ignored);
	http_reply_fini(&reply);
	if (json_is_object(*out))
		return 0;
	json_decref(*out);
	return err_set(e, ERR_CORRUPT, "%s: the answer is no JSON object", verb);
}

/* The first number of "v53.0-12-gabcdef"; 0: it has none. */
static unsigned
major_of(const char *version)
{
	return (unsigned)strtoul(version + (*version == 'v'), NULL, 10);
}

static int
copy_text(char *to, size_t size, const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (text == NULL || *text == '\0')
		return -1;
	snprintf(to, size, "%s", text);
	text_make_printable(to);
	return 0;
}

/*
 * The text is what the source was released as, or is going to be; the build is what the tree
 * was tagged as, by whomever.  The lower of the two has all that it claims.
 */
static int
judge_version(struct ch_version *v, struct err *e)
{
	unsigned text = major_of(v->text), build = major_of(v->build);

	if (text == 0)
		text = build;
	if (text == 0)
		return err_set(e, ERR_UNSUPPORTED,
		    "vmm.ping: \"%s\" is no version: is it Cloud Hypervisor that listens "
		    "there?",
		    v->text);
	if (text < CH_OLDEST)
		return err_set(e, ERR_UNSUPPORTED,
		    "Cloud Hypervisor %s is too old: it has to be %d.0 or later",
		    *v->text != '\0' ? v->text : v->build, CH_OLDEST);
	v->major = build == 0 ? text : MIN(text, build);
	return 0;
}

int
ch_api_ping(const struct ch_api *a, struct ch_version *v, struct err *e)
{
	json_t *reply;
	double pid;

	*v = (struct ch_version){ 0 };
	if (get(a, "vmm.ping", &reply, e) == -1)
		return -1;
	copy_text(v->text, sizeof(v->text), reply, "version");
	copy_text(v->build, sizeof(v->build), reply, "build_version");
	pid = json_number_value(json_object_get(reply, "pid"));
	if (pid > 0 && pid <= INT_MAX)
		v->pid = (pid_t)pid;
	json_decref(reply);
	return judge_version(v, e);
}

int
ch_api_info(const struct ch_api *a, char state[CH_STATE_MAX], json_t **config, struct err *e)
{
	json_t *reply;
	int r;

	if (get(a, "vm.info", &reply, e) == -1)
		return -1;
	r = copy_text(state, CH_STATE_MAX, reply, "state");
	if (r == 0 && config != NULL)
		*config = json_incref(json_object_get(reply, "config"));
	json_decref(reply);
	if (r == 0)
		return 0;
	return err_set(e, ERR_CORRUPT, "vm.info: it does not tell the VM's state");
}

int
ch_api_vm(const struct ch_api *a, const char *verb, bool *refused, struct err *e)
{
	struct http_reply reply;
	int r = call(a, "PUT", verb, NULL, &reply, e);

	if (refused != NULL)
		*refused = r == -1 && reply.status != 0;
	http_reply_fini(&reply);
	return r;
}

/* ---- after a migration ---- */

/*
 * Whether the VM is its own again: until then vm.info tells what it was before, and only
 * what needs the VM itself is refused.  1, 0, or -1 when nobody listens any more.
 */
static int
is_settled(const struct ch_api *a, struct err *e)
{
	const struct http_request r = {
		.socket = a->socket,
		.method = "GET",
		.path = API "vm.counters",
		.timeout_ms = a->timeout_ms,
		.stop_fd = a->stop_fd,
	};
	struct http_reply reply;
	int settled;

	if (http_call(&r, &reply, e) == -1)
		return -1;
	/* 404: such a request does not exist there, which tells nothing. */
	settled = reply.status / 100 == 2 || reply.status == 404;
	http_reply_fini(&reply);
	return settled;
}

static int
await_settled(const struct ch_api *a, int64_t end_ms, struct err *e)
{
	int ms = 1, r;

	while ((r = is_settled(a, e)) == 0) {
		if (a->timeout_ms != -1 && wait_now_ms() >= end_ms)
			return err_set(e, ERR_FAILED, "the migration is not over within %d ms",
			    a->timeout_ms);
		poll(NULL, 0, ms);
		ms = MIN(ms * 2, POLL_MS_MAX);
	}
	return r == -1 ? -1 : 0;
}

static int
make_run(const struct ch_api *a, char state[CH_STATE_MAX], struct err *e)
{
	if (ch_api_vm(a, "vm.resume", NULL, e) == -1 || ch_api_info(a, state, NULL, e) == -1)
		return -1;
	if (strcmp(state, "Running") == 0)
		return 0;
	return err_set(e, ERR_FAILED, "the VM is \"%s\" after vm.resume", state);
}

static int
settle_once(
    const struct ch_api *a, int64_t end_ms, bool run, enum vmm_outcome *outcome, struct err *e)
{
	char state[CH_STATE_MAX] = "";
	int r = 0;

	*outcome = VMM_UNKNOWN;
	if (await_settled(a, end_ms, e) == -1 || ch_api_info(a, state, NULL, e) == -1)
		return -1;
	if (run && strcmp(state, "Paused") == 0)
		r = make_run(a, state, e);
	else if (!run && strcmp(state, "Running") == 0)
		r = err_set(e, ERR_FAILED, "the VM runs though it was to stay paused");
	if (strcmp(state, "Running") == 0)
		*outcome = VMM_RUNS;
	else if (strcmp(state, "Paused") == 0)
		*outcome = VMM_PAUSED;
	else if (r == 0)
		r = err_set(e, ERR_FAILED, "the VM is \"%s\"", state);
	return r;
}

/* A VM that stays paused is the worst: what has failed once may not do so again. */
int
ch_api_settle(const struct ch_api *a, bool run, enum vmm_outcome *outcome, struct err *e)
{
	int64_t end_ms = wait_now_ms() + a->timeout_ms;
	unsigned left = ATTEMPTS;

	while (settle_once(a, end_ms, run, outcome, e) == -1) {
		if (--left == 0 || http_is_final(e) ||
		    (a->timeout_ms != -1 && wait_now_ms() >= end_ms))
			return -1;
		poll(NULL, 0, AGAIN_MS);
		*e = (struct err)ERR_INIT;
	}
	return 0;
}

pid_t
ch_api_peer(const char *socket_path, uid_t *uid)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	int fd;

	if (strlen(socket_path) >= sizeof(sa.sun_path))
		return 0;
	memcpy(sa.sun_path, socket_path, strlen(socket_path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return 0;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == -1 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		peer = (struct ucred){ .uid = getuid() };
	fd_close(&fd);
	*uid = peer.uid;
	return peer.pid;
}

/* What a process is called in its own pid namespace, which is below ours if *nested. */
static pid_t
own_pid(pid_t pid, bool *nested)
{
	struct err ignored = ERR_INIT;
	char path[64], *text, *line, *end;
	long first = 0, last = 0;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (fd_slurp(path, STATUS_MAX, &text, &len, &ignored) == -1)
		return 0;
	line = strstr(text, "\nNSpid:");
	if (line != NULL) {
		first = last = strtol(line + 7, &end, 10);
		*nested = *end == '\t';
		while (*end == '\t')
			last = strtol(end, &end, 10);
	}
	free(text);
	return first == pid ? (pid_t)last : 0;
}

pid_t
ch_api_vmm(pid_t peer, const struct ch_version *v)
{
	bool nested = false;

	if (v->pid <= 0 || v->pid == peer || (peer != 0 && own_pid(peer, &nested) == v->pid))
		return peer;
	return own_pid(v->pid, &nested) == v->pid && !nested ? v->pid : peer;
}

/* ---- a request of its own ---- */

struct ch_request_thread {
	struct ch_api api;
	char verb[VERB_MAX];
	char *body; /* owned */
	int done_fd, failed_fd, cancel_fd; /* eventfds */
	pthread_t thread;
	bool started;
	atomic_bool done; /* what follows is there */
	int rc;
	bool refused; /* it was answered, with an error */
	struct err err;
};

static void *
request_main(void *arg)
{
	struct ch_request_thread *t = arg;
	struct http_reply reply;

	t->rc = call(&t->api, "PUT", t->verb, t->body, &reply, &t->err);
	t->refused = t->rc == -1 && reply.status != 0;
	http_reply_fini(&reply);
	atomic_store(&t->done, true);
	if (t->rc == -1)
		fd_poke(t->failed_fd);
	fd_poke(t->done_fd);
	return NULL;
}

/* Signals are for the main thread. */
static int
start_thread(struct ch_request_thread *t)
{
	if (quiet_thread(&t->thread, request_main, t, NULL) == -1)
		return -1;
	t->started = true;
	return 0;
}

int
ch_api_begin(struct ch_request_thread **out, const struct ch_api *a, const char *verb,
    const char *body, struct err *e)
{
	struct ch_request_thread *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return err_sys(e, "%s", verb);
	snprintf(t->verb, sizeof(t->verb), "%s", verb);
	t->body = strdup(body);
	t->done_fd = eventfd(0, EFD_CLOEXEC);
	t->failed_fd = eventfd(0, EFD_CLOEXEC);
	t->cancel_fd = eventfd(0, EFD_CLOEXEC);
	/* What bounds it is the conversation that it begins. */
	t->api = (struct ch_api){
		.socket = a->socket,
		.timeout_ms = -1,
		.stop_fd = t->cancel_fd,
	};
	if (t->body == NULL || t->done_fd == -1 || t->failed_fd == -1 || t->cancel_fd == -1 ||
	    start_thread(t) == -1) {
		err_sys(e, "%s", verb);
		ch_api_end(t);
		return -1;
	}
	*out = t;
	return 0;
}

int
ch_api_failed_fd(const struct ch_request_thread *t)
{
	return t->failed_fd;
}

int
ch_api_result(struct ch_request_thread *t, int ms, struct err *e)
{
	struct pollfd p = { .fd = t->done_fd, .events = POLLIN };
	int64_t end_ms = wait_now_ms() + ms;
	int r;

	do
		r = poll(&p, 1, ms == -1 ? -1 : (int)MAX(end_ms - wait_now_ms(), 0));
	while (r == -1 && errno == EINTR);
	if (r != 1 || !atomic_load(&t->done))
		return 0;
	if (t->rc == 0)
		return 1;
	*e = t->err;
	return -1;
}

bool
ch_api_refused(const struct ch_request_thread *t)
{
	return t->refused;
}

void
ch_api_end(struct ch_request_thread *t)
{
	if (t == NULL)
		return;
	if (t->started) {
		fd_poke(t->cancel_fd);
		pthread_join(t->thread, NULL);
	}
	fd_close(&t->done_fd);
	fd_close(&t->failed_fd);
	fd_close(&t->cancel_fd);
	free(t->body);
	free(t);
}
