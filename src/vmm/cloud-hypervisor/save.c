/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "vmm/cloud-hypervisor/api.h"
#include "vmm/cloud-hypervisor/impl.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/cloud-hypervisor/place.h"
#include "vmm/cloud-hypervisor/receive.h"
#include "vmm/guard.h"
#include "vmm/wait.h"

/*
 * Saving: the VMM is told to migrate the VM to a socket where we are.
 *
 * It keeps the VM until we have acknowledged Complete.  Then it is destroyed,
 * unless preserve_source was asked for and is known, which no version number tells for sure:
 * that of a build is what its tree was tagged.  Whoever answers Complete with an error
 * instead has received everything, and the VMM keeps the VM and lets it run again if it ran:
 * that is how it is preserved.  A VMM that knows preserve_source keeps its disks locked too.
 */

#define CMDLINE_MAX (4u << 20)
#define QUIT_MS 30000
#define LAST_MS 2000 /* for a VMM whose sockets are closed to end, or to say what was wrong */

/* A VM whose pages change faster than we take them is paused after this time. */
#define STREAM_S 300

/* What we have of the VM. */
enum step {
	RECEIVED, /* all that it sends; or nothing yet */
	COPIED, /* its memory is in the image */
	COMMITTED, /* the image is complete */
};

struct saver {
	const struct vmm_save *how;
	const struct vmm_sink *sink;
	struct ch_api api;
	char *socket; /* owned: the API's, absolute */
	struct ch_version version;
	pid_t pid; /* 0: it can't be told */
	pid_t stranger; /* who has connected and is not the VMM; or 0 */
	int pidfd; /* or -1 */
	uid_t uid;
	bool was_running;
	bool paused; /* by us, before the migration */
	bool local; /* its memory is handed over, not sent */
	bool untouched; /* the VMM has refused the first thing that we wanted of it */
	struct ch_place place;
	int listener;
	struct ch_request_thread *request;
	struct ch_receiver *receiver; /* of what it sends */
	enum step done;
	struct guard *guard; /* or NULL */
};

/* ---- before anything is touched ---- */

static int
put_argv(struct saver *s, char *text, size_t len, struct err *e)
{
	size_t n = 0, argc = 0;
	char **argv;
	int r;

	for (size_t i = 0; i < len; i++)
		n += text[i] == '\0';
	argv = calloc(n + 2, sizeof(*argv));
	if (argv == NULL)
		return err_sys(e, "command line");
	for (size_t at = 0; at < len; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	r = s->sink->command(s->sink->arg, argv, argc, e);
	free(argv);
	return r;
}

/* The command line is worth no failure. */
static int
put_command(struct saver *s, struct err *e)
{
	struct err ignored = ERR_INIT;
	char path[64], *text;
	size_t len;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)s->pid);
	if (s->pid == 0 || fd_slurp(path, CMDLINE_MAX, &text, &len, &ignored) == -1)
		return 0;
	r = put_argv(s, text, len, e);
	free(text);
	return r;
}

static int
put_facts(struct saver *s, struct err *e)
{
	const struct vmm_sink *k = s->sink;
	char protocol[8];

	snprintf(protocol, sizeof(protocol), "%d", CH_PROTOCOL);
	if (k->fact(k->arg, "kind", CH_KIND, e) == -1 ||
	    k->fact(k->arg, "version", s->version.text, e) == -1 ||
	    (*s->version.build != '\0' &&
		k->fact(k->arg, "build", s->version.build, e) == -1) ||
	    k->fact(k->arg, "protocol", protocol, e) == -1)
		return -1;
	return put_command(s, e);
}

/* What state the VM is in, and how its memory gets to us. */
static int
inspect(struct saver *s, struct err *e)
{
	char state[CH_STATE_MAX];
	struct ch_memory memory;
	json_t *config;
	int r;

	if (ch_api_info(&s->api, state, &config, e) == -1)
		return -1;
	r = ch_memory_of_config(&memory, config, e);
	json_decref(config);
	if (r == -1)
		return -1;
	s->was_running = strcmp(state, "Running") == 0;
	if (!s->was_running && strcmp(state, "Paused") != 0)
		return err_set(e, ERR_FAILED,
		    "the VM is \"%s\": only one that runs or is paused can be saved", state);
	s->local = memory.shared;
	log_debug("the VM is %s, its memory is %s", state,
	    s->local ? "handed over" : "private: it is sent, and collected here");
	return 0;
}

