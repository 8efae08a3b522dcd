/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The sender of a migration.  Whatever fails, it closes the connection without a word;
 * the caller lets the VM run again if it ran.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

#define HUGE_LENGTH (UINT64_C(1) << 62)

struct source {
	int fd;
	bool local, was_running;
	struct why *why;
};

/* The lies that take the place of a step; -1: the migration is over. */
static int
sad(struct source *s, const char *step)
{
	if (lie_at("die-at", step))
		raise(SIGKILL);
	if (lie_at("silent-at", step))
		sleep_for_ever();
	if (lie_at("close-at", step)) {
		fail(s->why, "closed before %s", step);
		return -1;
	}
	if (lie_at("abandon-at", step)) {
		if (wire_request(s->fd, ABANDON, 0, s->why) == 0 &&
		    wire_await_ok(s->fd, "abandon", s->why) == 0)
			fail(s->why, "abandoned before %s", step);
		return -1;
	}
	return 0;
}

/* A request with a payload, half of it if the sender is to die in it. */
static int
send_blob(
    struct source *s, enum command command, const char *step, const void *data, size_t len)
{
	bool dies = lie_at("die-in", step);
	uint64_t told = lie_at("huge-payload", step) ? HUGE_LENGTH : len;

	if (sad(s, step) == -1 || wire_request(s->fd, command, told, s->why) == -1 ||
	    wire_write(s->fd, data, dies ? len / 2 : len, s->why) == -1)
		return -1;
	if (dies)
		raise(SIGKILL);
	return wire_await_ok(s->fd, step, s->why);
}

static int
start(struct source *s)
{
	struct request q = { .command = START };
	const char *v = lie("start-version");

	if (sad(s, "start") == -1)
		return -1;
	q.version = (uint16_t)(v == NULL ? 0 : atoi(v));
	if (lie("command") != NULL)
		q.command = (uint16_t)atoi(lie("command"));
	if (lie("short-header") != NULL) {
		wire_write(s->fd, &q, 8, s->why);
		sleep_for_ever();
	}
	if (wire_write(s->fd, &q, sizeof(q), s->why) == -1)
		return -1;
	return wire_await_ok(s->fd, "start", s->why);
}

/* ---- descriptors ---- */

/* Half of what the configuration says. */
static int
small_file(const struct slot *slot)
{
	int fd = memfd_create("small", MFD_CLOEXEC);

	if (fd != -1 && ftruncate(fd, (off_t)(slot->file_offset + slot->size / 2)) == -1)
		abort();
	return fd;
}

static int
send_slot(struct source *s, const struct slot *slot, const char *step)
{
	const char *length = lie("fd-length");
	int fds[2] = { slot->fd, slot->fd };
	size_t n = lie("fd-none") != NULL ? 0 : lie("fd-two") != NULL ? 2 : 1;

	if (sad(s, step) == -1)
		return -1;
	if (lie("fd-small") != NULL)
		fds[0] = small_file(slot);
	if (lie("fd-pipe") != NULL && pipe(fds) == -1)
		return -1;
	if (wire_request(s->fd, MEMORY_FD, length == NULL ? 4 : strtoull(length, NULL, 0),
		s->why) == -1 ||
	    wire_send_slot(s->fd, slot->slot, fds, n, s->why) == -1)
		return -1;
	return wire_await_ok(s->fd, "memory fd migration", s->why);
}

/* As a HashMap hands them out: in any order. */
static void
shuffle(size_t *order, size_t n)
{
	unsigned seed = (unsigned)getpid() ^ (unsigned)vmm.guest.seed;

	for (size_t i = 0; i < n; i++)
		order[i] = i;
	for (size_t i = n; i > 1; i--) {
		size_t j = (size_t)rand_r(&seed) % i, swapped = order[j];

		order[j] = order[i - 1];
		order[i - 1] = swapped;
	}
}

static int
send_slots(struct source *s)
{
	size_t order[SLOTS_MAX], n = vmm.nslots;

	shuffle(order, n);
	if (lie("slot-missing") != NULL)
		n--;
	for (size_t i = 0; i < n; i++) {
		const char *step = i == 0 ? "memory-fd" : i == n - 1 ? "last-memory-fd" : "";

		if (send_slot(s, &vmm.slots[order[i]], step) == -1)
			return -1;
	}
	if (lie("slot-twice") != NULL)
		return send_slot(s, &vmm.slots[order[0]], "");
	if (lie("slot-unknown") != NULL) {
		struct slot unknown = vmm.slots[0];

		unknown.slot = 4711;
		return send_slot(s, &unknown, "");
	}
	return 0;
}

/* ---- config and state ---- */

static int
send_config(struct source *s)
{
	char *text = json_migration_config();
	size_t len = strlen(text), want = (size_t)100 << 20;

	if (lie("config-huge") != NULL) {
		/* White space is JSON. */
		text = realloc(text, want);
		if (text == NULL)
			abort();
		memset(text + len, ' ', want - len);
		len = want;
	}
	int rc = send_blob(s, CONFIG, "config", text, len);
	free(text);
	return rc;
}

