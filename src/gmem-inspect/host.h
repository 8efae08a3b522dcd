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
	struct serve_modes gmem; /* of a throw-away guest_memfd */
	enum serve_engine memfd, hugetlb;
	/* Of a guest_memfd if it registers; eager: there is no lazy way in any case. */
	enum serve_engine if_registered;
	enum serve_engine guest_memfd;
	/* The same if vCPUs reach it past the mapping: its slot has KVM_MEM_GUEST_MEMFD. */
	enum serve_engine slots;
};

/* Why the engine of a guest_memfd is what it is; a whole sentence without its full stop. */
const char *host_why(const struct host *host);

void host_text(const struct host *host);
int host_json(const struct host *host, struct err *e);

#endif