static int
attach(struct saver *s, struct err *e)
{
	pid_t peer = ch_api_peer(s->socket, &s->uid);

	if (ch_api_ping(&s->api, &s->version, e) == -1)
		return -1;
	s->pid = s->how->pid != 0 ? s->how->pid : ch_api_vmm(peer, &s->version);
	if (s->pid != 0)
		s->pidfd = pidfd_open(s->pid, 0);
	if (inspect(s, e) == -1)
		return -1;
	return put_facts(s, e);
}

/* ---- the connection ---- */

/* 1, 0, or -1: that can't be told. */
static int
is_the_vmm(struct saver *s, int fd, struct err *e)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		return err_sys(e, "who connects");
	if (peer.uid != s->uid && peer.uid != 0)
		return 0;
	if (s->pid == 0 || peer.pid == 0 || peer.pid == s->pid)
		return 1;
	s->stranger = peer.pid;
	return 0;
}

/* The connection that waits: 1 with *fd, 0: it is nobody's that we wait for, or -1. */
static int
take_connection(struct saver *s, int *fd, struct err *e)
{
	int r;

	*fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	if (*fd == -1)
		return errno == EINTR || errno == EAGAIN || errno == ECONNABORTED
			   ? 0
			   : err_sys(e, "accept the VMM's connection");
	r = is_the_vmm(s, *fd, e);
	if (r != 1)
		fd_close(fd);
	return r;
}

static int
too_late(const struct saver *s, struct err *e)
{
	if (s->stranger == 0)
		return err_set(
		    e, ERR_FAILED, "the VMM does not connect within %d ms", s->how->timeout_ms);
	return err_set(e, ERR_FAILED,
	    "the VMM does not connect within %d ms: process %d does, and %d is taken for it",
	    s->how->timeout_ms, (int)s->stranger, (int)s->pid);
}

/* The VMM connects, or its API tells why it won't. */
static int
await_vmm(struct saver *s, int *fd, struct err *e)
{
	int64_t end_ms = wait_now_ms() + s->how->timeout_ms;

	for (;;) {
		struct pollfd p[3] = {
			{ .fd = s->listener, .events = POLLIN },
			{ .fd = ch_api_failed_fd(s->request), .events = POLLIN },
			{ .fd = s->how->stop_fd, .events = POLLIN },
		};
		int64_t left = s->how->timeout_ms == -1 ? -1 : end_ms - wait_now_ms();

		if (s->how->timeout_ms != -1 && left <= 0)
			return too_late(s, e);
		if (poll(p, 3, (int)left) == -1 && errno != EINTR)
			return err_sys(e, "poll");
		if (p[2].revents != 0)
			return wait_interrupted("VMM's connection", e);
		if (p[0].revents != 0) {
			int r = take_connection(s, fd, e);

			if (r != 0)
				return r == 1 ? 0 : -1;
		} else if (p[1].revents != 0) {
			ch_api_result(s->request, -1, e);
			s->untouched = !s->paused && ch_api_refused(s->request);
			return -1;
		}
	}
}

