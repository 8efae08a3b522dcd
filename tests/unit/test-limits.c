/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/limits.h"
#include "tap.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* ---- what is said of them ---- */

static struct limits limits;
static struct limits_need need;
static char warnings[4096];
static unsigned nwarnings;

static void
warned(void *arg, const char *text)
{
	ok(arg == &need, "a warning: %s", text);
	snprintf(warnings, sizeof(warnings), "%s", text);
	nwarnings++;
}

/* A machine that limits nothing, and a guest of 1 GiB, half of it stored. */
static void
reset(void)
{
	limits = (struct limits){
		.descriptors = LIMITS_NONE,
		.file_size = LIMITS_NONE,
		.address_space = LIMITS_NONE,
		.hard_address_space = LIMITS_NONE,
		.locked = LIMITS_NONE,
		.mappings = 65530,
		.ram = 4 * GIB,
		.ram_free = 2 * GIB,
		.commit = LIMITS_NONE,
		.npools = 1,
		.cgroup = { .memory = LIMITS_NONE, .swap = LIMITS_NONE },
	};
	limits.pools[0].page_size = 2 * MIB;
	for (size_t i = 0; i < HUGEPAGE_POOLS; i++)
		limits.cgroup.hugetlb[i] = LIMITS_NONE;
	strcpy(limits.cgroup.memory_of, "/cg/vm");
	need = (struct limits_need){
		.descriptors = 170,
		.file = GIB,
		.memory = GIB,
		.locked = MIB,
		.mappings = 1025,
		.charged = GIB,
		.given = GIB / 2,
	};
	need.huge[0].page_size = 2 * MIB;
	need.huge[0].bytes = 64 * MIB;
	nwarnings = 0;
	*warnings = '\0';
}

/* error, warning: what is said, or NULL. */
static void
says(const char *name, const char *error, const char *warning)
{
	struct err e = ERR_INIT;
	int rc = limits_check(&limits, &need, warned, &need, &e);

	if (error != NULL)
		ok(rc == -1 && e.kind == ERR_FAILED && strstr(e.msg, error) != NULL,
		    "%s is an error: %s", name, e.msg);
	else
		ok(rc == 0, "%s is no error%s", name, e.msg);
	if (warning != NULL)
		ok(nwarnings == 1 && strstr(warnings, warning) != NULL, "%s is warned of",
		    name);
	else
		ok(nwarnings == 0, "%s is not warned of", name);
	reset();
}

static void
test_process(void)
{
	says("no limit", NULL, NULL);
	limits.descriptors = 169;
	says("a descriptor too few", "allows 169 descriptors, 170 are needed", NULL);
	limits.descriptors = 170;
	says("as many descriptors", NULL, NULL);
	limits.file_size = GIB - 1;
	says(
	    "a file limit", "1073741823 bytes, and memory is a file, here of 1073741824", NULL);
	limits.locked = MIB - 1;
	says("a lock limit", "allows 1048575 bytes to be locked", NULL);
	limits.address_space = limits.hard_address_space = GIB - 1;
	says("few addresses", "allows the VMM 1073741823 bytes of addresses", NULL);
	limits.address_space = GIB - 1;
	says("few addresses that can be more", NULL, "unless it raises that itself");
	limits.mappings = 1024;
	says("few mappings", NULL, "vm.max_map_count is 1024");
}

static void
test_memory(void)
{
	limits.cgroup.memory = GIB / 4;
	limits.cgroup.swap = 0;
	says("a small cgroup", "/cg/vm/memory.max allows 268435456 bytes, and 536870912 of",
	    NULL);
	limits.cgroup.memory = GIB / 4;
	limits.cgroup.swap = GIB / 4;
	says("a small cgroup that swaps", NULL, "/cg/vm/memory.max allows 268435456 bytes");
	limits.cgroup.memory = GIB / 4;
	says("a small cgroup on a machine without swap", "/cg/vm/memory.max", NULL);
	limits.cgroup.memory = GIB / 4;
	limits.swap = GIB;
	says("a small cgroup on a machine with swap", NULL, "/cg/vm/memory.max");
	limits.cgroup.memory = GIB / 4;
	limits.cgroup.swap = 0;
	need.given = 0;
	says("a small cgroup, and nothing that is unasked for", NULL,
	    "and the guest has 1073741824");
	limits.cgroup.memory = GIB;
	says("a cgroup that is large enough", NULL, NULL);
	limits.ram = limits.ram_free = GIB / 4;
	limits.swap = limits.swap_free = GIB / 8;
	says("a small machine", "this machine has 402653184, with swap", NULL);
	limits.ram_free = GIB / 4;
	says("a busy machine", NULL, "268435456 bytes of memory are available");
	limits.ram_free = GIB / 4;
	limits.swap = limits.swap_free = GIB;
	says("a busy machine with swap", NULL, NULL);
	limits.ram = limits.ram_free = LIMITS_NONE;
	says("an unknown machine", NULL, NULL);
	limits.commit = GIB / 4;
	says("no overcommit", "268435456 bytes may still be committed", NULL);
	limits.cgroup.hugetlb[0] = 62 * MIB;
	says("a limit of huge pages",
	    "allows 65011712 bytes in huge pages of 2048 kB, the guest has 67108864", NULL);
	limits.cgroup.hugetlb[0] = 62 * MIB;
	need.huge[0].page_size = GIB;
	says("a limit of other huge pages", NULL, NULL);
}

