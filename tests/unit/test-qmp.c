/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * The QMP client against stand-in servers: threads at the other end of a
 * socketpair, written from the protocol's description.  Then the parsers of
 * what the human monitor prints.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fdio.h"
#include "tap.h"
#include "vmm/qemu/impl.h"
#include "vmm/qemu/text.h"
#include "vmm/qemu/qmp-frame.h"
#include "vmm/qemu/qmp.h"

#define GREETING                                                                               \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "     \
	"\"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define EVENT "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n"

/* --- the stand-in --- */

struct peer {
	int fd;
	int passed; /* descriptor that came with a command, or -1 */
	bool reset; /* a byte 0xFF came */
	bool runs; /* "cont" came */
	pthread_t thread;
	void (*play)(struct peer *p);
};

static void
say(struct peer *p, const char *text)
{
	/* A client that has had enough may be gone. */
	(void)send(p->fd, text, strlen(text), MSG_NOSIGNAL);
}

/* The id of the next command, whose line must contain `name`; the caller's. */
static char *
hear(struct peer *p, const char *name)
{
	char line[4096], control[CMSG_SPACE(sizeof(int))];
	size_t len = 0;
	json_t *msg;
	char *id;

	while (len < sizeof(line) - 1) {
		struct iovec iov = { line + len, 1 };
		struct msghdr m = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control) };

		if (recvmsg(p->fd, &m, 0) != 1)
			return strdup("gone");
		if (CMSG_FIRSTHDR(&m) != NULL)
			memcpy(&p->passed, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
		if (line[len++] == '\n')
			break;
	}
	line[len] = '\0';
	msg = json_loads(line, 0, NULL);
	if (msg == NULL || strstr(line, name) == NULL) {
		printf("# the stand-in waited for %s, got: %s", name, line);
		json_decref(msg);
		return strdup("none");
	}
	id = strdup(json_string_value(json_object_get(msg, "id")));
	json_decref(msg);
	return id;
}

/* Answers the next command; the first ID in the text stands for its id. */
static void
answer(struct peer *p, const char *name, const char *text)
{
	char out[4096], *id = hear(p, name);
	const char *at = strstr(text, "ID");

	snprintf(out, sizeof(out), "%.*s%s%s", (int)(at - text), text, id, at + 2);
	free(id);
	say(p, out);
}

static void
welcome(struct peer *p)
{
	say(p, GREETING);
	answer(p, "qmp_capabilities", "{\"return\": {}, \"id\": \"ID\"}\r\n");
}

static void
play_silence(struct peer *p)
{
	char byte;

	/* Until the client gives up. */
	while (read(p->fd, &byte, 1) > 0)
		;
}

static void *
peer_main(void *arg)
{
	struct peer *p = arg;

	p->play(p);
	fd_close(&p->fd);
	return NULL;
}

/* Starts a stand-in; the client's end of the line. */
static int
peer_start(struct peer *p, void (*play)(struct peer *p))
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		abort();
	*p = (struct peer){ .fd = ends[1], .passed = -1, .play = play };
	if (pthread_create(&p->thread, NULL, peer_main, p) != 0)
		abort();
	return ends[0];
}

/* A client connected to a stand-in, with a time limit of 5 s; NULL on failure. */
static struct qmp *
meet(struct peer *p, void (*play)(struct peer *p), struct err *e)
{
	struct qmp_dial how = QMP_DIAL_INIT;
	struct qmp *q = NULL;

	how.timeout_ms = 5000;
	*e = (struct err)ERR_INIT;
	return qmp_connect_fd(&q, peer_start(p, play), &how, e) == 0 ? q : NULL;
}

static void
part(struct peer *p, struct qmp *q)
{
	qmp_close(q);
	pthread_join(p->thread, NULL);
	fd_close(&p->passed);
}

static bool
failed_with(const struct err *e, enum err_kind kind, const char *text)
{
	bool good = e->kind == kind && strstr(e->msg, text) != NULL;

	if (!good)
		printf("# kind %d: %s\n", (int)e->kind, e->msg);
	return good;
}

