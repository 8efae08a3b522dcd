/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_LIVE_H
#define GMEM_SNAP_LIVE_H

#include "base/err.h"
#include "gmem-snap/snapshot.h"
#include "vmm/control.h"

/*
 * Saving the memory of a VM that runs (--pause-less): it is write-protected while the VM
 * stands still, and read later.
 */
struct live;

/*
 * Before the pause: everything that can be refused is refused here.  The regions of the
 * snapshot are those of the VMM, in its order; their memory is read through us from now on.
 */
int live_prepare(struct live **out, struct snapshot *s, struct control *vm, struct err *e);

/* The moment: the VM stands still, and nothing writes to its memory. */
int live_arm(struct live *l, struct err *e);

/* After the memory was read: that it is of the moment. */
int live_check(struct live *l, struct err *e);

/* Removes what is left of the protection.  NULL is fine. */
void live_free(struct live *l);

#endif
