/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * The receiver of a migration: one connection for the states
 *
 *	START  MEMORY_FD*  CONFIG  MEMORY*  STATE  COMPLETE | COMPLETE_PAUSED
 *
 * anything else is answered with an error and is the end, and, from CONFIG to STATE, a thread
 * that takes further connections: each says its role first, but those of v52, which
 * all carry memory.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

#define ROLE_WAIT 10 /* s */
#define FAULT_WAIT 30000 /* ms */
#define CONNECTIONS_MAX 128

enum step { ESTABLISHED, STARTED, FDS, CONFIGURED, STATED, COMPLETED, ABORTED };

struct worker {
	pthread_t thread;
	int fd, over;
};

struct destination {
	int listener, fd;
	bool postcopy;
	enum step step;
	uint32_t slots[SLOTS_MAX]; /* that came with a descriptor … */
	int fds[SLOTS_MAX]; /* … this one */
	size_t nfds;
	/* of the thread that accepts */
	pthread_t acceptor;
	bool accepting;
	int over; /* an eventfd: no more connections */
	struct worker workers[CONNECTIONS_MAX];
	size_t nworkers;
	int fault[2]; /* a pipe of fault connections */
	struct why *why;
};

/* ---- memory that comes over a connection ---- */

static int
receive_memory(int fd, uint64_t length, struct why *why)
{
	struct range *list = NULL;
	int rc = -1;

	if (length % sizeof(*list) != 0)
		fail(why, "a table of %llu bytes", (unsigned long long)length);
	else
		list = (struct range *)(void *)wire_payload(fd, length, why);
	if (list != NULL)
		rc = 0;
	for (size_t i = 0; rc == 0 && i < length / sizeof(*list); i++) {
		struct slot *s = memory_slot(list[i].gpa, list[i].length);

		if (s == NULL) {
			fail(why,
			    "Error receiving memory from socket: range %llx of %llx bytes",
			    (unsigned long long)list[i].gpa,
			    (unsigned long long)list[i].length);
			rc = -1;
		} else {
			rc =
			    wire_read(fd, s->mem + (list[i].gpa - s->gpa), list[i].length, why);
		}
	}
	free(list);
	return rc;
}

/* False when it is time to end; not looked at in the middle of a request. */
static bool
goes_on(const struct worker *w)
{
	struct pollfd p[2] = { { w->over, POLLIN, 0 }, { w->fd, POLLIN, 0 } };

	while (poll(p, 2, -1) == -1 && errno == EINTR)
		continue;
	return p[0].revents == 0;
}

static void *
memory_worker(void *arg)
{
	const struct worker *w = arg;
	struct request q;
	struct why why;

	while (goes_on(w) && wire_read(w->fd, &q, sizeof(q), &why) == 0)
		if (q.command != MEMORY || receive_memory(w->fd, q.length, &why) == -1 ||
		    wire_reply(w->fd, STATUS_OK, 0, &why) == -1)
			break;
	return NULL;
}

/* ---- further connections ---- */

