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
#include "memory/process.h"
#include "memory/served.h"
#include "vmm/cloud-hypervisor-api.h"
#include "vmm/cloud-hypervisor-impl.h"
#include "vmm/cloud-hypervisor-memory.h"
#include "vmm/cloud-hypervisor-place.h"
#include "vmm/cloud-hypervisor-stream.h"
#include "vmm/guard.h"
#include "vmm/wait.h"

/*
 * Saving: the VMM is told to migrate the VM to a socket where we are.
 *
 * It keeps the VM until we have acknowledged Complete.  Then it is destroyed,
 * unless preserve_source was asked for and is known.  Whoever answers Complete with an error
 * instead has received everything, and the VMM keeps the VM and lets it run again if it ran:
 * that is how it is preserved by a VMM that does not know preserve_source.
 */

#define CMDLINE_MAX (4u << 20)
#define QUIT_MS 30000
#define LAST_MS 2000 /* for the VMM's last word after an error */

/* A VM whose pages change faster than we take them is paused after this time. */
#define STREAM_S 300

enum phase { BEFORE_START, STARTED, CONFIGURED, HAS_STATE, COMPLETED };

struct slot_fd {
	uint32_t slot;
	int fd; /* owned; -1: taken */
};

struct saver {
	const struct vmm_save *how;
	const struct vmm_sink *sink;
	struct ch_api api;
	char *socket; /* owned: the API's, absolute */
	struct ch_version version;
	pid_t pid; /* 0: it can't be told */
	int pidfd; /* or -1 */
	uid_t uid;
	bool was_running;
	bool local; /* its memory is handed over, not sent */
	bool preserve; /* it keeps the VM although the migration succeeds */
	bool pause_told; /* sink->paused was called */
	struct ch_place place;
	int listener;
	struct ch_link link;
	struct ch_request_thread *request;
	enum phase phase;
	unsigned rounds; /* Memory messages */
	struct ch_memory memory;
	struct slot_fd fds[CH_MAPPINGS_MAX];
	size_t nfds;
	struct ch_stream *stream;
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

	s->pid = s->how->pid != 0 ? s->how->pid : peer;
	if (s->pid != 0)
		s->pidfd = pidfd_open(s->pid, 0);
	if (ch_api_ping(&s->api, &s->version, e) == -1 || inspect(s, e) == -1)
		return -1;
	s->preserve =
	    s->local && s->how->leave != VMM_LEAVE_QUIT && s->version.major >= CH_HAS_PRESERVE;
	return put_facts(s, e);
}

/* ---- the memory ---- */

static int
take_fd(struct saver *s, struct err *e)
{
	uint8_t slot[CH_SLOT_SIZE];
	int fd;

	if (ch_link_read_fd(&s->link, slot, sizeof(slot), &fd, "memory", e) == -1)
		return -1;
	if (s->nfds == CH_MAPPINGS_MAX) {
		fd_close(&fd);
		return err_set(
		    e, ERR_UNSUPPORTED, "more than %d pieces of guest memory", CH_MAPPINGS_MAX);
	}
	s->fds[s->nfds++] = (struct slot_fd){
		.slot = slot[0] | (uint32_t)slot[1] << 8 | (uint32_t)slot[2] << 16 |
			(uint32_t)slot[3] << 24,
		.fd = fd,
	};
	return 0;
}

/* The descriptor of a slot: the caller's; -1: none came, or two. */
static int
fd_of_slot(struct saver *s, uint32_t slot, struct err *e)
{
	int fd = -1;

	for (size_t i = 0; i < s->nfds; i++) {
		if (s->fds[i].slot != slot || s->fds[i].fd == -1)
			continue;
		if (fd != -1) {
			fd_close(&fd);
			return err_set(e, ERR_CORRUPT, "slot %u came twice", slot);
		}
		fd = s->fds[i].fd;
		s->fds[i].fd = -1;
	}
	return fd != -1 ? fd : err_set(e, ERR_CORRUPT, "slot %u did not come", slot);
}

/* Holes in memory that is still being filled are not zeros. */
static int
check_served(const struct saver *s, const struct memory_object *o, struct err *e)
{
	struct err ignored = ERR_INIT;
	bool served = false;

	if (s->pid == 0 || memory_is_served(s->pid, o->dev, o->ino, &served, &ignored) == -1)
		log_debug(
		    "can't tell whether the VM is being restored itself: %s", ignored.msg);
	if (!served)
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
	    "the VM is itself still being restored (userfaultfd on its memory): wait until it "
	    "is complete");
}

