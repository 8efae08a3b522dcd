/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_KEEPER_H
#define GMEM_RESTORE_KEEPER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "gmem-restore/options.h"
#include "serve/ledger.h"
#include "vmm/launch.h"

/*
 * The keeper of --orphan wait: a small process that is the parent of the VMM, has duplicates
 * of every descriptor that its supervisor (gmem-restore) needs, and knows from its ledger what
 * the supervisor knew.  If that is killed the keeper waits until somebody adopts the VM
 * (adopt.h), and starts another supervisor then, as its own child.  It ends with the VMM, and
 * the VMM with it.
 */

/* Another supervisor: serves what the ledger tells, to the end; its exit status. */
typedef int keeper_supervisor(const struct options *o, struct ledger *l);

/*
 * Starts it; before there is any other thread.  It is a fork without exec, and so are the
 * supervisors that it starts: they call next, and options are as they are now.
 */
int keeper_start(
    struct ledger **out, const struct options *o, keeper_supervisor *next, struct err *e);

/* launch_start by the keeper; *pidfd is the caller's. */
int keeper_launch(struct ledger *ledger, const struct launch *l, pid_t *pid, int *pidfd,
    int *status, struct err *e);

/* The VMM as the keeper sees it. */
struct keeper_vmm {
	pid_t pid; /* 0: it has ended … */
	int status; /* … so, as wait(2) tells */
	bool children; /* it has left processes behind, which may have its memory */
};

/* Readable when that has changed, or there is no keeper any more. */
int keeper_event_fd(const struct ledger *l);
int keeper_look(struct ledger *l, struct keeper_vmm *vmm, struct err *e);

/* Kills (SIGKILL) all of it. */
void keeper_kill(struct ledger *l);

/* The VMM is over: the keeper ends, and the ledger is freed.  NULL is fine. */
void keeper_end(struct ledger *l);

#endif
