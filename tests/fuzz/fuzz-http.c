/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "vmm/cloud-hypervisor/api.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/firecracker/facts.h"
#include "vmm/http.h"

/*
 * The HTTP API of a VMM: the first byte chooses who asks, the rest is what is answered, with a
 * line of four % between one connection's answer and the next one's.
 */
#define SEPARATOR "%%%%\n"
#define ANSWERS_MAX 65536

static char answers[ANSWERS_MAX];
static const char *next_answer; /* in answers, or NULL: no more */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards both */
static char path[64];
static int listener;

/* What has come of the request is enough: it is one packet. */
static void
answer(int fd)
{
	char request[4096], text[ANSWERS_MAX];
	const char *end = NULL;
	size_t len = 0;

	if (read(fd, request, sizeof(request)) <= 0)
		return;
	pthread_mutex_lock(&lock);
	if (next_answer != NULL) {
		end = strstr(next_answer, SEPARATOR);
		len = end != NULL ? (size_t)(end - next_answer) : strlen(next_answer);
		memcpy(text, next_answer, len);
	}
	next_answer = end != NULL ? end + strlen(SEPARATOR) : NULL;
	pthread_mutex_unlock(&lock);
	(void)send(fd, text, len, MSG_NOSIGNAL);
}

static void *
serve(void *arg)
{
	(void)arg;
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd == -1)
			continue;
		answer(fd);
		close(fd);
	}
	return NULL;
}

/* A socket that leaves no file behind, however we end. */
static void
start(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char folder[] = "/tmp/fuzz-http-XXXXXX";
	pthread_t thread;
	int place;

	must(mkdtemp(folder) != NULL);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/api", folder);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	must(listen(listener, 16) == 0);
	place = open(addr.sun_path, O_PATH | O_CLOEXEC);
	must(place != -1 && unlink(addr.sun_path) == 0 && rmdir(folder) == 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
	must(pthread_create(&thread, NULL, serve, NULL) == 0);
}

static void
printable(const char *text)
{
	for (; *text != '\0'; text++)
		must(*text >= ' ' && *text <= '~');
}

static void
ask(void)
{
	const struct http_request r = { .socket = path,
		.method = "GET",
		.path = "/vm",
		.timeout_ms = 2000,
		.stop_fd = -1 };
	struct http_reply reply;
	struct err e = ERR_INIT;

	if (http_call(&r, &reply, &e) == 0) {
		must(reply.body[reply.len] == '\0' && reply.len <= HTTP_BODY_MAX);
		must((http_check(&reply, "ask", &e) == 0) ==
		     (reply.status >= 200 && reply.status < 300));
	} else {
		must(reply.body == NULL && e.kind != ERR_NONE);
	}
	printable(e.msg);
	http_reply_fini(&reply);
}

static void
ask_firecracker(void)
{
	const struct fc_api api = { .socket = path, .timeout_ms = 2000, .stop_fd = -1 };
	struct fc_facts facts;
	struct err e = ERR_INIT;

	if (fc_facts_get(&facts, &api, 0, &e) == 0) {
		must(facts.memory_mib != 0);
		printable(facts.version);
		printable(facts.huge_pages);
	}
	printable(e.msg);
	fc_facts_fini(&facts);
}

static void
ask_cloud_hypervisor(bool settle)
{
	const struct ch_api api = { .socket = path, .timeout_ms = 2000, .stop_fd = -1 };
	enum vmm_outcome outcome;
	struct ch_version version;
	char state[CH_STATE_MAX];
	json_t *config = NULL;
	struct err e = ERR_INIT;
	struct ch_memory m;

	if (settle)
		(void)ch_api_settle(&api, true, &outcome, &e);
	else if (ch_api_ping(&api, &version, &e) == 0 &&
		 ch_api_info(&api, state, &config, &e) == 0 &&
		 ch_memory_of_config(&m, config, &e) == 0)
		must(m.v == NULL);
	json_decref(config);
	printable(e.msg);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	if (size < 1 || size > ANSWERS_MAX)
		return 0;
	if (path[0] == '\0')
		start();
	pthread_mutex_lock(&lock);
	memcpy(answers, data + 1, size - 1);
	answers[size - 1] = '\0';
	next_answer = answers;
	pthread_mutex_unlock(&lock);
	switch (data[0] % 4) {
	case 0:
		ask();
		break;
	case 1:
		ask_firecracker();
		break;
	default:
		ask_cloud_hypervisor(data[0] % 4 == 3);
		break;
	}
	return 0;
}