static int
send_state(struct source *s)
{
	pthread_mutex_lock(&vmm.lock);
	char *text = json_state();
	pthread_mutex_unlock(&vmm.lock);
	if (lie("state-no-json") != NULL)
		text[strlen(text) / 2] = '\0';
	int rc = send_blob(s, STATE, "state", text, strlen(text));

	free(text);
	return rc;
}

/* ---- memory over the wire ---- */

static int
send_content(struct source *s, const struct range *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct slot *slot = memory_slot(list[i].gpa, list[i].length);

		if (wire_write(s->fd, slot->mem + (list[i].gpa - slot->gpa), list[i].length,
			s->why) == -1)
			return -1;
		if (lie_at("die-in", "memory"))
			raise(SIGKILL);
	}
	return 0;
}

/* One message with all ranges, then the bytes of all. */
static int
send_memory(struct source *s, struct range *list, size_t n)
{
	uint64_t length = n * sizeof(*list);
	struct range told = { 0 };

	if (n == 0)
		return 0;
	if (sad(s, "memory") == -1)
		return -1;
	told = list[0];
	if (lie("memory-outside") != NULL)
		list[0].gpa = UINT64_C(1) << 46;
	if (lie("memory-past-end") != NULL)
		list[0].length = UINT64_MAX - PAGE;
	if (lie("memory-unaligned") != NULL)
		length--;
	if (lie_at("huge-payload", "memory"))
		length = HUGE_LENGTH;
	if (wire_request(s->fd, MEMORY, length, s->why) == -1 ||
	    wire_write(s->fd, list, n * sizeof(*list), s->why) == -1)
		return -1;
	list[0] = told;
	if (send_content(s, list, n) == -1)
		return -1;
	return wire_await_ok(s->fd, "dirty memory migration", s->why);
}

static int
send_and_free(struct source *s, struct range *list, size_t n)
{
	int rc = send_memory(s, list, n);

	free(list);
	return rc;
}

static void
pause_vm(void)
{
	pthread_mutex_lock(&vmm.lock);
	guest_pause();
	pthread_mutex_unlock(&vmm.lock);
}

/* What is dirty now, and behind it what was dirty before: pages may be in it twice. */
static int
send_last(struct source *s, struct range *before, size_t nbefore)
{
	size_t n;
	struct range *list = memory_dirty(&n);

	list = realloc(list, (n + nbefore + 1) * sizeof(*list));
	if (list == NULL)
		abort();
	if (nbefore > 0)
		memcpy(list + n, before, nbefore * sizeof(*list));
	free(before);
	return send_and_free(s, list, n + nbefore);
}

static int
send_rounds(struct source *s)
{
	size_t n;

	free(memory_dirty(&n)); /* the log starts */
	/* v52 and v53 send all, later ones leave out holes. */
	struct range *list = memory_ranges(vmm.version >= MAIN, &n);
	for (unsigned round = 0; round < vmm.rounds && n > 0; round++) {
		if (send_and_free(s, list, n) == -1)
			return -1;
		usleep(20000);
		list = memory_dirty(&n);
	}
	usleep(20000); /* what is written now is only in the last message */
	pause_vm();
	return send_last(s, list, n);
}

/* A snapshot may still change memory: v53 sends that, v52 doesn't know. */
static int
send_afterthought(struct source *s)
{
	size_t n;

	if (vmm.version == V52)
		return 0;
	pthread_mutex_lock(&vmm.lock);
	if (vmm.rate > 0)
		guest_write_one();
	pthread_mutex_unlock(&vmm.lock);
	struct range *list = memory_dirty(&n);
	return send_and_free(s, list, n);
}

/* ---- all of it ---- */

static int
send_configured(struct source *s)
{
	if (lie("state-first") != NULL && send_state(s) == -1)
		return -1;
	if (send_config(s) == -1)
		return -1;
	if (lie("fd-late") != NULL && send_slots(s) == -1)
		return -1;
	if (s->local)
		pause_vm();
	else if (send_rounds(s) == -1 || send_afterthought(s) == -1)
		return -1;
	return 0;
}

static int
complete(struct source *s)
{
	enum command command = s->was_running ? COMPLETE : COMPLETE_PAUSED;

	if (sad(s, "complete") == -1 || wire_request(s->fd, command, 0, s->why) == -1 ||
	    wire_await_ok(s->fd, "completing migration", s->why) == -1)
		return -1;
	if (lie("complete-twice") == NULL)
		return 0;
	return wire_request(s->fd, command, 0, s->why) == -1 ||
		       wire_await_ok(s->fd, "completing migration again", s->why) == -1
		   ? -1
		   : 0;
}

static int
converse(struct source *s)
{
	if (sad(s, "connect") == -1 || start(s) == -1)
		return -1;
	if (lie("start-twice") != NULL && start(s) == -1)
		return -1;
	if (s->local && lie("fd-late") == NULL && send_slots(s) == -1)
		return -1;
	if (send_configured(s) == -1)
		return -1;
	if (lie("state-missing") == NULL && send_state(s) == -1)
		return -1;
	return complete(s);
}

int
source_send(const char *path, bool local, bool was_running, struct why *why)
{
	struct source s = { wire_connect(path, why), local, was_running, why };

	if (s.fd == -1)
		return -1;
	int rc = converse(&s);
	close(s.fd);
	return rc;
}