static int
check_object(const struct saver *s, const struct ch_mapping *m, const struct memory_object *o,
    struct err *e)
{
	if (o->size < m->file_offset || o->size - m->file_offset < m->size)
		return err_set(e, ERR_CORRUPT,
		    "its memory has %" PRIu64 " bytes, not %" PRIu64 " at %" PRIu64, o->size,
		    m->size, m->file_offset);
	return check_served(s, o, e);
}

/* Takes fd: what is behind mapping m from byte `offset` on. */
static int
put_region(struct saver *s, const struct ch_mapping *m, int fd, uint64_t offset,
    enum memory_kind kind, uint64_t page_size, struct err *e)
{
	struct segment segment = { .gpa = m->gpa, .offset = 0, .size = m->size };
	char name[32];
	const struct object o = {
		.name = name,
		.kind = memory_kind_name(kind),
		.size = m->size,
		.page_size = (uint32_t)page_size,
		.segments = &segment,
		.nsegments = 1,
	};
	struct memory_source *source;

	snprintf(name, sizeof(name), "slot%u", m->slot);
	if (memory_source_open(&source, fd, kind, offset + m->size, e) == -1)
		return -1;
	return s->sink->region(s->sink->arg, &o, source, offset, e);
}

static int
put_shared(struct saver *s, const struct ch_mapping *m, struct err *e)
{
	struct memory_object o;
	int fd = fd_of_slot(s, m->slot, e);

	if (fd == -1)
		return -1;
	if (memory_examine(fd, &o, e) == -1) {
		fd_close(&fd);
		return err_wrap(e, "slot %u", m->slot);
	}
	free(o.name);
	o.name = NULL;
	if (check_object(s, m, &o, e) == -1 || memory_reopen(&o, &fd, e) == -1) {
		fd_close(&fd);
		return err_wrap(e, "slot %u", m->slot);
	}
	return put_region(
	    s, m, fd, m->file_offset, o.kind, o.page_size != 0 ? o.page_size : m->page_size, e);
}

static int
put_regions(struct saver *s, struct err *e)
{
	for (size_t i = 0; i < s->memory.n; i++) {
		const struct ch_mapping *m = &s->memory.v[i];

		if (s->local ? put_shared(s, m, e) == -1
			     : put_region(s, m, ch_stream_take(s->stream, i), 0, MEMORY_MEMFD,
				   m->page_size, e) == -1)
			return -1;
	}
	for (size_t i = 0; i < s->nfds; i++)
		if (s->fds[i].fd != -1)
			return err_set(e, ERR_CORRUPT,
			    "slot %u came, which is no memory of the VM", s->fds[i].slot);
	return 0;
}

/* ---- messages ---- */

static void
tell_pause(struct saver *s)
{
	if (!s->pause_told)
		s->sink->paused(s->sink->arg);
	s->pause_told = true;
}

static int
put_state(struct saver *s, const char *name, const char *kind, const void *bytes, size_t len,
    struct err *e)
{
	const struct vmm_sink *k = s->sink;

	if (k->state_begin(k->arg, name, kind, e) == -1 ||
	    k->state_put(k->arg, bytes, len, e) == -1 || k->state_end(k->arg, e) == -1)
		return -1;
	return 0;
}

/* The payload: the caller's. */
static void *
take_payload(struct saver *s, const struct ch_request *r, struct err *e)
{
	void *payload = malloc(r->length);

	if (payload == NULL)
		err_sys(e, "%s of %" PRIu64 " bytes", ch_command_name(r->command), r->length);
	else if (ch_link_read(
		     &s->link, payload, r->length, NULL, ch_command_name(r->command), e) == 0)
		return payload;
	free(payload);
	return NULL;
}

static int
on_start(struct saver *s, const struct ch_request *r, struct err *e)
{
	if (r->protocol != CH_PROTOCOL)
		return err_set(e, ERR_UNSUPPORTED,
		    "the VMM speaks version %u of the migration protocol, this program %d",
		    r->protocol, CH_PROTOCOL);
	s->phase = STARTED;
	return 0;
}

static int
on_config(struct saver *s, const struct ch_request *r, struct err *e)
{
	void *config = take_payload(s, r, e);
	int rc = -1;

	if (config == NULL)
		return -1;
	s->phase = CONFIGURED;
	if (ch_memory_parse(&s->memory, config, r->length, e) == 0 &&
	    put_state(s, CH_CONFIG_NAME, CH_CONFIG_KIND, config, r->length, e) == 0)
		rc = s->local ? put_regions(s, e) : ch_stream_new(&s->stream, &s->memory, e);
	free(config);
	/* Its next step, once we have answered. */
	if (rc == 0 && s->local)
		tell_pause(s);
	return rc;
}

