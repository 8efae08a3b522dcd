/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QEMU_IMPL_H
#define GMEM_VMM_QEMU_IMPL_H

/* What the files qemu*.c share; nobody else includes it. */

#include <jansson.h>
#include <stdbool.h>

#include "vmm/qemu/qemu.h"
#include "vmm/qemu/qmp.h"

/* QEMU's migration settings as we found them. */
struct qemu_settings {
	json_t *capabilities; /* owned; list of those we change, for migrate-set-capabilities */
	json_int_t bandwidth; /* bytes a second */
	bool changed; /* ours are in force */
};

#define QEMU_STATUS_MAX 32

struct qemu {
	struct qmp *qmp; /* owned */
	pid_t pid;
	bool was_running; /* when we attached */
	uint64_t moves; /* qmp_moves when it was paused */
	char saved_as[QEMU_STATUS_MAX]; /* the status when its state was saved */
	struct qemu_settings settings;
	struct memory_object *objects; /* owned; of the process; ram[] points into it */
	size_t nobjects;
	struct qemu_ram *ram; /* owned */
	size_t nram;
};

/* "status" of query-status or query-migrate as text into buf; "none" if there is none. */
int qemu_query_status(struct qmp *q, char status[QEMU_STATUS_MAX], struct err *e);
int qemu_query_migrate(
    struct qmp *q, char status[QEMU_STATUS_MAX], json_t **reply, struct err *e);

/* Whether a migration of this status is still going on. */
bool qemu_migrating(const char *status);

/* Fails with what QEMU says about a migration that ended with this status. */
int qemu_migration_failed(const char *status, const json_t *reply, struct err *e);

/* The list [{capability, state}] of one. */
json_t *qemu_capability(const char *name, bool state);

/* Refuses what qemu_attach promises to refuse, but for the RAM itself. */
int qemu_check_state(struct qemu *vm, struct err *e);
int qemu_check_devices(struct qemu *vm, struct err *e);

/* Fills ram[]. */
int qemu_find_ram(struct qemu *vm, struct err *e);
void qemu_free_ram(struct qemu *vm);

/* Migration settings: learn, change, put back. */
int qemu_learn_settings(struct qemu *vm, struct err *e);
int qemu_change_settings(struct qemu *vm, struct err *e);
int qemu_restore_settings(struct qemu *vm, struct err *e);

/* Makes sure that no migration is going on. */
int qemu_cancel(struct qemu *vm, struct err *e);

#endif
