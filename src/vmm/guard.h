/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_GUARD_H
#define GMEM_VMM_GUARD_H

#include <stddef.h>

#include "base/err.h"

/*
 * A guardian for as long as we keep a VM stopped: a small process that waits,
 * and makes the VM run again if this process dies before it could, even by
 * SIGKILL.  It has a session of its own and ignores every signal that a
 * terminal, a shell or a service manager's polite attempt could send; only a
 * SIGKILL to it as well (a whole cgroup, say) defeats it.
 */
struct guard;

/*
 * Starts the guardian.  When this process dies it calls resume(arg) and exits.
 *
 * It is a fork without exec: call it while this process has one thread, for
 * resume may allocate and lock.  arg is what it is at this moment; later
 * changes are not seen.  The guardian keeps the descriptors in keep[] and 2
 * (for the log), and no others: pipes and files of ours are not held open by it.
 */
int guard_start(struct guard **out, int (*resume)(void *arg), void *arg, const int *keep,
    size_t nkeep, struct err *e);

/* Ends the guardian; resume is not called.  NULL is fine. */
void guard_stop(struct guard *g);

#endif
