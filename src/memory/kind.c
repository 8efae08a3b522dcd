/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/kind.h"

#include <string.h>

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

int
memory_kind_parse(const char *name, enum memory_kind *kind, struct err *e)
{
	for (size_t i = 0; i < NKINDS; i++) {
		if (strcmp(name, names[i]) == 0) {
			*kind = (enum memory_kind)i;
			return 0;
		}
	}
	return err_set(e, ERR_USAGE, "no kind of memory is called '%s'", name);
}
