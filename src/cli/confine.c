/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cli/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "cli/filter.h"

/* The reports of sanitizers need /proc, descriptors and ptrace. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                     \
    __has_feature(memory_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* ---- Landlock: by number, the headers may be older than the kernel ---- */

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

#define RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1

#define FS_REMOVE_FILE (UINT64_C(1) << 5)
#define FS_MAKE_REG (UINT64_C(1) << 8)

struct ruleset {
	uint64_t fs, net, scoped;
};

struct path_rule {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

/* Everything that a kernel of this Landlock version can forbid. */
static struct ruleset
everything(long abi)
{
	struct ruleset r = { .fs = (UINT64_C(1) << 13) - 1 };

	if (abi >= 2)
		r.fs |= UINT64_C(1) << 13; /* REFER */
	if (abi >= 3)
		r.fs |= UINT64_C(1) << 14; /* TRUNCATE */
	if (abi >= 5)
		r.fs |= UINT64_C(1) << 15; /* IOCTL_DEV */
	if (abi >= 4)
		r.net = 3; /* BIND_TCP, CONNECT_TCP */
	if (abi >= 6)
		r.scoped = 3; /* ABSTRACT_UNIX_SOCKET, SIGNAL */
	return r;
}

static int
allow_publishing(int ruleset, const char *folder)
{
	struct path_rule rule = { .allowed = FS_MAKE_REG | FS_REMOVE_FILE };
	int rc;

	rule.parent = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (rule.parent == -1)
		return -1;
	rc = (int)syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0);
	close(rule.parent);
	return rc;
}

static void
forbid_names(const char *folder)
{
	struct ruleset attr;
	long abi;
	int fd;

	abi = syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);
	if (abi < 1) {
		log_info("not confined by Landlock: %s", strerror(errno));
		return;
	}
	attr = everything(abi);
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fd == -1 || (folder != NULL && allow_publishing(fd, folder) == -1) ||
	    syscall(SYS_landlock_restrict_self, fd, 0) == -1)
		log_info("not confined by Landlock: %s", strerror(errno));
	else
		log_debug("confined by Landlock, version %ld", abi);
	if (fd != -1)
		close(fd);
}

/* ---- the rest ---- */

#define BIT(cap) (UINT64_C(1) << (cap))

/*
 * In a folder that is somebody else's, root could not even give its file a name without it.
 * Landlock keeps that power inside the folder.
 */
#define TO_PUBLISH BIT(CAP_DAC_OVERRIDE)

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

/*
 * To look into another user's process and to stop it, to reach its sockets and to make files
 * that are its own; CAP_CHECKPOINT_RESTORE is for /proc/PID/map_files.
 */
#define TO_ATTACH                                                                              \
	(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) | \
	    BIT(CAP_KILL) | BIT(CAP_IPC_LOCK) | BIT(CAP_SYS_PTRACE) |                          \
	    BIT(CAP_CHECKPOINT_RESTORE))

static bool
has_capability(const struct __user_cap_data_struct data[2], unsigned cap)
{
	return (data[cap / 32].permitted >> (cap % 32) & 1) != 0;
}

/* All but those in `keep`, a bit for each. */
static void
drop_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	bool bounds;

	if (syscall(SYS_capget, &head, data) == -1) {
		log_info("capabilities are kept: %s", strerror(errno));
		return;
	}
	bounds = has_capability(data, CAP_SETPCAP);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned cap = 0; bounds && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap >= 64 || (keep >> cap & 1) == 0)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		data[i].permitted &= (uint32_t)(keep >> (32 * i));
		data[i].effective &= data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, data) == -1)
		log_info("capabilities are kept: %s", strerror(errno));
}

static void
limit(int resource, rlim_t max, const char *what)
{
	struct rlimit r;

	if (getrlimit((__rlimit_resource_t)resource, &r) == 0) {
		r.rlim_cur = r.rlim_max = MIN(r.rlim_max, max);
		if (setrlimit((__rlimit_resource_t)resource, &r) == 0)
			return;
	}
	log_info("%s are not limited: %s", what, strerror(errno));
}

/*
 * glibc opens /proc/sys/vm/overcommit_memory the first time that it makes the heap of a
 * thread smaller, which a filter takes for an attack: so it never does.  What is large is not
 * in a heap, and is given back as ever.
 */
static void
keep_heaps(void)
{
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

static void
forbid_calls(enum filter which)
{
	struct err e = ERR_INIT;

	keep_heaps();
	if (filter_install(which, &e) == -1)
		log_info("no filter of system calls: %s", e.msg);
	else
		log_debug("confined by a filter of system calls");
}

/* For ever, and for whatever is started. */
static void
forbid_privileges(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		log_info("new privileges are not forbidden: %s", strerror(errno));
	/* A core that goes to a pipe ignores the limit. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	limit(RLIMIT_CORE, 0, "core files");
}

void
confine(const char *folder)
{
	if (SANITIZED) {
		log_info("not confined: built with a sanitizer");
		return;
	}
	forbid_privileges();
	forbid_names(folder);
	drop_capabilities(folder != NULL ? TO_PUBLISH : 0);
	limit(RLIMIT_NOFILE, 0, "descriptors");
	forbid_calls(folder != NULL ? FILTER_PUBLISH : FILTER_INSPECT);
}

void
confine_page_server(uint64_t keep, unsigned descriptors)
{
	if (SANITIZED) {
		log_info("not confined: built with a sanitizer");
		return;
	}
	forbid_privileges();
	forbid_names(NULL);
	drop_capabilities(keep | BIT(CAP_IPC_LOCK));
	limit(RLIMIT_NOFILE, descriptors, "descriptors");
	forbid_calls(FILTER_PAGE_SERVER);
}

void
confine_attaching(void)
{
	if (SANITIZED)
		return;
	forbid_privileges();
	drop_capabilities(TO_ATTACH);
}