/* --- talking --- */

static void
play_welcome(struct peer *p)
{
	welcome(p);
}

static void
test_greeting(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_welcome, &e);

	ok(q != NULL, "connects");
	if (q != NULL) {
		const struct qmp_version *v = qmp_version(q);

		ok(v->major == 7 && v->minor == 2 && v->micro == 22 &&
			strcmp(v->package, "Debian") == 0,
		    "the version");
		ok(qmp_at_least(q, 7, 2) && qmp_at_least(q, 6, 9) && !qmp_at_least(q, 7, 3) &&
			!qmp_at_least(q, 8, 0),
		    "versions compare");
		ok(qmp_peer_pid(q) == getpid(), "the peer's process");
	}
	part(&p, q);
}

static void
play_pretty(struct peer *p)
{
	say(p, "\n{\n    \"QMP\": {\n \"version\": {\"qemu\":\n{\"micro\": 1, \"minor\": 0,"
	       "\n\"major\": 8}, \"package\": \"a \\\"}}}\\\" b\"},\n  \"capabilities\": "
	       "[\n]}}\n");
	answer(p, "qmp_capabilities", "{\n \"return\": {\n },\n \"id\":\n \"ID\"\n}\n");
}

static void
test_pretty(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_pretty, &e);

	ok(q != NULL && strcmp(qmp_version(q)->package, "a \"}}}\" b") == 0,
	    "messages over many lines, braces in strings");
	part(&p, q);
}

static void
play_events(struct peer *p)
{
	char *id, text[512];

	welcome(p);
	say(p, EVENT);
	/* Reply and events in one piece. */
	answer(p, "query-status",
	    EVENT "{\"id\": \"ID\", \"return\": {\"status\": \"running\"}}\r\n" EVENT);
	/* Byte by byte. */
	id = hear(p, "query-status");
	snprintf(text, sizeof(text), EVENT "{\"return\": [1, 2], \"id\": \"%s\"}\r\n", id);
	free(id);
	for (const char *c = text; *c != '\0'; c++) {
		char one[2] = { *c, '\0' };

		say(p, one);
	}
}

static void
test_events(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_events, &e);
	json_t *ret;

	if (ok(q != NULL && qmp_command(q, "query-status", NULL, &ret, &e) == 0,
		"a reply between events")) {
		ok(strcmp(json_string_value(json_object_get(ret, "status")), "running") == 0,
		    "its value");
		json_decref(ret);
	}
	if (ok(q != NULL && qmp_command(q, "query-status", NULL, &ret, &e) == 0,
		"a reply that comes byte by byte")) {
		ok(json_array_size(ret) == 2, "its value");
		json_decref(ret);
	}
	part(&p, q);
}

static void
play_refusals(struct peer *p)
{
	welcome(p);
	answer(p, "migrate",
	    "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not\\nnow\"}, \"id\": "
	    "\"ID\"}");
	answer(p, "migrate", "{\"error\": 7, \"id\": \"ID\"}");
	answer(p, "migrate", "{\"error\": {\"desc\": [[]]}, \"id\": \"ID\"}");
	answer(p, "migrate", "{\"neither\": 1, \"id\": \"ID\"}");
	answer(p, "human-monitor-command", "{\"return\": {}, \"id\": \"ID\"}");
	answer(p, "\"command-line\":\"info version\"",
	    "{\"return\": \"7.2\\r\\n\", \"id\": \"ID\"}");
}

static void
test_refusals(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_refusals, &e);
	char *text;

	if (!ok(q != NULL, "connects")) {
		part(&p, q);
		return;
	}
	ok(qmp_command(q, "migrate", json_pack("{s:s}", "uri", "fd:x"), NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "QEMU refused \"migrate\": not now"),
	    "an error is passed on, in one line");
	ok(qmp_command(q, "migrate", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "QEMU refused \"migrate\""),
	    "an error that is a number");
	ok(qmp_command(q, "migrate", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "QEMU refused \"migrate\""),
	    "an error whose text is a list");
	ok(qmp_command(q, "migrate", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_CORRUPT, "neither a result nor an error"),
	    "a reply that is neither");
	ok(qmp_hmp(q, "info x", &text, &e) == -1 && failed_with(&e, ERR_CORRUPT, "is not text"),
	    "a monitor's answer that is no text");
	if (ok(qmp_hmp(q, "info version", &text, &e) == 0, "a monitor's answer")) {
		ok(strcmp(text, "7.2\r\n") == 0, "its text");
		free(text);
	}
	part(&p, q);
}

