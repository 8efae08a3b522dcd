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

/* Whose memory it is. */
struct live_vm {
	pid_t pid;
	int uffd; /* of that process, which had no handshake; live_prepare takes it */
	const struct live_memory *regions; /* those of the snapshot, in its order */
	struct protect_mapping *mappings; /* all of them; owned by the caller */
	size_t nmappings;
};

/* dev and ino as fstat tells. */
struct live_memory {
	dev_t dev;
	ino_t ino;
};

/*
 * Adds the shared mappings of [offset, offset + size) of an object, which is region number
 * `region`, to vm->mappings.
 */
int live_add_object(struct live_vm *vm, const struct memory_object *o, uint64_t offset,
    uint64_t size, size_t region, struct err *e);

/*
 * Before the pause: everything that can be refused is refused here.  What *vm leads to is
 * copied, but for the userfaultfd, which is taken: vm->uffd is -1 then.  The regions' memory
 * is read through us from now on.  Starts a thread.
 */
int live_prepare(struct live **out, struct snapshot *s, struct live_vm *vm, struct err *e);

/* The moment: the VM stands still, and nothing writes to its memory. */
int live_arm(struct live *l, struct err *e);

/* After the memory was read: that it is of the moment. */
int live_check(struct live *l, struct err *e);

/* Removes what is left of the protection.  NULL is fine. */
void live_free(struct live *l);

#endif