/* The first has all of the memory; when the last comes the VM is paused. */
static int
on_memory(struct saver *s, const struct ch_request *r, struct err *e)
{
	if (s->rounds++ != 0)
		tell_pause(s);
	return ch_stream_receive(s->stream, &s->link, r->length, e);
}

static int
on_state(struct saver *s, const struct ch_request *r, struct err *e)
{
	void *state;
	int rc;

	tell_pause(s);
	state = take_payload(s, r, e);
	if (state == NULL)
		return -1;
	if (ch_json_is_whole(state, r->length))
		rc = put_state(s, CH_STATE_NAME, CH_STATE_KIND, state, r->length, e);
	else
		rc = err_set(e, ERR_CORRUPT, "State: it is no JSON document");
	free(state);
	if (rc == 0 && !s->local)
		rc = put_regions(s, e);
	s->phase = HAS_STATE;
	return rc;
}

static int
out_of_order(const struct ch_request *r, struct err *e)
{
	return err_set(
	    e, ERR_CORRUPT, "the VMM sent %s out of order", ch_command_name(r->command));
}

static bool
may_come(const struct saver *s, enum ch_command command)
{
	switch (command) {
	case CH_START:
		return s->phase == BEFORE_START;
	case CH_MEMORY_FD:
		return s->phase == STARTED && s->local;
	case CH_CONFIG:
		return s->phase == STARTED;
	case CH_MEMORY:
		return s->phase == CONFIGURED && !s->local;
	case CH_STATE:
		/* Without a byte of memory it has kept that for itself. */
		return s->phase == CONFIGURED && (s->local || s->rounds != 0);
	case CH_COMPLETE:
	case CH_COMPLETE_PAUSED:
		return s->phase == HAS_STATE;
	case CH_ABANDON:
	case CH_PAGE_FAULT:
		break;
	}
	return false;
}

/* One message; all but Complete is answered here. */
static int
handle(struct saver *s, const struct ch_request *r, struct err *e)
{
	int rc = 0;

	log_debug(
	    "the VMM sends %s, %" PRIu64 " bytes", ch_command_name(r->command), r->length);
	if (r->command == CH_ABANDON) {
		struct err ignored = ERR_INIT;

		ch_link_respond(&s->link, true, 0, &ignored);
		return err_set(e, ERR_FAILED, "the VMM abandoned it; its log tells why");
	}
	if (!may_come(s, r->command))
		return out_of_order(r, e);
	if (r->command == CH_START)
		rc = on_start(s, r, e);
	else if (r->command == CH_MEMORY_FD)
		rc = take_fd(s, e);
	else if (r->command == CH_CONFIG)
		rc = on_config(s, r, e);
	else if (r->command == CH_MEMORY)
		rc = on_memory(s, r, e);
	else if (r->command == CH_STATE)
		rc = on_state(s, r, e);
	else
		s->phase = COMPLETED;
	if (rc == -1 || s->phase == COMPLETED)
		return rc;
	return ch_link_respond(&s->link, true, 0, e);
}

static const char *
next_message(const struct saver *s)
{
	switch (s->phase) {
	case BEFORE_START:
		return "Start";
	case STARTED:
		return "memory and configuration";
	case CONFIGURED:
		return s->local ? "state" : "memory and state";
	case HAS_STATE:
	case COMPLETED:
		break;
	}
	return "Complete";
}

/* Until Complete, which is not answered yet. */
static int
converse(struct saver *s, struct err *e)
{
	struct ch_request r;

	while (s->phase != COMPLETED)
		if (ch_link_request(&s->link, &r, NULL, next_message(s), e) == -1 ||
		    handle(s, &r, e) == -1)
			return -1;
	return 0;
}

/* ---- the connection ---- */

static bool
is_the_vmm(const struct saver *s, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		return false;
	return s->pid == 0 || peer.pid == 0 || peer.pid == s->pid;
}

