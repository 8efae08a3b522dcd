/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_LOAD_QEMU_H
#define GMEM_RESTORE_LOAD_QEMU_H

#include <stdbool.h>

#include "base/err.h"
#include "image/image.h"
#include "serve/pager.h"
#include "vmm/driver.h"
#include "vmm/handoff.h"

/* A QEMU that was started with -incoming defer gets the state of an image over QMP. */
struct load_qemu {
	const struct image *img;
	const char *socket;
	const struct object *state;
	bool resume;
	struct handoff *handoff; /* every mapping must be handed over first; NULL: eager */
	struct pager *server;
	int vmm_pidfd, stop_fd; /* borrowed */
};

/* For a loader, with a struct load_qemu. */
int load_qemu(void *arg, struct vmm_load_times *times, struct err *e);

#endif
