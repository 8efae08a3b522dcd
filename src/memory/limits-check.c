/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>

#include "base/ckd.h"
#include "memory/limits.h"

/* What cannot work is an error; what may go wrong later is told. */

typedef unsigned long long ull;

struct check {
	const struct limits *l;
	const struct limits_need *need;
	limits_warn *warn;
	void *arg;
};

static void __attribute__((format(printf, 2, 3)))
warn(const struct check *c, const char *fmt, ...)
{
	char text[PATH_MAX + 512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->warn(c->arg, text);
}

/* Both together; no limit if either is none. */
static uint64_t
plus(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return ckd_add(&sum, a, b) ? LIMITS_NONE : sum;
}

static int
check_process(const struct check *c, struct err *e)
{
	const struct limits *l = c->l;
	const struct limits_need *need = c->need;

	if (need->descriptors > l->descriptors)
		return err_set(e, ERR_FAILED,
		    "RLIMIT_NOFILE allows %llu descriptors, %llu are needed: raise it "
		    "(ulimit -n)",
		    (ull)l->descriptors, (ull)need->descriptors);
	if (need->file > l->file_size)
		return err_set(e, ERR_FAILED,
		    "RLIMIT_FSIZE allows files of %llu bytes, and memory is a file, here of "
		    "%llu: raise it (ulimit -f)",
		    (ull)l->file_size, (ull)need->file);
	if (need->locked > l->locked)
		return err_set(e, ERR_FAILED,
		    "RLIMIT_MEMLOCK allows %llu bytes to be locked, the page server locks at "
		    "least %llu: raise it (ulimit -l), or have fewer threads",
		    (ull)l->locked, (ull)need->locked);
	return 0;
}

static int
check_addresses(const struct check *c, struct err *e)
{
	const struct limits *l = c->l;
	const struct limits_need *need = c->need;

	if (need->memory > l->hard_address_space)
		return err_set(e, ERR_FAILED,
		    "RLIMIT_AS allows the VMM %llu bytes of addresses, its guest has %llu of "
		    "memory: raise it (ulimit -v)",
		    (ull)l->hard_address_space, (ull)need->memory);
	if (need->memory > l->address_space)
		warn(c,
		    "RLIMIT_AS allows the VMM %llu bytes of addresses unless it raises that "
		    "itself, its guest has %llu of memory",
		    (ull)l->address_space, (ull)need->memory);
	if (need->mappings > l->mappings)
		warn(c,
		    "vm.max_map_count is %llu, and the guest's memory may be split into %llu "
		    "mappings: it is served in larger pieces if there is no room, but the VMM "
		    "may lack mappings of its own; 65530 is usual",
		    (ull)l->mappings, (ull)need->mappings);
	return 0;
}

/* Memory is charged to who touches it first, and that is us. */
static int
check_cgroup(const struct check *c, struct err *e)
{
	const struct limits_cgroup *cg = &c->l->cgroup;
	const struct limits_need *need = c->need;

	if (need->given > plus(cg->memory, cg->swap != LIMITS_NONE ? cg->swap : c->l->swap))
		return err_set(e, ERR_FAILED,
		    "%.200s/memory.max allows %llu bytes, and %llu of the guest's memory are "
		    "stored, are all given to it, and are charged there: raise it, or do not "
		    "fill in the background",
		    cg->memory_of, (ull)cg->memory, (ull)need->given);
	if (need->charged > cg->memory)
		warn(c,
		    "%s/memory.max allows %llu bytes, and the guest has %llu of memory, which "
		    "is charged there as it is given or touched: once that is full it swaps, "
		    "or processes are killed",
		    cg->memory_of, (ull)cg->memory, (ull)need->charged);
	return 0;
}

static int
check_machine(const struct check *c, struct err *e)
{
	const struct limits *l = c->l;
	const struct limits_need *need = c->need;

	if (need->given > plus(l->ram, l->swap))
		return err_set(e, ERR_FAILED,
		    "%llu bytes of the guest's memory are stored and are all given to it, this "
		    "machine has %llu, with swap: do not fill in the background",
		    (ull)need->given, (ull)plus(l->ram, l->swap));
	if (need->given > l->commit)
		return err_set(e, ERR_FAILED,
		    "vm.overcommit_memory is 2, and %llu bytes may still be committed, but "
		    "%llu of the guest's memory are stored and are all given to it: raise "
		    "vm.overcommit_ratio",
		    (ull)l->commit, (ull)need->given);
	if (need->given > plus(l->ram_free, l->swap_free))
		warn(c,
		    "%llu bytes of memory are available, with swap, and the guest gets at "
		    "least %llu: processes may be killed",
		    (ull)plus(l->ram_free, l->swap_free), (ull)need->given);
	return 0;
}

/* How many there are is found when they are reserved, which this limit does not count. */
static int
check_huge(const struct check *c, struct err *e)
{
	for (size_t i = 0; i < HUGEPAGE_POOLS && c->need->huge[i].page_size != 0; i++)
		for (size_t k = 0; k < c->l->npools; k++) {
			ull kib = c->need->huge[i].page_size >> 10;

			if (c->l->pools[k].page_size != c->need->huge[i].page_size ||
			    c->need->huge[i].bytes <= c->l->cgroup.hugetlb[k])
				continue;
			return err_set(e, ERR_FAILED,
			    "the cgroup allows %llu bytes in huge pages of %llu kB, the guest "
			    "has %llu: raise hugetlb.*.max",
			    (ull)c->l->cgroup.hugetlb[k], kib, (ull)c->need->huge[i].bytes);
		}
	return 0;
}

int
limits_check(const struct limits *l, const struct limits_need *need, limits_warn *warn_with,
    void *arg, struct err *e)
{
	const struct check c = { l, need, warn_with, arg };

	if (check_process(&c, e) == -1 || check_addresses(&c, e) == -1 ||
	    check_cgroup(&c, e) == -1 || check_machine(&c, e) == -1)
		return -1;
	return check_huge(&c, e);
}