/* The VMM connects, or its API tells why it won't. */
static int
await_vmm(struct saver *s, struct err *e)
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
			return err_set(e, ERR_FAILED, "the VMM does not connect within %d ms",
			    s->how->timeout_ms);
		if (poll(p, 3, (int)left) == -1 && errno != EINTR)
			return err_sys(e, "poll");
		if (p[2].revents != 0)
			return wait_interrupted("VMM's connection", e);
		if (p[0].revents != 0) {
			s->link.fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
			if (s->link.fd != -1 && is_the_vmm(s, s->link.fd))
				return 0;
			fd_close(&s->link.fd);
		} else if (p[1].revents != 0) {
			return ch_api_result(s->request, -1, e);
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
begin(struct saver *s, struct err *e)
{
	char *body;
	int r;

	if (ch_place_make(&s->place, e) == -1 ||
	    ch_place_listen(&s->place, s->uid, &s->listener, e) == -1)
		return -1;
	body = request_body(s);
	if (body == NULL)
		return err_set(e, ERR_FAILED, "vm.send-migration: out of memory");
	r = ch_api_begin(&s->request, &s->api, "vm.send-migration", body, e);
	free(body);
	if (r == 0)
		r = await_vmm(s, e);
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

/* Refuses Complete, which keeps the VM: see above.  An older VMM then says Abandon. */
static void
refuse(struct saver *s)
{
	const struct ch_link last = { .fd = s->link.fd, .timeout_ms = LAST_MS, .stop_fd = -1 };
	struct err ignored = ERR_INIT;
	struct ch_request r;
	bool eof;

	if (last.fd == -1 || ch_link_respond(&last, false, 0, &ignored) == -1)
		return;
	if (ch_link_request(&last, &r, &eof, "last message", &ignored) == 0 && !eof &&
	    r.command == CH_ABANDON)
		ch_link_respond(&last, true, 0, &ignored);
}

/*
 * Answers Complete: with OK when the image is there, or with the error that
 * keeps the VM, as soon as its memory has been read.
 */
static int
acknowledge(struct saver *s, bool *committed, struct err *e)
{
	const struct vmm_sink *k = s->sink;

	if (k->memory(k->arg, e) == -1)
		return -1;
	if (s->how->leave != VMM_LEAVE_QUIT && !s->preserve) {
		refuse(s);
		return 0;
	}
	if (k->commit(k->arg, e) == -1)
		return -1;
	*committed = true;
	return ch_link_respond(&s->link, true, 0, e);
}

/* The way out: r is how it went until here. */
static int
settle(struct saver *s, int r, struct err *e)
{
	const struct ch_api api = {
		.socket = s->socket, .timeout_ms = s->how->timeout_ms, .stop_fd = -1
	};
	struct err why = ERR_INIT;
	enum vmm_outcome outcome;
	int rc;

	if (r == -1 && s->phase != BEFORE_START)
		refuse(s);
	fd_close(&s->link.fd);
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

/* Everything that the VMM takes part in. */
static int
migrate(struct saver *s, struct err *e)
{
	bool committed = false;
	int r = 0;

	/* Only a VMM that keeps the VM by itself leaves it paused by itself. */
	if (s->how->leave == VMM_LEAVE_PAUSED && s->was_running && !s->preserve) {
		tell_pause(s);
		r = ch_api_vm(&s->api, "vm.pause", e);
	}
	if (r == 0)
		r = begin(s, e);
	if (r == 0 && converse(s, e) == -1)
		r = err_wrap(e, "vm.send-migration");
	if (r == 0)
		r = acknowledge(s, &committed, e);
	r = settle(s, r, e);
	if (r == 0 && !committed)
		r = s->sink->commit(s->sink->arg, e);
	return r;
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

	if (ch_api_settle(&api, s->was_running, &outcome, &e) == 0 || is_gone(s)) {
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
	struct guard *guard;
	int r;

	if (guard_start(&guard, resume, s, &s->pidfd, s->pidfd != -1, e) == -1)
		return -1;
	r = s->sink->start(s->sink->arg, e);
	if (r == 0)
		r = migrate(s, e);
	guard_stop(guard);
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
	s->link = (struct ch_link){
		.fd = -1, .timeout_ms = how->timeout_ms, .stop_fd = how->stop_fd
	};
	return s;
}

static void
free_saver(struct saver *s)
{
	ch_api_end(s->request);
	fd_close(&s->link.fd);
	fd_close(&s->listener);
	ch_place_remove(&s->place);
	for (size_t i = 0; i < s->nfds; i++)
		fd_close(&s->fds[i].fd);
	ch_stream_free(s->stream);
	ch_memory_fini(&s->memory);
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
	if (attach(s, e) == 0)
		r = guarded(s, e);
	free_saver(s);
	return r == 0 ? 0 : err_wrap(e, "Cloud Hypervisor at %s", how->socket);
}