static void
play_late(struct peer *p)
{
	char *first, *second, text[256];

	welcome(p);
	first = hear(p, "slow");
	second = hear(p, "quick");
	snprintf(text, sizeof(text),
	    "{\"return\": 1, \"id\": \"%s\"}{\"error\": {\"desc\": \"stray\"}}"
	    "{\"return\": 2, \"id\": 3}{\"return\": 4, \"id\": \"%s\"}",
	    first, second);
	free(first);
	free(second);
	say(p, text);
}

static void
test_late(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_late, &e);
	json_t *ret;

	if (!ok(q != NULL, "connects")) {
		part(&p, q);
		return;
	}
	qmp_set_timeout(q, 100);
	ok(qmp_command(q, "slow", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "no reply to \"slow\" within 100 ms"),
	    "silence ends with the time limit");
	ok(qmp_set_timeout(q, 5000) == 100, "the old time limit is told");
	if (ok(qmp_command(q, "quick", NULL, &ret, &e) == 0, "the next command")) {
		ok(json_integer_value(ret) == 4, "gets its own reply, not a late one");
		json_decref(ret);
	}
	part(&p, q);
}

/* --- peers that are broken or lie --- */

static void
play_nothing(struct peer *p)
{
	(void)p;
}

static void
play_http(struct peer *p)
{
	say(p, "HTTP/1.1 400 Bad Request\r\n\r\n");
}

static void
play_list(struct peer *p)
{
	say(p, "[1, 2]\r\n");
}

static void
play_other(struct peer *p)
{
	say(p, "{\"QMP\": [1]}\r\n");
}

static void
play_text_version(struct peer *p)
{
	say(p, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": \"1\", \"minor\": -2, "
	       "\"major\": 1e99}}}}\r\n");
}

static void
play_bad_json(struct peer *p)
{
	say(p, "{\"QMP\" ]\r\n");
}

static void
play_half(struct peer *p)
{
	welcome(p);
	free(hear(p, "x"));
	say(p, "{\"return\": {");
}

static void
play_deep(struct peer *p)
{
	say(p, "{\"a\": ");
	for (int i = 0; i < QMP_DEPTH_MAX; i++)
		say(p, "[");
	play_silence(p);
}

static void
play_endless(struct peer *p)
{
	static char chunk[1 << 16];
	ssize_t n;

	say(p, "{\"a\": \"");
	memset(chunk, 'x', sizeof(chunk));
	do
		n = send(p->fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
	while (n > 0);
}

static void
play_flood(struct peer *p)
{
	while (send(p->fd, EVENT, strlen(EVENT), MSG_NOSIGNAL) > 0)
		;
}

static const struct {
	const char *what;
	void (*play)(struct peer *p);
	enum err_kind kind;
	const char *text;
} liars[] = {
	{ "says nothing", play_silence, ERR_FAILED, "no greeting" },
	{ "hangs up", play_nothing, ERR_FAILED, "closed the connection" },
	{ "speaks HTTP", play_http, ERR_CORRUPT, "not JSON (byte 0x48)" },
	{ "sends a list", play_list, ERR_CORRUPT, "not JSON (byte 0x5b)" },
	{ "has no version", play_other, ERR_CORRUPT, "no QMP greeting" },
	{ "has a version of text", play_text_version, ERR_CORRUPT, "no QMP greeting" },
	{ "mixes brackets", play_bad_json, ERR_CORRUPT, "a message of 8 bytes" },
	{ "nests too deep", play_deep, ERR_CORRUPT, "deeper than 64" },
	{ "never ends a message", play_endless, ERR_CORRUPT, "more than 16777216 bytes" },
	{ "only sends events", play_flood, ERR_CORRUPT, "no QMP greeting" },
};

static void
test_liars(void)
{
	struct qmp_dial how = QMP_DIAL_INIT;

	for (size_t i = 0; i < sizeof(liars) / sizeof(*liars); i++) {
		struct err e = ERR_INIT;
		struct qmp *q = NULL;
		struct peer p;

		how.timeout_ms = liars[i].play == play_silence ? 100 : 20000;
		ok(qmp_connect_fd(&q, peer_start(&p, liars[i].play), &how, &e) == -1 &&
			failed_with(&e, liars[i].kind, liars[i].text),
		    "a peer that %s", liars[i].what);
		part(&p, q);
	}
}

static void
test_half(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_half, &e);

	ok(q != NULL && qmp_command(q, "x", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED,
		    "closed the connection while we waited for the reply to \"x\""),
	    "a peer that hangs up within a reply");
	ok(q != NULL && qmp_command(q, "x", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "closed the connection"),
	    "a command to a peer that is gone, without SIGPIPE");
	part(&p, q);
}

