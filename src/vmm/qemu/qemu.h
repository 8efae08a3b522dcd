/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QEMU_H
#define GMEM_VMM_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "memory/process.h"
#include "vmm/qemu/text.h"

/*
 * Saving a QEMU (4.0 and later) that runs, over its QMP socket:
 *
 *	qemu_attach		who is it, where is its RAM; refuses what would not work
 *	guard_start(…, qemu_guard_resume, vm, …)
 *	qemu_pause
 *	qemu_save_state		devices and vCPUs by migration with x-ignore-shared
 *	… copy the RAM: not before, completing the state may still write to it …
 *	qemu_resume
 *	guard_stop
 *
 * For the other direction see qemu-load.h.
 */
struct qemu;

/* A RAM block of the guest that is shared memory: not in the state, to be copied from outside.
 */
struct qemu_ram {
	char *id; /* of the memory backend; the restored VM must use the same */
	char *block; /* QEMU's name for the block: the id, or "/objects/" and the id */
	uint64_t size; /* bytes */
	uint64_t page_size; /* bytes; of the pages behind it (hugetlb) */
	uint64_t hva; /* in QEMU's address space */
	const struct memory_object *object; /* borrowed from the VM */
	uint64_t offset; /* of the block's first byte in the object */
	struct qemu_segment *segments; /* by offset; they cover the block */
	size_t nsegments;
	bool sent; /* QEMU puts it into its state, from where it is taken out again */
};

/*
 * Connects and finds out everything.  The VM is not touched.  pid is the QEMU
 * process, or 0 if the socket's peer is it; stop_fd as in qmp_set_stop (borrowed).
 * ERR_UNSUPPORTED if the VM is built so that it could not be saved or restored,
 * with what to change.
 */
int qemu_attach(
    struct qemu **out, const char *socket_path, pid_t pid, int stop_fd, struct err *e);

/* NULL is fine.  Does not resume. */
void qemu_detach(struct qemu *vm);

pid_t qemu_pid(const struct qemu *vm);

/* The connection, for the guardian to keep. */
int qemu_fd(const struct qemu *vm);

/* Borrowed; by the address in the guest's memory. */
const struct qemu_ram *qemu_ram(const struct qemu *vm, size_t *n);

/* Stops the vCPUs if they run.  On failure call qemu_resume all the same. */
int qemu_pause(struct qemu *vm, struct err *e);

/* Whether it ran before qemu_pause. */
bool qemu_was_running(const struct qemu *vm);

/* Looks how it stands still when its state was saved, and before the RAM is read. */
int qemu_note_saved(struct qemu *vm, struct err *e);

/*
 * That nobody else has let it run since qemu_pause, or reset it, be it paused again; to be
 * asked when the RAM was copied.
 */
int qemu_check_paused(struct qemu *vm, struct err *e);

/*
 * Writes the state of devices and vCPUs to the sink, in pieces, in this
 * thread.  Proves that the RAM blocks of qemu_ram are not in it, and nothing
 * else is missing.  The VM must be stopped and stays so.  What it needs to change in
 * QEMU's migration settings is put back, also after a failure or interruption.
 */
int qemu_save_state(struct qemu *vm,
    int (*sink)(void *arg, const void *buf, size_t len, struct err *e), void *arg,
    struct err *e);

enum qemu_after {
	QEMU_AS_BEFORE, /* run if it ran when we attached */
	QEMU_LEAVE_PAUSED, /* stay stopped */
	QEMU_LEAVE_RUNNING, /* run */
	QEMU_QUIT, /* QEMU ends */
};

/*
 * The way out, whatever happened: cancels a migration that is not over, then
 * does what `after` says.  The stop descriptor is not looked at.  A VM that stays
 * stopped after its state was saved has QEMU's status "postmigrate": "cont" works, but
 * QEMU does not save it again before it ran (7.2).
 */
int qemu_resume(struct qemu *vm, enum qemu_after after, struct err *e);

/*
 * For guard_start, with the struct qemu as its argument and qemu_fd to keep:
 * carries on with the connection of the dead parent, cancels its migration, puts
 * back the settings, and lets the VM run if it ran before.
 */
int qemu_guard_resume(void *vm);

/* What an image tells about the VM. */
struct qemu_facts {
	char version[128]; /* "7.2.22 (package)" */
	char machine[64]; /* versioned: "pc-q35-7.2" */
	char accel[16]; /* "kvm" or "tcg" */
	char cpu[64]; /* "qemu64-x86_64-cpu"; "" if it does not tell */
	unsigned ncpus; /* 0 if it does not tell */
	char **argv; /* owned; the command line, NULL-terminated */
	size_t argc;
};

int qemu_facts(struct qemu *vm, struct qemu_facts *out, struct err *e);
void qemu_facts_fini(struct qemu_facts *f);

#endif
