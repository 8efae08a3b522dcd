/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_RESTORE_H
#define GMEM_RESTORE_RESTORE_H

#include "gmem-restore/options.h"

/*
 * Restores and waits for the VMM.  The value is the exit status: the VMM's
 * own (if it died by a signal this process dies by it too), or ours when
 * something failed, after a message.
 */
int restore_run(const struct options *o);

/* The same for a VM that runs, and whose supervisor was killed (keeper.h). */
struct ledger;
int restore_adopt(const struct options *o, struct ledger *l);

/* Ends this process as another one has ended, which wait(2) tells; or the exit status. */
int restore_same_status(int status);

#endif