static char *
request_body(const struct saver *s)
{
	char url[sizeof(s->place.path) + 8], *text;
	json_t *o;

	snprintf(url, sizeof(url), "unix:%s", s->place.path);
	o = json_pack("{s:s, s:b}", "destination_url", url, "local", s->local);
	/* It goes with local alone, and who does not know it ignores it. */
	if (s->local && s->how->leave != VMM_LEAVE_QUIT)
		json_object_set_new(o, "preserve_source", json_true());
	if (!s->local) {
		json_object_set_new(o, "timeout_s", json_integer(STREAM_S));
		json_object_set_new(o, "timeout_strategy", json_string("Ignore"));
	}
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

static int
begin(struct saver *s, int *fd, struct err *e)
{
	char *body;
	int r;

	if (ch_place_listen(&s->place, s->uid, &s->listener, e) == -1)
		return -1;
	body = request_body(s);
	if (body == NULL)
		return err_set(e, ERR_FAILED, "vm.send-migration: out of memory");
	r = ch_api_begin(&s->request, &s->api, "vm.send-migration", body, e);
	free(body);
	if (r == 0)
		r = await_vmm(s, fd, e);
	fd_close(&s->listener);
	ch_place_remove(&s->place);
	return r;
}

/* ---- the end ---- */

/* A VMM whose sockets are closed already may take a moment. */
static bool
is_gone(const struct saver *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	int r;

	if (s->pidfd == -1)
		return false;
	do
		r = poll(&p, 1, LAST_MS);
	while (r == -1 && errno == EINTR);
	return r == 1;
}

static bool
shall_run(const struct saver *s, int r)
{
	if (r == 0 && s->how->leave == VMM_LEAVE_PAUSED)
		return false;
	if (r == 0 && s->how->leave == VMM_LEAVE_RUNNING)
		return true;
	return s->was_running;
}

/* The VMM ends by itself. */
static int
await_end(const struct saver *s, enum vmm_outcome *outcome, struct err *e)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	int r;

	*outcome = VMM_ENDED;
	if (s->pidfd == -1)
		return 0;
	do
		r = poll(&p, 1, QUIT_MS);
	while (r == -1 && errno == EINTR);
	if (r == 1)
		return 0;
	*outcome = VMM_UNKNOWN;
	return err_set(e, ERR_FAILED, "the VMM does not end within %d s", QUIT_MS / 1000);
}

/*
 * How much of the image has to be there before the VM goes its way.  One that is to be left in
 * another state than it was in waits for all of it: without an image it goes back to what it
 * was.  Memory that was sent is ours already, and none of the VM's.
 */
static enum step
needed(const struct saver *s)
{
	if (s->how->leave == VMM_LEAVE_QUIT || shall_run(s, 0) != s->was_running)
		return COMMITTED;
	return s->local ? COPIED : RECEIVED;
}

/* What is left to be done until that step. */
static int
proceed(struct saver *s, enum step to, struct err *e)
{
	const struct vmm_sink *k = s->sink;

	if (s->done < COPIED && to >= COPIED && k->memory(k->arg, e) == -1)
		return -1;
	if (s->done < COMMITTED && to >= COMMITTED && k->commit(k->arg, e) == -1)
		return -1;
	s->done = MAX(s->done, to);
	return 0;
}

/* Answers Complete: with OK, or with the error that keeps the VM. */
static void
acknowledge(struct saver *s)
{
	/* One that was to end may have ended before it was told that it may. */
	if (s->how->leave == VMM_LEAVE_QUIT)
		ch_receiver_accept(s->receiver);
	else
		ch_receiver_refuse(s->receiver);
}

/*
 * The way out: r is how it went until here.  Who was refused at once leaves the VM alone: it
 * may be somebody else who is migrating it, or has paused it.
 */
static int
settle(struct saver *s, int r, struct err *e)
{
	const struct ch_api api = {
		.socket = s->socket, .timeout_ms = s->how->timeout_ms, .stop_fd = -1
	};
	struct err why = ERR_INIT;
	enum vmm_outcome outcome;
	int rc;

	if (s->untouched) {
		s->sink->released(s->sink->arg, VMM_UNTOUCHED, &why);
		return r;
	}
	s->sink->releasing(s->sink->arg);
	if (r == -1)
		ch_receiver_refuse(s->receiver);
	if (r == 0 && s->how->leave == VMM_LEAVE_QUIT) {
		rc = await_end(s, &outcome, &why);
	} else {
		/* An older VMM answers when the migration is over. */
		if (s->request != NULL)
			ch_api_result(s->request, s->how->timeout_ms, &why);
		why = (struct err)ERR_INIT;
		rc = ch_api_settle(&api, shall_run(s, r), &outcome, &why);
	}
	if (rc == -1 && is_gone(s))
		outcome = VMM_ENDED;
	s->sink->released(s->sink->arg, outcome, &why);
	if (rc == 0 || r == -1)
		return r;
	*e = why;
	return err_wrap(e, "after saving");
}

