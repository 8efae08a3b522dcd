/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cli/filter.h"

#ifdef HAVE_SECCOMP

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/*
 * A call that is allowed, or allowed if of its argument number `arg` those bits that are in
 * `mask` are `value`, or that fails with `error`.
 */
struct rule {
	const char *name;
	int number; /* of calls that libseccomp may not know yet; else 0 */
	int error;
	bool self; /* the process that is meant is this one */
	bool some;
	unsigned arg;
	uint64_t mask, value;
	unsigned zeros; /* so many arguments, the first ones, are 0 */
};

/* The headers may be older than the kernel. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFDIO_POISON
#define UFFDIO_POISON _IOWR(0xAA, 0x08, uint64_t[4])
#endif

/* The argument of clone(2) that holds the flags. */
#ifdef __s390__
#define CLONE_FLAGS_AT 1
#else
#define CLONE_FLAGS_AT 0
#endif

/* The words of filter-*.def. */
#define CALL(call) { .name = #call },
#define WHEN(call, at, bits, are)                                                              \
	{ .name = #call, .some = true, .arg = (at), .mask = (bits), .value = (are) },
#define IOCTL(request) WHEN(ioctl, 1, UINT32_MAX, (uint32_t)(request))
#define FCNTL(command) WHEN(fcntl, 1, UINT32_MAX, (uint32_t)(command))
#define NEW(call, number_of_it) { .name = #call, .number = (number_of_it) },
#define RARELY(call, why) CALL(call)
#define RARELY_WHEN(call, at, bits, are, why) WHEN(call, at, bits, are)
#define RARELY_SELF(call, why)                                                                 \
	{ .name = #call, .some = true, .self = true, .mask = UINT32_MAX },
#define RARELY_IOCTL(request, why) IOCTL(request)
#define OWN(call, n) { .name = #call, .zeros = (n) },
#define REFUSE(call, with, why) { .name = #call, .error = (with) },

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const struct rule inspect[] = {
#include "cli/filter-inspect.def"
};

static const struct rule publish[] = {
#include "cli/filter-publish.def"
};

static const struct rule page_server[] = {
#include "cli/filter-page-server.def"
};

struct list {
	const struct rule *rules;
	size_t n;
};

static int
add(scmp_filter_ctx ctx, const struct rule *r)
{
	uint64_t value = r->self ? (uint64_t)getpid() : r->value;
	const struct scmp_arg_cmp some[] = { SCMP_CMP64(
	    r->arg, SCMP_CMP_MASKED_EQ, r->mask, value) };
	const struct scmp_arg_cmp zeros[] = { SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, UINT32_MAX, 0),
		SCMP_CMP64(1, SCMP_CMP_MASKED_EQ, UINT32_MAX, 0) };
	uint32_t action = r->error != 0 ? SCMP_ACT_ERRNO((uint32_t)r->error) : SCMP_ACT_ALLOW;
	int number = seccomp_syscall_resolve_name(r->name);

	/* What libseccomp knows and this architecture does not have, it passes over. */
	if (number == __NR_SCMP_ERROR && r->number == 0)
		return 0;
	if (number == __NR_SCMP_ERROR)
		number = r->number;
	if (r->zeros != 0)
		return seccomp_rule_add_array(ctx, action, number, r->zeros, zeros);
	return seccomp_rule_add_array(ctx, action, number, r->some ? 1 : 0, some);
}

static int
add_all(scmp_filter_ctx ctx, const struct list *list, struct err *e)
{
	for (size_t i = 0; i < list->n; i++) {
		int rc = add(ctx, &list->rules[i]);

		if (rc < 0) {
			errno = -rc;
			return err_sys(e, "system call %s", list->rules[i].name);
		}
	}
	return 0;
}

/*
 * Number -1 is no call; a tracer that makes a call fail (strace -e inject) puts it in its
 * place, and tests want to know what happens then.
 */
static int
allow_none(scmp_filter_ctx ctx)
{
	int rc = seccomp_attr_set(ctx, SCMP_FLTATR_API_TSKIP, 1);

	return rc == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ALLOW, -1, 0) : rc;
}

static int
load(scmp_filter_ctx ctx, struct err *e)
{
	int rc;

	/* All threads, and whatever comes by the numbers of another architecture. */
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (rc == 0)
		rc = allow_none(ctx);
	if (rc == 0)
		rc = seccomp_load(ctx);
	if (rc == 0)
		return 0;
	errno = -rc;
	return err_sys(e, "load it");
}

int
filter_install(enum filter which, struct err *e)
{
	static const struct list lists[][2] = {
		[FILTER_INSPECT] = { { inspect, LENGTH(inspect) } },
		[FILTER_PUBLISH] = { { inspect, LENGTH(inspect) },
		    { publish, LENGTH(publish) } },
		[FILTER_PAGE_SERVER] = { { page_server, LENGTH(page_server) } },
	};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc = 0;

	if (ctx == NULL)
		return err_set(e, ERR_UNSUPPORTED, "libseccomp has no filter for this machine");
	for (size_t i = 0; i < 2 && rc == 0; i++)
		rc = add_all(ctx, &lists[which][i], e);
	if (rc == 0)
		rc = load(ctx, e);
	seccomp_release(ctx);
	return rc;
}

#else

int
filter_install(enum filter which, struct err *e)
{
	(void)which;
	return err_set(e, ERR_UNSUPPORTED, "built without libseccomp");
}

#endif
