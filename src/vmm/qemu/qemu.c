/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "serve/stats.h"

#define CANCEL_S 30
#define QUIT_MS 30000

/* The guardian is patient, but each attempt has an end. */
#define GUARD_ATTEMPTS 10
#define GUARD_TIMEOUT_MS 10000
#define RESUME_ATTEMPTS 5
#define AGAIN_MS 100 /* between two of them */

static int
inspect(struct qemu *vm, struct err *e)
{
	if (qemu_check_state(vm, e) == -1 || qemu_learn_settings(vm, e) == -1 ||
	    qemu_check_devices(vm, e) == -1)
		return -1;
	return qemu_find_ram(vm, e);
}

int
qemu_attach(struct qemu **out, const char *socket_path, pid_t pid, int stop_fd, struct err *e)
{
	struct qmp_dial how = QMP_DIAL_INIT;
	struct qemu *vm;

	vm = calloc(1, sizeof(*vm));
	if (vm == NULL)
		return err_sys(e, "%s", socket_path);
	how.stop_fd = stop_fd;
	if (qmp_connect(&vm->qmp, socket_path, &how, e) == -1) {
		qemu_detach(vm);
		return -1;
	}
	vm->pid = pid != 0 ? pid : qmp_peer_pid(vm->qmp);
	if (vm->pid == 0)
		err_set(
		    e, ERR_FAILED, "can't tell which process is QEMU (another PID namespace)");
	if (vm->pid == 0 || inspect(vm, e) == -1) {
		qemu_detach(vm);
		return err_wrap(e, "VM at %s", socket_path);
	}
	*out = vm;
	return 0;
}

void
qemu_detach(struct qemu *vm)
{
	if (vm == NULL)
		return;
	qmp_close(vm->qmp);
	json_decref(vm->settings.capabilities);
	qemu_free_ram(vm);
	free(vm);
}

pid_t
qemu_pid(const struct qemu *vm)
{
	return vm->pid;
}

int
qemu_fd(const struct qemu *vm)
{
	return qmp_fd(vm->qmp);
}

const struct qemu_ram *
qemu_ram(const struct qemu *vm, size_t *n)
{
	*n = vm->nram;
	return vm->ram;
}

static int
pause_vm(struct qemu *vm, struct err *e)
{
	char status[QEMU_STATUS_MAX];

	if (qemu_query_status(vm->qmp, status, e) == -1)
		return -1;
	vm->was_running = strcmp(status, "running") == 0;
	if (!vm->was_running)
		return 0;
	if (qmp_command(vm->qmp, "stop", NULL, NULL, e) == -1 ||
	    qemu_query_status(vm->qmp, status, e) == -1)
		return -1;
	/* It may have stopped for a reason of its own, such as a panic, just before. */
	vm->was_running = strcmp(status, "paused") == 0;
	return strcmp(status, "running") != 0 ? 0 : err_set(e, ERR_FAILED, "it runs on");
}

int
qemu_pause(struct qemu *vm, struct err *e)
{
	if (pause_vm(vm, e) == -1)
		return err_wrap(e, "pausing the VM");
	vm->moves = qmp_moves(vm->qmp);
	return 0;
}

bool
qemu_was_running(const struct qemu *vm)
{
	return vm->was_running;
}

int
qemu_cancel(struct qemu *vm, struct err *e)
{
	uint64_t end = serve_now() + CANCEL_S * UINT64_C(1000000000);
	char status[QEMU_STATUS_MAX];

	if (qemu_query_migrate(vm->qmp, status, NULL, e) == -1)
		return -1;
	if (!qemu_migrating(status))
		return 0;
	if (qmp_command(vm->qmp, "migrate_cancel", NULL, NULL, e) == -1)
		return -1;
	for (;;) {
		if (qemu_query_migrate(vm->qmp, status, NULL, e) == -1)
			return -1;
		if (!qemu_migrating(status))
			return 0;
		if (serve_now() > end)
			return err_set(e, ERR_FAILED,
			    "the migration is not cancelled within %d s (%s)", CANCEL_S,
			    status);
		if (qmp_wait(vm->qmp, 5, e) == -1)
			return -1;
	}
}

/*
 * QEMU says how a migration ended before it sets the run state that follows: read at once, it
 * would be neither the old nor the new one, and "cont" is refused.
 */
static int
settle(struct qemu *vm, char status[QEMU_STATUS_MAX], struct err *e)
{
	uint64_t end = serve_now() + CANCEL_S * UINT64_C(1000000000);

	for (;;) {
		if (qemu_query_status(vm->qmp, status, e) == -1)
			return -1;
		if (strcmp(status, "finish-migrate") != 0)
			return 0;
		if (serve_now() > end)
			return err_set(e, ERR_FAILED,
			    "the VM is still \"%s\" %d s after the migration", status,
			    CANCEL_S);
		if (qmp_wait(vm->qmp, 5, e) == -1)
			return -1;
	}
}

int
qemu_note_saved(struct qemu *vm, struct err *e)
{
	return settle(vm, vm->saved_as, e);
}

