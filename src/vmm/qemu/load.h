/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QEMU_LOAD_H
#define GMEM_VMM_QEMU_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Gives a QEMU that was started with -incoming defer the state that
 * qemu_save_state wrote, over its QMP socket, and lets it run.
 *
 * Loading reads the guest's RAM (virtio rings, option ROMs): the memory must be
 * complete or served before before_incoming returns.
 */
struct qemu_load {
	const char *socket;
	int connect_ms; /* until QEMU has made the socket and greets */
	int incoming_ms; /* for each answer, and without progress, while it loads */
	int stop_fd; /* as in qmp_set_stop; borrowed */
	int vmm_pidfd; /* ends the waiting when QEMU exits, or -1; borrowed */
	bool resume; /* let it run; else it stays paused */

	/* The next bytes of the state: *len of them into buf of size; 0 is the end. */
	int (*read)(void *arg, void *buf, size_t size, size_t *len, struct err *e);
	/* Called when QEMU waits for the state; NULL: nothing to be done. */
	int (*before_incoming)(void *arg, struct err *e);
	void *arg; /* for both */
};

/* When each step was done; CLOCK_MONOTONIC, ns. */
struct qemu_load_times {
	uint64_t connected; /* QEMU has greeted */
	uint64_t ready; /* before_incoming returned */
	uint64_t loaded; /* the state is in */
	uint64_t running; /* 0 unless resumed */
};

/* After a failure QEMU is useless, or gone: end it. */
int qemu_load(const struct qemu_load *how, struct qemu_load_times *times, struct err *e);

#endif
