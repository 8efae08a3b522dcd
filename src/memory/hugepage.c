/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/hugepage.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fdio.h"

#define HUGEPAGE_DIR "/sys/kernel/mm/hugepages"

static uint64_t
number(const char *dir, const char *file)
{
	struct err ignored = ERR_INIT;
	char path[512], *text;
	uint64_t value;

	snprintf(path, sizeof(path), HUGEPAGE_DIR "/%s/%s", dir, file);
	if (fd_slurp(path, 4096, &text, NULL, &ignored) == -1)
		return 0;
	value = strtoull(text, NULL, 10);
	free(text);
	return value;
}

static int
by_size(const void *a, const void *b)
{
	const struct hugepage_pool *x = a, *y = b;

	return x->page_size < y->page_size ? -1 : x->page_size > y->page_size;
}

size_t
hugepage_pools(struct hugepage_pool pools[HUGEPAGE_POOLS])
{
	unsigned long long kib;
	struct dirent *d;
	size_t n = 0;
	DIR *dir;

	dir = opendir(HUGEPAGE_DIR);
	if (dir == NULL)
		return 0;
	while (n < HUGEPAGE_POOLS && (d = readdir(dir)) != NULL) {
		if (sscanf(d->d_name, "hugepages-%llukB", &kib) != 1)
			continue;
		pools[n++] = (struct hugepage_pool){
			.page_size = kib * 1024,
			.total = number(d->d_name, "nr_hugepages"),
			.free = number(d->d_name, "free_hugepages"),
			.reserved = number(d->d_name, "resv_hugepages"),
			.overcommit = number(d->d_name, "nr_overcommit_hugepages"),
			.surplus = number(d->d_name, "surplus_hugepages"),
		};
	}
	closedir(dir);
	qsort(pools, n, sizeof(*pools), by_size);
	return n;
}

uint64_t
hugepage_available(const struct hugepage_pool *pool)
{
	return pool->free > pool->reserved ? pool->free - pool->reserved : 0;
}
