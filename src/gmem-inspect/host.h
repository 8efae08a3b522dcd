/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_HOST_H
#define GMEM_INSPECT_HOST_H

#include "base/err.h"
#include "memory/host.h"
#include "serve/host.h"

/* What `host` prints. */
struct host {
	struct memory_host memory;
	struct serve_host serve;
	enum serve_engine memfd, hugetlb;
	/*
	 * Whether a guest_memfd registers is told by the VMM's own only: this is
	 * the engine if it does.  Eager: there is no lazy way in any case.
	 */
	enum serve_engine guest_memfd;
};

void host_text(const struct host *host);
int host_json(const struct host *host, struct err *e);

#endif
