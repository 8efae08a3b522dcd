/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_DRIVEN_H
#define GMEM_RESTORE_DRIVEN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "vmm/driver.h"

/* A VMM that is driven over its API (vmm/driver.h), while it is restored. */
struct driven {
	const struct vmm_driver *driver; /* NULL: it is not */
	struct vmm_load how;
	void *session;
	pid_t vmm; /* our child; 0: not started */
};

/* What can be done before the VMM runs.  how->server is told of failures later on. */
int driven_open(struct driven *d, struct err *e);

/* For a loader, with a struct driven. */
int driven_load(void *arg, struct vmm_load_times *times, struct err *e);

/* The processes that have the memory; none before driven_open. */
size_t driven_processes(const struct driven *d, pid_t *pids, size_t max);

/* They are dead, and the loader is stopped. */
void driven_close(struct driven *d);

#endif