/* --- ways out of a wait --- */

static void
play_mute(struct peer *p)
{
	welcome(p);
	play_silence(p);
}

static void
test_stop(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_mute, &e);
	int ends[2];

	if (pipe(ends) == -1 || q == NULL)
		abort();
	if (write(ends[1], "x", 1) != 1)
		abort();
	qmp_set_stop(q, ends[0]);
	ok(qmp_command(q, "stop", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_INTERRUPTED, "interrupted") && e.sysno == SIGINT,
	    "the stop descriptor ends a wait");
	ok(qmp_set_stop(q, -1) == ends[0], "the old stop descriptor is told");
	close(ends[0]);
	close(ends[1]);
	part(&p, q);
}

static void
test_exit(void)
{
	struct qmp_dial how = QMP_DIAL_INIT;
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	struct peer p;
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	how.vmm_pidfd = pidfd_open(child, 0);
	ok(qmp_connect_fd(&q, peer_start(&p, play_silence), &how, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "the VMM exited"),
	    "the end of the VMM ends a wait");
	part(&p, q);
	close(how.vmm_pidfd);
	waitpid(child, NULL, 0);
}

/* --- descriptors --- */

static void
play_getfd(struct peer *p)
{
	welcome(p);
	answer(p, "\"fdname\":\"state\"", "{\"return\": {}, \"id\": \"ID\"}");
	if (write(p->passed, "hello", 5) != 5)
		printf("# no descriptor came\n");
}

static void
test_send_fd(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_getfd, &e);
	char buf[8] = "";
	int ends[2];

	if (pipe(ends) == -1)
		abort();
	ok(q != NULL && qmp_send_fd(q, ends[1], "state", &e) == 0, "getfd");
	close(ends[1]);
	ok(read(ends[0], buf, 5) == 5 && strcmp(buf, "hello") == 0, "the peer has the pipe");
	close(ends[0]);
	part(&p, q);
}

static struct qmp_watch watch;
static size_t drained;

static int
drain(void *arg, struct err *e)
{
	char buf[4096];
	ssize_t n = read(watch.fd, buf, sizeof(buf));

	(void)arg;
	if (n == -1)
		return err_sys(e, "read");
	drained += (size_t)n;
	if (n == 0)
		fd_close(&watch.fd);
	return 0;
}

static int
refuse(void *arg, struct err *e)
{
	(void)arg;
	return err_set(e, ERR_FAILED, "disk full");
}

