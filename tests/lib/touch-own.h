/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_TOUCH_OWN_H
#define GMEM_TESTS_TOUCH_OWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The part of vmm-touch that plays a VMM with memory of its own: it speaks the
 * hand-off by gmem-handoff-client.h.  Failures end the process with status 65.
 */

/*
 * "KIND,MIB" and maybe ",slots" or ",FLAGS": memfd, hugetlb, guest_memfd, or file (whose path
 * is in OWN_FILE).  Makes
 * the memory and hands it over; the descriptor.
 */
int own_open(const char *arg);

/* In a child: a conversation of its own about the same memory. */
void own_join(void);

/* Whether own_open was called in this process. */
bool own_memory(void);

/* In bytes; what own_map is told nobody has touched, what own_unmap is told still exists. */
void own_map(const void *at, size_t len, uint64_t offset);
void own_unmap(const void *at, size_t len);
void own_discard(uint64_t offset, uint64_t len);

#endif
