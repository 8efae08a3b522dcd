/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_LOADER_H
#define GMEM_RESTORE_LOADER_H

#include "base/err.h"
#include "vmm/driver.h"

/* Loads the VMM state of an image into a VMM, in a thread of its own. */
struct loader;

/* What it does: until the VM runs or, with stop_fd readable, at once. */
struct loader_work {
	int (*load)(void *arg, struct vmm_load_times *times, struct err *e);
	void *arg;
};

int loader_new(struct loader **out, struct err *e);

/* Becomes readable when the work is to be given up (borrowed). */
int loader_stop_fd(const struct loader *l);

int loader_start(struct loader *l, const struct loader_work *work, struct err *e);

/* Becomes readable when the loader is done (borrowed; do not read it). */
int loader_event_fd(const struct loader *l);

/* Waits until it is done: 0 or -1. */
int loader_result(struct loader *l, struct err *e);

/* The steps, once it is done. */
void loader_times(struct loader *l, struct vmm_load_times *times);

/* Interrupts it if it runs, and waits for it. */
void loader_stop(struct loader *l);

/* Stops it.  NULL is fine. */
void loader_free(struct loader *l);

#endif
