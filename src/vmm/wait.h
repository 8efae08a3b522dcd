/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_WAIT_H
#define GMEM_VMM_WAIT_H

#include <stdint.h>

#include "base/err.h"

/* What those share who wait for a VMM with a limit, until somebody wants out. */

/* CLOCK_MONOTONIC, milliseconds. */
int64_t wait_now_ms(void);

/* Somebody wanted out while we waited for the reply to `what`: ERR_INTERRUPTED; -1. */
int wait_interrupted(const char *what, struct err *e);

#endif
