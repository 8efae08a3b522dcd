/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_SELF_H
#define GMEM_RESTORE_SELF_H

#include <stdint.h>

/* What this process takes.  Memory in bytes, 0 where /proc does not tell. */
struct self {
	uint64_t user_us, system_us; /* CPU */
	uint64_t rss_max; /* resident at most, guest memory that it has mapped included */
	uint64_t rss_anon; /* its own memory, now */
	uint64_t rss_shmem; /* claims, and guest memory that it has mapped, now */
};

void self_look(struct self *self);

#endif
