/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/limits.h"

#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "memory/cgroup.h"

/* The number that a small file holds; "max", and no file, is LIMITS_NONE. */
static uint64_t
number_in(const char *path)
{
	struct err ignored = ERR_INIT;
	uint64_t value = LIMITS_NONE;
	char *text;

	if (fd_slurp(path, 4096, &text, NULL, &ignored) == -1)
		return LIMITS_NONE;
	if (text[0] >= '0' && text[0] <= '9')
		value = strtoull(text, NULL, 10);
	free(text);
	return value;
}

static uint64_t
rlimit_of(int resource, uint64_t *hard)
{
	struct rlimit r;

	if (getrlimit((__rlimit_resource_t)resource, &r) == -1)
		return LIMITS_NONE;
	if (hard != NULL)
		*hard = r.rlim_max == RLIM_INFINITY ? LIMITS_NONE : r.rlim_max;
	return r.rlim_cur == RLIM_INFINITY ? LIMITS_NONE : r.rlim_cur;
}

static bool
may_lock_all(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &head, data) == 0 &&
	       (data[CAP_IPC_LOCK / 32].effective >> (CAP_IPC_LOCK % 32) & 1) != 0;
}

/* A line "Name:   123 kB" of /proc/meminfo, in bytes. */
static uint64_t
meminfo(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line == NULL ? LIMITS_NONE : strtoull(line + strlen(name), NULL, 10) * 1024;
}

static void
read_memory(struct limits *l)
{
	struct err ignored = ERR_INIT;
	uint64_t limit, used;
	char *text;

	l->ram = l->ram_free = l->commit = LIMITS_NONE;
	l->swap = l->swap_free = 0;
	if (fd_slurp("/proc/meminfo", 65536, &text, NULL, &ignored) == -1)
		return;
	l->ram = meminfo(text, "MemTotal:");
	l->ram_free = meminfo(text, "MemAvailable:");
	if (strstr(text, "SwapTotal:") != NULL) {
		l->swap = meminfo(text, "SwapTotal:");
		l->swap_free = meminfo(text, "SwapFree:");
	}
	limit = meminfo(text, "CommitLimit:");
	used = meminfo(text, "Committed_AS:");
	if (number_in("/proc/sys/vm/overcommit_memory") == 2 && limit != LIMITS_NONE)
		l->commit = limit - MIN(limit, used);
	free(text);
}

/* "hugetlb.2MB.max", as the kernel calls it. */
static void
hugetlb_file(char *file, size_t room, const char *dir, uint64_t page_size)
{
	static const struct {
		unsigned shift;
		const char *unit;
	} units[] = { { 30, "GB" }, { 20, "MB" }, { 10, "KB" } };
	size_t i = 0;

	while (i < 2 && page_size >> units[i].shift == 0)
		i++;
	snprintf(file, room, "%s/hugetlb.%llu%s.max", dir,
	    (unsigned long long)(page_size >> units[i].shift), units[i].unit);
}

void
limits_read_cgroup(
    struct limits_cgroup *c, const char *dir, const struct hugepage_pool *pools, size_t npools)
{
	char path[PATH_MAX], file[PATH_MAX + 64];

	*c = (struct limits_cgroup){ .memory = LIMITS_NONE, .swap = LIMITS_NONE };
	for (size_t i = 0; i < HUGEPAGE_POOLS; i++)
		c->hugetlb[i] = LIMITS_NONE;
	snprintf(path, sizeof(path), "%s", dir);
	for (;;) {
		uint64_t memory;
		char *slash;

		snprintf(file, sizeof(file), "%s/cgroup.procs", path);
		if (access(file, F_OK) == -1)
			return;
		snprintf(file, sizeof(file), "%s/memory.max", path);
		memory = number_in(file);
		if (memory < c->memory) {
			c->memory = memory;
			snprintf(c->memory_of, sizeof(c->memory_of), "%s", path);
			snprintf(file, sizeof(file), "%s/memory.swap.max", path);
			c->swap = number_in(file);
		}
		for (size_t i = 0; i < npools; i++) {
			hugetlb_file(file, sizeof(file), path, pools[i].page_size);
			c->hugetlb[i] = MIN(c->hugetlb[i], number_in(file));
		}
		slash = strrchr(path, '/');
		if (slash == NULL || slash == path)
			return;
		*slash = '\0';
	}
}

void
limits_read(struct limits *l)
{
	struct err ignored = ERR_INIT;
	struct cgroup *cg = calloc(1, sizeof(*cg));

	*l = (struct limits){ .npools = hugepage_pools(l->pools) };
	l->descriptors = rlimit_of(RLIMIT_NOFILE, NULL);
	l->file_size = rlimit_of(RLIMIT_FSIZE, NULL);
	l->address_space = rlimit_of(RLIMIT_AS, &l->hard_address_space);
	l->locked = may_lock_all() ? LIMITS_NONE : rlimit_of(RLIMIT_MEMLOCK, NULL);
	l->mappings = number_in("/proc/sys/vm/max_map_count");
	read_memory(l);
	limits_read_cgroup(&l->cgroup,
	    cg != NULL && cgroup_find(getpid(), cg, &ignored) == 0 ? cg->dir : "/nowhere",
	    l->pools, l->npools);
	free(cg);
}

uint64_t
limits_of_file(int fd)
{
	struct statvfs fs;
	uint64_t left;

	/* The kernel's own tmpfs, of memfds, has no size. */
	if (fstatvfs(fd, &fs) == -1 || fs.f_blocks == 0 ||
	    ckd_mul(&left, (uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize))
		return LIMITS_NONE;
	return left;
}
