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

#endif
