/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_ADOPT_H
#define GMEM_RESTORE_ADOPT_H

/*
 * gmem-restore --adopt: asks the keeper that listens at path to go on with its VM, and waits
 * for the end of that.  The supervisor is the keeper's child; what it says and writes comes
 * out here, signals are passed to it, and it ends when this process does.
 *
 * The value is the exit status, as restore_run has it.
 */
int adopt_run(const char *path);

#endif
