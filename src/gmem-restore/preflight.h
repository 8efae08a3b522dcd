/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_PREFLIGHT_H
#define GMEM_RESTORE_PREFLIGHT_H

#include "base/err.h"
#include "gmem-restore/guest.h"
#include "gmem-restore/options.h"

/*
 * Whether the limits of this process, its cgroup and the machine let a guest be restored:
 * asked before anything is made of it, for later it would be a VM that is killed in its
 * work.  What cannot work is an error, what may go wrong is warned of.
 */

/* The descriptors; before the arguments are looked at, which reserve some. */
int preflight_descriptors(const struct image *img, struct err *e);

/* The memory.  Of regions that no argument names the VMM brings its own. */
int preflight_memory(const struct options *o, const struct guest *g, struct err *e);

#endif
