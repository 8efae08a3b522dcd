/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_HOST_H
#define GMEM_SERVE_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/engine.h"

/*
 * What userfaultfd can do here, for us, found by trying it out on throw-away
 * memory, not by version.  Every *_errno is 0 if the thing before it worked.
 */

/* What registers on a mapping of one kind of memory. */
struct serve_modes {
	bool tried;
	bool missing, minor, both;
	bool writes; /* write(2) puts a page into the file; else a mapping of ours has to */
	bool resolves; /* a page that was put there is given by UFFDIO_CONTINUE */
	bool no_memory; /* there was no page to try that with */
	int sysno; /* of the first thing that did not work */
};

struct serve_host {
	/* The ways to a descriptor that also sees the faults of the kernel (KVM's). */
	bool device; /* /dev/userfaultfd */
	int device_errno;
	bool syscall; /* userfaultfd(2) */
	int syscall_errno;
	int sysctl; /* vm.unprivileged_userfaultfd; -1: there is none */
	bool cap_sys_ptrace;
	/* One that sees user faults only; no use for a VM. */
	bool user_mode_only;

	uint64_t features; /* UFFD_FEATURE_* of the kernel; 0 if no descriptor could be had */
	struct serve_modes memfd;
	struct serve_modes hugetlb; /* pages of the default size */

	uint64_t memlock; /* bytes that may be locked, UINT64_MAX: any number */
};

void serve_host_probe(struct serve_host *host);

/* Whether guests can be served page by page: there is a way to a full descriptor. */
bool serve_host_usable(const struct serve_host *host);

/*
 * Tries the modes on a mapping of a file of len bytes, one page of that memory,
 * that nobody else uses; the page is written.
 */
void serve_modes_probe(struct serve_modes *modes, int fd, size_t len);

/* Names of feature bits, "MINOR_SHMEM"; NULL when `bit` has none that is known here. */
const char *serve_feature_name(unsigned bit);

/* The engine for memory of these modes. */
enum serve_engine serve_engine_choose(
    const struct serve_host *host, const struct serve_modes *modes);

/*
 * The same if vCPUs reach it past any mapping: KVM has to stop them, and userfaultfd
 * whoever uses the mapping, KVM itself too.
 */
enum serve_engine serve_engine_slots(
    const struct serve_host *host, const struct serve_modes *modes, bool kvm_userfault);

#endif