/* Writes more than a pipe holds before it answers, as QEMU does with its state. */
static void
play_pipe(struct peer *p)
{
	static char state[300000];
	size_t done = 0;
	char *id;

	welcome(p);
	answer(p, "getfd", "{\"return\": {}, \"id\": \"ID\"}");
	id = hear(p, "migrate");
	while (done < sizeof(state)) {
		ssize_t n = write(p->passed, state, sizeof(state) - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	fd_close(&p->passed);
	say(p, "{\"return\": {}, \"id\": \"");
	say(p, id);
	say(p, "\"}");
	free(id);
	play_silence(p);
}

static void
test_watch(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_pipe, &e);
	int ends[2];

	if (pipe(ends) == -1 || q == NULL || qmp_send_fd(q, ends[1], "state", &e) == -1)
		abort();
	close(ends[1]);
	watch = (struct qmp_watch){ .fd = ends[0], .events = POLLIN, .ready = drain };
	qmp_watch(q, &watch);
	ok(qmp_command(q, "migrate", NULL, NULL, &e) == 0, "a pipe is drained during a wait");
	while (watch.fd != -1)
		if (qmp_wait(q, 100, &e) == -1)
			break;
	ok(drained == 300000, "all of it, %zu bytes", drained);
	part(&p, q);
}

static void
test_watch_fails(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_mute, &e);

	if (q == NULL)
		abort();
	watch = (struct qmp_watch){
		.fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), .events = POLLIN, .ready = refuse
	};
	qmp_watch(q, &watch);
	ok(qmp_command(q, "migrate", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_FAILED, "disk full"),
	    "an error of the watch ends the wait");
	fd_close(&watch.fd);
	part(&p, q);
}

/* --- taking over --- */

static void
play_take_over(struct peer *p)
{
	char byte = 0;

	welcome(p);
	p->reset = recv(p->fd, &byte, 1, 0) == 1 && byte == '\xff';
	/* The rest of what the dead process was reading: ends in a string, with braces. */
	say(p, "tail} of {\"a\" string\"}}\r\n{\"id\": \"another\", \"return\": {}}\r\n");
	say(p,
	    "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\r\n");
	answer(p, "query-status", "{\"return\": 5, \"id\": \"ID\"}\r\n");
	free(hear(p, "cont"));
	say(p, "tail\r\n");
}

static void
test_take_over(void)
{
	struct err e;
	struct peer p;
	struct qmp *q = meet(&p, play_take_over, &e);
	json_t *ret;

	if (ok(q != NULL && qmp_resync(q, &e) == 0 &&
		    qmp_command(q, "query-status", NULL, &ret, &e) == 0,
		"carries on in the middle of a message")) {
		ok(json_integer_value(ret) == 5, "the reply");
		json_decref(ret);
	}
	ok(q != NULL && qmp_command(q, "cont", NULL, NULL, &e) == -1 &&
		failed_with(&e, ERR_CORRUPT, "not JSON"),
	    "later it is strict again");
	part(&p, q);
	ok(p.reset, "the peer's parser was reset");
}

/* --- letting the VM run again --- */

/* A migration that failed, while QEMU is about to go back to "paused". */
static void
play_failing(struct peer *p)
{
	static const char *const states[] = { "finish-migrate", "finish-migrate", "paused" };
	char text[128], *id;

	welcome(p);
	answer(p, "query-migrate", "{\"return\": {\"status\": \"active\"}, \"id\": \"ID\"}");
	answer(p, "migrate_cancel", "{\"return\": {}, \"id\": \"ID\"}");
	answer(p, "query-migrate", "{\"return\": {\"status\": \"failing\"}, \"id\": \"ID\"}");
	answer(p, "query-migrate", "{\"return\": {\"status\": \"failed\"}, \"id\": \"ID\"}");
	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		snprintf(text, sizeof(text),
		    "{\"return\": {\"status\": \"%s\"}, \"id\": \"ID\"}", states[i]);
		answer(p, "query-status", text);
	}
	id = hear(p, "\"cont\"");
	p->runs = strcmp(id, "gone") != 0;
	snprintf(text, sizeof(text), "{\"return\": {}, \"id\": \"%s\"}", id);
	free(id);
	say(p, text);
	answer(p, "query-status", "{\"return\": {\"status\": \"running\"}, \"id\": \"ID\"}");
}