static void
take_connection(struct destination *d, int fd)
{
	const char *wait = lie("role-wait");
	struct timeval patience = { wait == NULL ? ROLE_WAIT : atoi(wait), 0 }, none = { 0, 0 };
	uint16_t role = ROLE_MEMORY;
	struct why why;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (vmm.version != V52 && wire_read(fd, &role, sizeof(role), &why) == -1) {
		say("dropping connection: failed to read connection role: %s", why.text);
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	if (role == ROLE_FAULT && write(d->fault[1], &fd, sizeof(fd)) == sizeof(fd))
		return;
	if (role != ROLE_MEMORY || d->nworkers == CONNECTIONS_MAX) {
		say("dropping connection: role %u", role);
		close(fd);
		return;
	}
	struct worker *w = &d->workers[d->nworkers];
	*w = (struct worker){ .fd = fd, .over = d->over };
	if (pthread_create(&w->thread, NULL, memory_worker, w) == 0)
		d->nworkers++;
}

static void *
accept_more(void *arg)
{
	struct destination *d = arg;
	struct pollfd p[2] = { { d->over, POLLIN, 0 }, { d->listener, POLLIN, 0 } };

	for (;;) {
		if (poll(p, 2, -1) == -1 && errno != EINTR)
			break;
		if (p[0].revents != 0)
			break;
		int fd =
		    p[1].revents != 0 ? accept4(d->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd != -1)
			take_connection(d, fd);
	}
	return NULL;
}

static void
stop_accepting(struct destination *d)
{
	if (!d->accepting)
		return;
	eventfd_write(d->over, 1);
	pthread_join(d->acceptor, NULL);
	for (size_t i = 0; i < d->nworkers; i++) {
		pthread_join(d->workers[i].thread, NULL);
		close(d->workers[i].fd);
	}
	d->accepting = false;
}

static int
start_accepting(struct destination *d)
{
	d->over = eventfd(0, EFD_CLOEXEC);
	if (d->over == -1 || pipe(d->fault) == -1 ||
	    pthread_create(&d->acceptor, NULL, accept_more, d) != 0) {
		fail(d->why, "Error creating connection accept thread");
		return -1;
	}
	d->accepting = true;
	return 0;
}

/* ---- commands ---- */

static int
on_start(struct destination *d, const struct request *q)
{
	/* v52 does not look at it. */
	if (vmm.version != V52 && q->version != 0) {
		fail(d->why,
		    "Migration protocol version %u doesn't match supported versions: 0",
		    q->version);
		return -1;
	}
	d->step = STARTED;
	return 0;
}

static int
on_memory_fd(struct destination *d)
{
	if (d->nfds == SLOTS_MAX ||
	    wire_recv_slot(d->fd, &d->slots[d->nfds], &d->fds[d->nfds], d->why) == -1)
		return -1;
	d->nfds++;
	d->step = FDS;
	return 0;
}

/* Of a slot that came twice the last one counts. */
static int
descriptor(const struct destination *d, uint32_t slot)
{
	for (size_t i = d->nfds; i > 0; i--)
		if (d->slots[i - 1] == slot)
			return d->fds[i - 1];
	return -1;
}

static bool
prefault_on(const json_t *vm_config)
{
	const json_t *memory = json_object_get(vm_config, "memory"), *zone;
	bool on = json_is_true(json_object_get(memory, "prefault"));
	size_t i;

	json_array_foreach(json_object_get(memory, "zones"), i, zone) on |=
	    json_is_true(json_object_get(zone, "prefault"));
	return on;
}

static int
configure(struct destination *d, const json_t *config)
{
	const json_t *vm_config = json_object_get(config, "vm_config");
	int fds[SLOTS_MAX];

	if (json_slots(config, vmm.slots, &vmm.nslots, d->why) == -1)
		return -1;
	if (d->postcopy && prefault_on(vm_config)) {
		fail(d->why,
		    "postcopy migration is incompatible with memory prefault; the source "
		    "VM must not be configured with prefault=on");
		return -1;
	}
	for (size_t i = 0; i < vmm.nslots; i++)
		fds[i] = descriptor(d, vmm.slots[i].slot);
	pthread_mutex_lock(&vmm.lock);
	vmm.config = json_deep_copy(vm_config);
	pthread_mutex_unlock(&vmm.lock);
	return memory_map(fds, d->why);
}

static int
on_config(struct destination *d, const struct request *q)
{
	char *text = wire_payload(d->fd, q->length, d->why);
	json_t *config = text == NULL ? NULL : json_loadb(text, q->length, 0, NULL);
	int rc = -1;

	if (config != NULL)
		rc = configure(d, config);
	else if (text != NULL)
		fail(d->why, "Error deserialising config");
	json_decref(config);
	free(text);
	if (rc == 0)
		rc = start_accepting(d);
	d->step = CONFIGURED;
	return rc;
}

static int
await_fault_connection(struct destination *d)
{
	struct pollfd p = { d->fault[0], POLLIN, 0 };
	const char *wait = lie("fault-wait");
	int fd;

	if (poll(&p, 1, wait == NULL ? FAULT_WAIT : atoi(wait) * 1000) == 1 &&
	    read(d->fault[0], &fd, sizeof(fd)) == sizeof(fd))
		return fd;
	fail(d->why,
	    "Timed out waiting for postcopy fault connection: timed out waiting on channel");
	return -1;
}

static int
start_faults(struct destination *d)
{
	int fd = await_fault_connection(d);

	if (fd == -1)
		return -1;
	if (lie("bench") != NULL)
		return fault_bench(fd, d->nfds > 0, d->why);
	return fault_start(fd, d->nfds > 0, d->why);
}

static int
on_state(struct destination *d, const struct request *q)
{
	const char *slow = lie("state-slow");

	/* Before the payload is read. */
	if (d->postcopy && start_faults(d) == -1)
		return -1;
	stop_accepting(d);
	char *text = wire_payload(d->fd, q->length, d->why);
	int rc = text == NULL ? -1 : json_read_state(text, &vmm.guest, d->why);
	free(text);
	if (rc == -1)
		return -1;
	/* Devices look into memory before anybody knows that the state is there. */
	if (!guest_peek(16)) {
		quit(3);
		sleep_for_ever();
	}
	if (slow != NULL)
		usleep((unsigned)atoi(slow) * 1000);
	pthread_mutex_lock(&vmm.lock);
	vmm.state = VM_PAUSED;
	pthread_mutex_unlock(&vmm.lock);
	d->step = STATED;
	return 0;
}

static int
on_complete(struct destination *d, bool run)
{
	pthread_mutex_lock(&vmm.lock);
	if (run) {
		vmm.state = VM_RUNNING;
		pthread_cond_broadcast(&vmm.changed);
		guest_verify();
	}
	pthread_mutex_unlock(&vmm.lock);
	d->step = COMPLETED;
	return 0;
}

static int
invalid(struct destination *d, const struct request *q)
{
	static const char *const names[] = { "Established", "Started", "MemoryFdsReceived",
		"Configured", "StateReceived" };

	fail(d->why, "Can't handle command %u in current receive state %s", q->command,
	    names[d->step]);
	return -1;
}

static int
handle(struct destination *d, const struct request *q)
{
	enum step step = d->step;

	if (q->command == ABANDON) {
		fail(d->why, "Abandon Command Received");
		d->step = ABORTED;
		return 0;
	}
	if (step == ESTABLISHED && q->command == START)
		return on_start(d, q);
	if ((step == STARTED || step == FDS) && q->command == MEMORY_FD)
		return on_memory_fd(d);
	if ((step == STARTED || step == FDS) && q->command == CONFIG)
		return on_config(d, q);
	if (step == CONFIGURED && q->command == MEMORY)
		return receive_memory(d->fd, q->length, d->why);
	if (step == CONFIGURED && q->command == STATE)
		return on_state(d, q);
	if (step == STATED && (q->command == COMPLETE || q->command == COMPLETE_PAUSED))
		return on_complete(d, q->command == COMPLETE);
	return invalid(d, q);
}

/* ---- the conversation ---- */

static const char *
name_of(const struct request *q)
{
	static const char *const names[] = { "", "start", "config", "state", "memory",
		"complete", "abandon", "memory-fd", "complete" };

	return q->command < sizeof(names) / sizeof(*names) ? names[q->command] : "";
}

/* Before a command is handled. */
static int
sad_before(struct destination *d, const char *step)
{
	if (lie_at("die-at", step))
		raise(SIGKILL);
	if (lie_at("silent-at", step))
		sleep_for_ever();
	if (lie_at("close-at", step) || lie_at("error-at", step)) {
		fail(d->why, "a lie at %s", step);
		return -1;
	}
	return 0;
}

static int
answer(struct destination *d, const char *step, enum status status)
{
	if (lie_at("close-at", step))
		return -1;
	if (lie_at("garbage-at", step))
		return wire_write(d->fd, "HTTP/1.1 200 OK\r", 16, d->why);
	if (lie_at("invalid-at", step))
		return wire_reply(d->fd, 0, 0, d->why);
	if (lie_at("payload-at", step))
		return wire_reply(d->fd, STATUS_OK, 4096, d->why);
	if (lie_at("half-at", step)) {
		wire_write(d->fd, "\1\0\0\0", 4, d->why);
		sleep_for_ever();
	}
	if (lie_at("error-late-at", step))
		status = STATUS_ERROR;
	if (lie_at("twice-at", step) && wire_reply(d->fd, status, 0, d->why) == -1)
		return -1;
	return wire_reply(d->fd, status, 0, d->why);
}

static int
converse(struct destination *d)
{
	while (d->step != COMPLETED && d->step != ABORTED) {
		struct request q;

		if (wire_read(d->fd, &q, sizeof(q), d->why) == -1)
			return -1;
		if (q.command == 0 || q.command > (vmm.version == V52 ? 8 : 9)) {
			fail(d->why, "received request with unknown command");
			return -1;
		}
		const char *step = name_of(&q);
		int rc = sad_before(d, step) == -1 ? -1 : handle(d, &q);
		if (rc == -1) {
			say("migration aborted as migration command %u failed: %s", q.command,
			    d->why->text);
			d->step = ABORTED;
		}
		if (answer(d, step, rc == 0 ? STATUS_OK : STATUS_ERROR) == -1)
			return -1;
	}
	return d->step == COMPLETED ? 0 : 1;
}

static void
forget_vm(void)
{
	pthread_mutex_lock(&vmm.lock);
	vmm.state = VM_NONE;
	json_decref(vmm.config);
	vmm.config = NULL;
	pthread_mutex_unlock(&vmm.lock);
	fault_stop();
}

int
destination_receive(const char *path, bool postcopy, struct why *why)
{
	struct destination d = { .postcopy = postcopy, .why = why, .fault = { -1, -1 } };

	if (lie("no-socket") != NULL)
		sleep_for_ever();
	d.listener = wire_listen(path, why);
	if (d.listener == -1)
		return -1;
	/* For ever, and the socket stays behind: so does the real one. */
	d.fd = accept4(d.listener, NULL, NULL, SOCK_CLOEXEC);
	int rc = d.fd == -1 || sad_before(&d, "connect") == -1 ? -1 : converse(&d);
	stop_accepting(&d);
	if (rc == 1)
		forget_vm();
	close(d.fd);
	close(d.listener);
	return rc;
}
