/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/kind.h"

#include <linux/magic.h>
#include <string.h>

/* Linux 6.19; before that, guest_memfds are anonymous inodes. */
#define GUEST_MEMFD_FS 0x474d454dUL
#define MEMFD_PREFIX "/memfd:"

static const char *const names[] = {
	[MEMORY_MEMFD] = "memfd",
	[MEMORY_HUGETLB] = "hugetlb",
	[MEMORY_FILE] = "file",
	[MEMORY_GUEST_MEMFD] = "guest_memfd",
};

#define NKINDS (sizeof(names) / sizeof(names[0]))

const char *
memory_kind_name(enum memory_kind kind)
{
	return (size_t)kind < NKINDS ? names[kind] : "unknown";
}

/* "anon_inode:[kvm-gmem]" from 6.8, "/[kvm-gmem] (deleted)" from 6.19 on. */
bool
memory_shows_guest_memfd(const char *shown)
{
	static const char old[] = "anon_inode:";

	if (strncmp(shown, old, strlen(old)) == 0)
		shown += strlen(old);
	else if (*shown == '/')
		shown++;
	return strcmp(shown, "[kvm-gmem]") == 0 || strcmp(shown, "[kvm-gmem] (deleted)") == 0;
}

enum memory_kind
memory_kind_of(const char *shown, unsigned long f_type)
{
	switch (f_type) {
	case GUEST_MEMFD_FS:
		return MEMORY_GUEST_MEMFD;
	case ANON_INODE_FS_MAGIC:
		return memory_shows_guest_memfd(shown) ? MEMORY_GUEST_MEMFD : MEMORY_FILE;
	case HUGETLBFS_MAGIC:
		return MEMORY_HUGETLB;
	case TMPFS_MAGIC:
		if (strncmp(shown, MEMFD_PREFIX, strlen(MEMFD_PREFIX)) == 0)
			return MEMORY_MEMFD;
		break;
	default:
		break;
	}
	return MEMORY_FILE;
}