/* ---- reading them ---- */

static void
put(const char *dir, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	if (f == NULL || fputs(text, f) == EOF || fclose(f) != 0)
		perror(path);
}

static void
test_cgroup(void)
{
	static const struct hugepage_pool pools[] = { { .page_size = 64 << 10 },
		{ .page_size = 2 * MIB }, { .page_size = GIB } };
	char top[] = "/tmp/gmem-test-limits.XXXXXX", a[64], b[80], command[128];
	struct limits_cgroup c;

	if (mkdtemp(top) == NULL) {
		skip(9, "no folder in /tmp");
		return;
	}
	snprintf(a, sizeof(a), "%s/a", top);
	snprintf(b, sizeof(b), "%s/b", a);
	mkdir(a, 0700);
	mkdir(b, 0700);
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.memory == LIMITS_NONE && c.swap == LIMITS_NONE, "a folder is no cgroup");
	put(a, "cgroup.procs", "");
	put(b, "cgroup.procs", "");
	put(b, "memory.max", "max\n");
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.memory == LIMITS_NONE && c.hugetlb[1] == LIMITS_NONE, "a cgroup without limits");
	put(top, "memory.max", "1\n");
	put(a, "memory.max", "1000\n");
	put(a, "memory.swap.max", "30\n");
	put(b, "memory.swap.max", "20\n");
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.memory == 1000 && c.swap == 30 && strcmp(c.memory_of, a) == 0,
	    "the limit of the one above, and its swap");
	put(b, "memory.max", "999\n");
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.memory == 999 && c.swap == 20 && strcmp(c.memory_of, b) == 0, "the smaller one");
	put(b, "memory.max", "1001\n");
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.memory == 1000 && c.swap == 30, "which may be above");
	put(b, "memory.max", "-7\n");
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.memory == 1000, "what is no number is no limit");
	put(b, "hugetlb.64KB.max", "65536\n");
	put(a, "hugetlb.2MB.max", "2097152\n");
	put(b, "hugetlb.2MB.max", "4194304\n");
	put(b, "hugetlb.1GB.max", "max\n");
	limits_read_cgroup(&c, b, pools, 3);
	ok(c.hugetlb[0] == 65536 && c.hugetlb[1] == 2 * MIB && c.hugetlb[2] == LIMITS_NONE,
	    "huge pages");
	ok(c.hugetlb[3] == LIMITS_NONE, "of sizes that there are");
	limits_read_cgroup(&c, "/", pools, 3);
	ok(c.memory == LIMITS_NONE, "the root of everything");
	snprintf(command, sizeof(command), "rm -r %s", top);
	if (system(command) != 0)
		printf("# %s is left\n", top);
}

static void
test_own(void)
{
	struct rlimit r = { GIB * GIB / 4, GIB * GIB / 2 };
	int fd = memfd_create("gmem-test", MFD_CLOEXEC);
	struct limits *l = malloc(sizeof(*l));

	limits_read(l);
	ok(l->ram != LIMITS_NONE && l->ram_free <= l->ram && l->mappings != LIMITS_NONE,
	    "what this machine has");
	ok(l->descriptors != LIMITS_NONE, "descriptors are limited everywhere");
	setrlimit(RLIMIT_FSIZE, &r);
	setrlimit(RLIMIT_AS, &r);
	limits_read(l);
	ok(l->file_size == GIB * GIB / 4, "a file limit is read");
	ok(l->address_space == GIB * GIB / 4 && l->hard_address_space == GIB * GIB / 2,
	    "and one of addresses, hard and soft");
	ok(limits_of_file(fd) == LIMITS_NONE, "a memfd may be of any size");
	ok(limits_of_file(-1) == LIMITS_NONE, "nobody knows of what is no file");
	close(fd);
	free(l);
}

int
main(void)
{
	reset();
	test_process();
	test_memory();
	test_cgroup();
	test_own();
	return done();
}
