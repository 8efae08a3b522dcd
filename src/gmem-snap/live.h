/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_LIVE_H
#define GMEM_SNAP_LIVE_H

#include "base/err.h"
#include "gmem-snap/snapshot.h"
#include "memory/process.h"
#include "serve/protect.h"

/*
 * Saving the memory of a VM that runs (--pause-less): it is write-protected while the VM
 * stands still, and read later.
 */
struct live;

/* Whose memory it is; what it points to is its own. */
struct live_vm {
	pid_t pid;
	int uffd; /* of that process, which had no handshake; live_save takes it */
	struct live_memory *regions; /* those of the snapshot, in its order */
	size_t nregions;
	struct protect_mapping *mappings; /* all of them */
	size_t nmappings;
};

#define LIVE_VM(whose) ((struct live_vm){ .pid = (whose), .uffd = -1 })

/* dev and ino as fstat tells. */
struct live_memory {
	dev_t dev;
	ino_t ino;
};

/* Adds the next region, without its mappings. */
int live_add_region(struct live_vm *vm, dev_t dev, ino_t ino, struct err *e);

/* Adds the next region: [offset, offset + size) of an object, and all its shared mappings. */
int live_add_object(struct live_vm *vm, const struct memory_object *o, uint64_t offset,
    uint64_t size, struct err *e);

void live_vm_fini(struct live_vm *vm);

/* Pauses the VM, calls live_arm, and lets the VM run: whatever else has to be of that moment.
 */
typedef int live_pause(void *arg, struct live *l, struct err *e);

/*
 * All of it.  Before the pause everything that can be refused is refused.  The userfaultfd is
 * taken: vm->uffd is -1 then.  Starts threads, which have ended when it returns, as has the
 * protection.
 */
int live_save(
    struct snapshot *s, struct live_vm *vm, live_pause *pause, void *arg, struct err *e);

/* The moment: the VM stands still, and nothing writes to its memory. */
int live_arm(struct live *l, struct err *e);

#endif