static void
test_resume(void)
{
	struct qemu vm = { .was_running = true };
	struct err e;
	struct peer p;

	vm.qmp = meet(&p, play_failing, &e);
	ok(vm.qmp != NULL && qemu_resume(&vm, QEMU_AS_BEFORE, &e) == 0,
	    "resuming a VM whose migration fails: %s", e.msg);
	part(&p, vm.qmp);
	ok(p.runs, "it runs");
}

static void
play_settings(struct peer *p)
{
	static const char no[] = "{\"error\": {\"desc\": \"busy\"}, \"id\": \"ID\"}";
	static const char yes[] = "{\"return\": {}, \"id\": \"ID\"}";

	welcome(p);
	answer(p, "migrate-set-capabilities", no);
	answer(p, "migrate-set-parameters", yes);
	answer(p, "migrate-set-capabilities", yes);
	answer(p, "migrate-set-parameters", no);
	answer(p, "migrate-set-capabilities", yes);
	answer(p, "migrate-set-parameters", yes);
}

static void
test_settings(void)
{
	struct qemu vm = { .settings = { .changed = true } };
	struct err e;
	struct peer p;

	vm.settings.capabilities = json_array();
	vm.qmp = meet(&p, play_settings, &e);
	for (int i = 0; i < 2 && vm.qmp != NULL; i++)
		ok(qemu_restore_settings(&vm, &e) == -1 && failed_with(&e, ERR_FAILED, "busy"),
		    "settings that QEMU refuses to take back, %d", i);
	ok(vm.qmp != NULL && qemu_restore_settings(&vm, &e) == 0 && !vm.settings.changed,
	    "are put back when it takes them");
	json_decref(vm.settings.capabilities);
	part(&p, vm.qmp);
}

/* Every status of QEMU's that means that it is not over, up to QEMU 11. */
static void
test_migrating(void)
{
	static const char *const over[] = { "none", "completed", "failed", "cancelled" };
	static const char *const on[] = { "setup", "cancelling", "active", "failing",
		"postcopy-device", "postcopy-active", "postcopy-paused",
		"postcopy-recover-setup", "postcopy-recover", "colo", "pre-switchover",
		"device", "wait-unplug" };

	for (size_t i = 0; i < sizeof(on) / sizeof(*on); i++)
		ok(qemu_migrating(on[i]), "a migration that is %s goes on", on[i]);
	for (size_t i = 0; i < sizeof(over) / sizeof(*over); i++)
		ok(!qemu_migrating(over[i]), "a migration that is %s is over", over[i]);
}

/* --- connecting by name --- */

struct door {
	char path[64];
	struct peer peer;
};

/* A VMM that needs its time to make the socket. */
static void *
open_door(void *arg)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timespec nap = { .tv_nsec = 100000000 };
	struct door *d = arg;
	int fd;

	memcpy(addr.sun_path, d->path, sizeof(d->path));
	nanosleep(&nap, NULL);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		return NULL;
	nanosleep(&nap, NULL);
	if (listen(fd, 1) == -1)
		return NULL;
	d->peer = (struct peer){ .fd = accept(fd, NULL, NULL), .passed = -1 };
	welcome(&d->peer);
	fd_close(&d->peer.fd);
	close(fd);
	return NULL;
}

static void
test_connect(void)
{
	struct qmp_dial how = QMP_DIAL_INIT;
	char dir[] = "/tmp/test-qmp-XXXXXX", longer[200];
	struct err e = ERR_INIT;
	struct qmp *q = NULL;
	struct door d = { 0 };
	pthread_t thread;

	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(d.path, sizeof(d.path), "%s/qmp", dir);
	how.timeout_ms = 50;
	ok(qmp_connect(&q, d.path, &how, &e) == -1 && e.kind == ERR_SYS && e.sysno == ENOENT &&
		strstr(e.msg, d.path) != NULL && strstr(e.msg, "within") == NULL,
	    "no socket: its name is told, at once");
	how.retry = true;
	ok(qmp_connect(&q, d.path, &how, &e) == -1 &&
		strstr(e.msg, "no QMP socket within 50 ms") != NULL,
	    "no socket in time");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	ok(qmp_connect(&q, longer, &how, &e) == -1 && failed_with(&e, ERR_USAGE, "107 bytes"),
	    "a name that is too long");
	how.timeout_ms = 10000;
	pthread_create(&thread, NULL, open_door, &d);
	ok(qmp_connect(&q, d.path, &how, &e) == 0, "a socket that comes later");
	ok(q != NULL && (fcntl(qmp_fd(q), F_GETFD) & FD_CLOEXEC) != 0, "close-on-exec");
	qmp_close(q);
	pthread_join(thread, NULL);
	unlink(d.path);
	rmdir(dir);
}

