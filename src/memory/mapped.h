/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_MAPPED_H
#define GMEM_MEMORY_MAPPED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "memory/process.h"

/* A part of an object: dev and ino as fstat tells, bytes. */
struct memory_part {
	dev_t dev;
	ino_t ino;
	uint64_t offset, size;
};

/*
 * That the list has all the mappings through which the process can write to the part, and that
 * each of them is there: shared, of this object, at this offset of it.  Only hva, len and
 * offset are looked at.  ERR_FAILED if not; needs what memory_list needs.
 */
int memory_check_mappings(pid_t pid, const struct memory_part *part,
    const struct memory_mapping *list, size_t n, struct err *e);

#endif
