/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_PEER_H
#define GMEM_SNAP_PEER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "gmem-snap/snapshot.h"

/* What can be learnt of a VMM from its process, whoever it is. */

/* A piece of its memory, and who may write to it while we read. */
struct peer_memory {
	pid_t pid; /* the VMM; 0: not known */
	const char *name;
	dev_t dev;
	ino_t ino;
	bool (*stands_still)(void *arg, pid_t pid); /* other processes; NULL: none does */
	void *arg;
	bool alone; /* nobody else may have it mapped */
	bool quiet; /* warn of nobody: it is looked at again */
};

/*
 * Looks at every process that maps the memory: that none waits for pages of it
 * (ERR_UNSUPPORTED), and warns of those that are not paused; of others than the VMM it is
 * ERR_UNSUPPORTED, too, if it has to be alone.
 */
int peer_check_users(const struct peer_memory *m, struct err *e);

/* That the VMM itself (pid is not 0) waits for no pages of it: ERR_UNSUPPORTED. */
int peer_check_self(const struct peer_memory *m, struct err *e);

/*
 * That no device writes to the memory of the process past its page tables: pages that VFIO,
 * vDPA or RDMA have pinned are written unseen by any write protection.  ERR_UNSUPPORTED.
 */
int peer_check_devices(pid_t pid, struct err *e);

/* Puts the command line of the process into the image; not to know it is no failure. */
int peer_command(struct snapshot *s, pid_t pid, struct err *e);

#endif
