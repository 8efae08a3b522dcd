/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_SUMMARY_H
#define GMEM_SNAP_SUMMARY_H

#include "base/err.h"
#include "gmem-snap/snapshot.h"

/* Tells what was saved, on standard output if that is not the image. */
int summary_print(struct snapshot *s, struct err *e);

#endif
