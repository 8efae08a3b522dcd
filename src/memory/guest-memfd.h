/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_GUEST_MEMFD_H
#define GMEM_MEMORY_GUEST_MEMFD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Reading a guest_memfd, for source.c.  It knows neither pread nor SEEK_DATA,
 * and touching a hole through a mapping allocates the hole: so mincore(2) is
 * asked before every touch.  Pages are copied by write(2) from a mapping into
 * a scratch memfd: a page that cannot be read gives EFAULT instead of SIGBUS,
 * and, unlike process_vm_readv, memory without a direct map can be read.
 *
 * A reader maps a window of 64 MiB at a time: no page tables pile up, and threads
 * seldom wait for each other in mmap(2).
 */

struct guest_memfd_reader;

/* Readers that no thread is using, or NULL: a thread takes one, and puts it back. */
struct guest_memfd_scratch {
	_Atomic(struct guest_memfd_reader *) idle[8];
};

void guest_memfd_scratch_init(struct guest_memfd_scratch *scratch);
void guest_memfd_scratch_fini(struct guest_memfd_scratch *scratch);

/*
 * Whether it can be mapped and mincore tells us the truth: the kernel answers
 * "all resident" to who could not write the file.
 */
int guest_memfd_check(int fd, struct err *e);

/*
 * The first run of resident pages at or after from (page-aligned), below
 * size: 1, 0 if there is none, -1.  A long run may come in pieces.
 */
int guest_memfd_next(
    int fd, uint64_t size, uint64_t from, uint64_t *start, uint64_t *end, struct err *e);

/* Reads [off, off + len), which is inside the file; holes are zeros and stay holes. */
int guest_memfd_read(int fd, struct guest_memfd_scratch *scratch, void *buf, size_t len,
    uint64_t off, struct err *e);

#endif