/* --- the human monitor --- */

static const char ramblock[] =
    "              Block Name    PSize              Offset               Used              "
    "Total\r\n"
    "                    ram0    4 KiB  0x0000000000000000 0x0000000080000000 "
    "0x0000000080000000\r\n"
    "                            2 MiB  0x0000000100000000 0x0000000002000000 "
    "0x0000000002000000\r\n"
    "    /rom@etc/acpi/tables    4 KiB  0x0000000102080000 0x0000000000020000 "
    "0x0000000000200000\r\n"
    "0000:00:03.0/virtio-net-pci.rom    4 KiB  0x000000000c480000 0x0000000000040000 "
    "0x0000000000040000 0x00007f0000000000  rw\r\n";

static void
test_blocks(void)
{
	struct qemu_blocks b = { 0 };
	struct err e = ERR_INIT;
	const struct qemu_block *x;

	ok(qemu_text_blocks(ramblock, &b, &e) == 0 && b.n == 4, "info ramblock");
	x = qemu_blocks_find(&b, "ram0");
	ok(x != NULL && x->used == 0x80000000 && x->page_size == 4096, "a block");
	x = qemu_blocks_find(&b, "");
	ok(x != NULL && x->used == 0x2000000 && x->page_size == 2 << 20,
	    "a block without a name, of huge pages");
	x = qemu_blocks_find(&b, "0000:00:03.0/virtio-net-pci.rom");
	ok(x != NULL && x->used == 0x40000, "a name wider than its column, columns of QEMU 8");
	ok(qemu_blocks_find(&b, "ram") == NULL, "no such block");
	qemu_blocks_fini(&b);
}

static void
test_bad_blocks(void)
{
	static const char *const bad[] = {
		"",
		"nothing here\n",
		"Block Name\nx\n",
		"Block Name\nx 4 KiB 0x1\n",
		"Block Name\nx 3 KiB 0x0 0x1 0x1\n",
		"Block Name\nx 4 XiB 0x0 0x1 0x1\n",
		"Block Name\nx 4 Kio 0x0 0x1 0x1\n",
		"Block Name\nx 16384 KiB 0x0 0x1 0x1\n",
		"Block Name\nx KiB 0x0 0x1 0x1\n",
		"Block Name\n 0x0 0x1 0x1\n",
		"Block Name\nx 4 KiB 0x00000000000000001 0x1 0x1\n",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct qemu_blocks b = { 0 };
		struct err e = ERR_INIT;

		ok(qemu_text_blocks(bad[i], &b, &e) == -1 && e.kind == ERR_CORRUPT,
		    "info ramblock, bad text %zu", i);
		qemu_blocks_fini(&b);
	}
}

