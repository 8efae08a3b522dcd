/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_SELF_H
#define GMEM_RESTORE_SELF_H

#include <stdint.h>

#include "serve/pager.h"

/*
 * What this process and its page server take, together.  Memory in bytes, 0 where /proc does
 * not tell; of page servers that are no more only the CPU counts.
 */
struct self {
	uint64_t user_us, system_us; /* CPU */
	uint64_t rss_max; /* resident at most, guest memory that it has mapped included */
	uint64_t rss_anon; /* its own memory, now */
	uint64_t rss_shmem; /* claims, and guest memory that it has mapped, now */
};

void self_look(struct self *self, const struct pager_self *pager);

#endif
