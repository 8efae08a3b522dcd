/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_DESCENT_H
#define GMEM_VMM_DESCENT_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a process is `ancestor` or was started by it; true also if /proc does not tell. */
bool descends(pid_t pid, pid_t ancestor);

#endif
