/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_LIST_H
#define GMEM_SNAP_LIST_H

#include "base/err.h"
#include "gmem-snap/options.h"

/* --list: the memory objects of a process, as a table or JSON. */
int list_print(const struct options *o, struct err *e);

#endif