/* Of a snapshot of QEMU's own that is loaded the status tells alone. */
int
qemu_check_paused(struct qemu *vm, struct err *e)
{
	char status[QEMU_STATUS_MAX];

	if (qemu_query_status(vm->qmp, status, e) == -1)
		return -1;
	if (strcmp(status, "running") != 0 && strcmp(status, vm->saved_as) == 0 &&
	    qmp_moves(vm->qmp) == vm->moves)
		return 0;
	return err_set(e, ERR_FAILED,
	    "somebody let the VM run while its memory was read: it is not consistent");
}

/* Lets it run; unless forced, only if it is we who stopped it. */
static int
run(struct qemu *vm, bool force, struct err *e)
{
	char status[QEMU_STATUS_MAX];

	if (settle(vm, status, e) == -1)
		return -1;
	if (strcmp(status, "running") == 0)
		return 0;
	if (!force && strcmp(status, "paused") != 0 && strcmp(status, "postmigrate") != 0)
		return 0;
	if (qmp_command(vm->qmp, "cont", NULL, NULL, e) == -1 ||
	    qemu_query_status(vm->qmp, status, e) == -1)
		return -1;
	if (strcmp(status, "running") == 0)
		return 0;
	return err_set(e, ERR_FAILED, "the VM is \"%s\" after \"cont\"", status);
}

/* Tells QEMU to end and waits until it has. */
static int
quit(struct qemu *vm, struct err *e)
{
	struct pollfd p = { .fd = pidfd_open(vm->pid, 0), .events = POLLIN };
	int r;

	if (p.fd == -1)
		return errno == ESRCH ? 0 : err_sys(e, "pidfd_open %d", (int)vm->pid);
	r = qmp_command(vm->qmp, "quit", NULL, NULL, e);
	if (r == 0) {
		do
			r = poll(&p, 1, QUIT_MS);
		while (r == -1 && errno == EINTR);
		if (r != 1)
			r = err_set(
			    e, ERR_FAILED, "QEMU does not end within %d s", QUIT_MS / 1000);
		else
			r = 0;
	}
	fd_close(&p.fd);
	return r;
}

static int
leave(struct qemu *vm, enum qemu_after after, struct err *e)
{
	switch (after) {
	case QEMU_AS_BEFORE:
		return vm->was_running ? run(vm, false, e) : 0;
	case QEMU_LEAVE_RUNNING:
		return run(vm, true, e);
	case QEMU_QUIT:
		return quit(vm, e);
	case QEMU_LEAVE_PAUSED:
		break;
	}
	return 0;
}

static int
try_to_resume(struct qemu *vm, enum qemu_after after, struct err *e)
{
	struct err first = ERR_INIT;

	*e = first;
	/* Every step is tried: the VM must run though the one before failed. */
	if (qemu_cancel(vm, e) == -1)
		err_first(&first, e);
	if (qemu_restore_settings(vm, e) == -1)
		err_first(&first, e);
	if (leave(vm, after, e) == -1) {
		/* That the VM stands still matters more than what came before. */
		first = *e;
	}
	*e = first;
	return first.kind == ERR_NONE ? 0 : -1;
}

/*
 * What the system has refused it may not refuse again: a VM that stays paused is the worst.
 * The connection may have broken in the middle of a command or of a reply.
 */
int
qemu_resume(struct qemu *vm, enum qemu_after after, struct err *e)
{
	int rc, stop_fd = qmp_set_stop(vm->qmp, -1), left = RESUME_ATTEMPTS;
	struct err unused = ERR_INIT;

	while ((rc = try_to_resume(vm, after, e)) == -1 && e->kind == ERR_SYS && --left > 0) {
		poll(NULL, 0, AGAIN_MS);
		(void)qmp_resync(vm->qmp, &unused);
	}
	qmp_set_stop(vm->qmp, stop_fd);
	return rc == -1 ? err_wrap(e, "resuming the VM") : 0;
}

/* Takes the connection over at whatever byte the parent left it. */
static int
take_over(struct qemu *vm, struct err *e)
{
	char status[QEMU_STATUS_MAX];

	qmp_set_stop(vm->qmp, -1);
	qmp_watch(vm->qmp, NULL);
	qmp_set_timeout(vm->qmp, GUARD_TIMEOUT_MS);
	for (int i = 0; i < GUARD_ATTEMPTS; i++)
		if (qmp_resync(vm->qmp, e) == 0 && qemu_query_status(vm->qmp, status, e) == 0)
			return 0;
	return -1;
}

int
qemu_guard_resume(void *arg)
{
	struct err e = ERR_INIT;
	struct qemu *vm = arg;

	/* The fork is from before they were changed. */
	vm->settings.changed = true;
	if (take_over(vm, &e) == 0 && qemu_resume(vm, QEMU_AS_BEFORE, &e) == 0) {
		log_warn("died before its end; the VM of process %d is as it was before",
		    (int)vm->pid);
		return 0;
	}
	log_error(
	    "died before its end; the VM of process %d may be paused: %s", (int)vm->pid, e.msg);
	return -1;
}
