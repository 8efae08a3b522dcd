/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_UFFD_TAKE_H
#define GMEM_SERVE_UFFD_TAKE_H

#include <sys/types.h>

#include "base/err.h"

/*
 * A userfaultfd of another process, which knows nothing of it: the process is made to
 * create one (memory/inject.h), it is taken, and closed there.  No handshake was made.
 *
 * A child does it, so that our death by a signal does no harm to the process: call it while
 * this process has one thread.  ERR_UNSUPPORTED if the process may not make that call
 * (seccomp), or has no right to a userfaultfd.
 */
int uffd_take(pid_t pid, int *fd, struct err *e);

#endif