/* Two gigabytes below and one above 4 GiB; SMRAM hides the top of the lower part. */
static const char mtree[] =
    "  0000000000000000-00000000ffffffff (prio 0, ram): ram0 @0000000000003000\r\n"
    "FlatView #0\r\n"
    " AS \"cpu-smm-0\", root: memory\r\n"
    " Root memory region: memory\r\n"
    "  0000000000000000-00000000ffffffff (prio 0, ram): ram0 @0000000000001000\r\n"
    "\r\n"
    "FlatView #1\r\n"
    " AS \"memory\", root: system\r\n"
    " AS \"cpu-memory-0\", root: system\r\n"
    " Root memory region: system\r\n"
    "  0000000000000000-000000000009ffff (prio 0, ram): ram0 KVM\r\n"
    "  00000000000a0000-00000000000bffff (prio 1, i/o): vga.mmio\r\n"
    "  00000000000c0000-00000000000fffff (prio 0, rom): ram0 @00000000000c0000 KVM\r\n"
    "  0000000000100000-000000007f7fffff (prio 0, ram): ram0 @0000000000100000\r\n"
    "  000000007f800000-000000007fffffff (prio 2, i/o): tseg-blackhole\r\n"
    "  00000000d0000000-00000000d0000fff (prio 0, ram): ram0.copy @0000000000000000\r\n"
    "  00000000d0000000-00000000d0000fff (prio 0, ram): ram0 copy @0000000000000000\r\n"
    "  00000000d0001000-00000000d0001fff (prio 0, ram): ram0 @0000000000005000\r\n"
    "  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\r\n"
    "  0000000100000000-000000013fffffff (prio 0, ram): ram0 @0000000080000000\r\n"
    "\r\n"
    "FlatView #2\r\n"
    " AS \"I/O\", root: io\r\n"
    "  0000000000000000-00000000ffffffff (prio 0, ram): ram0 @0000000000002000\r\n";

static void
test_segments(void)
{
	uint64_t low = UINT64_C(0x80000000), high = UINT64_C(0x40000000);
	struct qemu_segment *s = NULL;
	struct err e = ERR_INIT;
	size_t n = 0;

	ok(qemu_text_segments(mtree, "ram0", low + high, &s, &n, &e) == 0 && n == 2,
	    "info mtree -f: two segments, no alias");
	ok(n == 2 && s[0].gpa == 0 && s[0].offset == 0 && s[0].size == low,
	    "below 4 GiB, with what is hidden");
	ok(n == 2 && s[0].probe == 0x100000, "where it can be seen");
	ok(n == 2 && s[1].gpa == UINT64_C(0x100000000) && s[1].offset == low &&
		s[1].size == high,
	    "above 4 GiB");
	free(s);
	ok(qemu_text_segments(mtree, "ram0", low, &s, &n, &e) == -1 &&
		failed_with(&e, ERR_CORRUPT, "of a block of"),
	    "more is shown than the block has");
	ok(qemu_text_segments(mtree, "ram1", low, &s, &n, &e) == -1 &&
		failed_with(&e, ERR_UNSUPPORTED, "not in the guest's memory"),
	    "a block that the guest does not see");
	ok(qemu_text_segments(" AS \"memory\",\n  0000000000000010-0000000000000000 (prio 0, "
			      "ram): r\n  0-ffffffffffffffff (prio 0, ram): r\n"
			      "  0000000000000000-0000000000000fff (prio 0, ram): r copy\n",
	       "r", 4096, &s, &n, &e) == -1 &&
		failed_with(&e, ERR_UNSUPPORTED, "not in the guest's memory"),
	    "ranges that can't be, regions of other names");
}

static void
test_hva(void)
{
	struct err e = ERR_INIT;
	uint64_t hva = 0;

	ok(qemu_text_hva("Host virtual address for 0x0 (ram0) is 0x7f6f3bfff000\r\n", "ram0",
	       &hva, &e) == 0 &&
		hva == UINT64_C(0x7f6f3bfff000),
	    "gpa2hva");
	ok(qemu_text_hva("Host virtual address for 0x0 (ram1) is 0x7f6f3bfff000\r\n", "ram0",
	       &hva, &e) == -1,
	    "another block");
	ok(qemu_text_hva("Memory at address 0x0 is not RAM\r\n", "ram0", &hva, &e) == -1 &&
		e.kind == ERR_CORRUPT,
	    "no RAM");
}

int
main(void)
{
	test_greeting();
	test_pretty();
	test_events();
	test_refusals();
	test_late();
	test_liars();
	test_half();
	test_stop();
	test_exit();
	test_send_fd();
	test_watch();
	test_watch_fails();
	test_take_over();
	test_resume();
	test_settings();
	test_migrating();
	test_connect();
	test_blocks();
	test_bad_blocks();
	test_segments();
	test_hva();
	return done();
}