/* The VMM may know more about why it went no further: an older one answers only now. */
static int
explain(struct saver *s, struct err *e)
{
	struct err why = ERR_INIT;
	struct err first = *e;

	ch_receiver_refuse(s->receiver);
	/* What we found wrong ourselves it only repeats. */
	if ((first.kind != ERR_FAILED && first.kind != ERR_SYS) ||
	    ch_api_result(s->request, LAST_MS, &why) != -1)
		return err_wrap(e, "vm.send-migration");
	err_set(e, first.kind, "vm.send-migration: %.255s (%.220s)", first.msg, why.msg);
	e->sysno = first.sysno;
	return -1;
}

/* Everything that the VMM takes part in. */
static int
migrate(struct saver *s, struct err *e)
{
	int fd = -1, r = 0;

	/* After a migration that was refused it is what it was before it. */
	if (s->how->leave == VMM_LEAVE_PAUSED && s->was_running) {
		ch_receiver_pause(s->receiver);
		s->paused = true;
		r = ch_api_vm(&s->api, "vm.pause", &s->untouched, e);
	}
	if (r == 0)
		r = begin(s, &fd, e);
	if (r == 0 && ch_receiver_converse(s->receiver, fd, e) == -1)
		r = explain(s, e);
	if (r == 0)
		r = proceed(s, needed(s), e);
	if (r == 0)
		acknowledge(s);
	r = settle(s, r, e);
	/* Whoever pauses it from here on it is somebody else. */
	guard_stop(s->guard);
	s->guard = NULL;
	return r == 0 ? proceed(s, COMMITTED, e) : -1;
}

/* In the guardian: when we die the VMM gives the migration up by itself. */
static int
resume(void *arg)
{
	struct saver *s = arg;
	const struct ch_api api = {
		.socket = s->socket, .timeout_ms = s->how->timeout_ms, .stop_fd = -1
	};
	struct err e = ERR_INIT;
	enum vmm_outcome outcome;

	int r = ch_api_settle(&api, s->was_running, &outcome, &e);

	ch_place_remove(&s->place);
	if (r == 0 || is_gone(s)) {
		log_warn("died before its end; the VM of process %d is as it was before",
		    (int)s->pid);
		return 0;
	}
	log_error(
	    "died before its end; the VM of process %d may be paused: %s", (int)s->pid, e.msg);
	return -1;
}

static int
guarded(struct saver *s, struct err *e)
{
	int r;

	/* Before there is a guardian, who removes it if we don't. */
	if (ch_place_make(&s->place, e) == -1)
		return -1;
	if (guard_start(&s->guard, resume, s, &s->pidfd, s->pidfd != -1, e) == -1)
		return -1;
	r = s->sink->start(s->sink->arg, e);
	if (r == 0)
		r = migrate(s, e);
	guard_stop(s->guard);
	return r;
}

static struct saver *
new_saver(const struct vmm_save *how, const struct vmm_sink *sink, struct err *e)
{
	struct saver *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		err_sys(e, "%s", how->socket);
		return NULL;
	}
	s->how = how;
	s->sink = sink;
	s->pidfd = s->listener = -1;
	/* The guardian is in another folder. */
	s->socket = realpath(how->socket, NULL);
	if (s->socket == NULL) {
		err_sys(e, "%s", how->socket);
		free(s);
		return NULL;
	}
	s->api = (struct ch_api){
		.socket = s->socket, .timeout_ms = how->timeout_ms, .stop_fd = how->stop_fd
	};
	return s;
}

static int
new_receiver(struct saver *s, struct err *e)
{
	const struct ch_receive_how how = {
		.sink = s->sink,
		.vmm = s->pid,
		.local = s->local,
		.timeout_ms = s->how->timeout_ms,
		.stop_fd = s->how->stop_fd,
	};

	return ch_receiver_new(&s->receiver, &how, e);
}

static void
free_saver(struct saver *s)
{
	ch_api_end(s->request);
	ch_receiver_free(s->receiver);
	fd_close(&s->listener);
	ch_place_remove(&s->place);
	fd_close(&s->pidfd);
	free(s->socket);
	free(s);
}

int
ch_save(const struct vmm_save *how, const struct vmm_sink *sink, struct err *e)
{
	struct saver *s = new_saver(how, sink, e);
	int r = -1;

	if (s == NULL)
		return -1;
	if (attach(s, e) == 0 && new_receiver(s, e) == 0)
		r = guarded(s, e);
	free_saver(s);
	return r == 0 ? 0 : err_wrap(e, "Cloud Hypervisor at %s", how->socket);
}
