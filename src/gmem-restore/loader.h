/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_LOADER_H
#define GMEM_RESTORE_LOADER_H

#include <stdbool.h>

#include "base/err.h"
#include "image/image.h"
#include "vmm/handoff.h"
#include "vmm/qemu-load.h"

/* Loads the VMM state of an image into a QEMU, in a thread of its own. */
struct loader;

struct loader_options {
	const char *socket;
	const struct object *state;
	bool resume;
	struct handoff *handoff; /* every mapping must be handed over first; NULL: eager */
	struct server *server;
	int vmm_pidfd; /* borrowed */
};

int loader_start(struct loader **out, const struct image *img, const struct loader_options *o,
    struct err *e);

/* Becomes readable when the loader is done (borrowed; do not read it). */
int loader_event_fd(const struct loader *l);

/* When it is done: 0 or -1. */
int loader_result(struct loader *l, struct err *e);

/* The steps so far. */
void loader_times(struct loader *l, struct qemu_load_times *times);

/* Interrupts it if need be, and waits for it.  NULL is fine. */
void loader_free(struct loader *l);

#endif
