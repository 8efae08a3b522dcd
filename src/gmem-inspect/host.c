/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/host.h"

#include "gmem-inspect/inspect.h"

static enum serve_engine
for_guest_memfd(const struct host *host)
{
	if (!serve_host_usable(&host->serve) || !host->memory.guest_memfd_mmap)
		return SERVE_EAGER;
	return host->memory.guest_memfd_write ? SERVE_CONTINUE : SERVE_MAP_CONTINUE;
}

int
verb_host(struct inspect *in, struct err *e)
{
	struct host host;

	memory_host_probe(&host.memory);
	serve_host_probe(&host.serve);
	host.memfd = serve_engine_choose(&host.serve, &host.serve.memfd);
	host.hugetlb = serve_engine_choose(&host.serve, &host.serve.hugetlb);
	host.guest_memfd = for_guest_memfd(&host);
	if (in->opt->json)
		return host_json(&host, e);
	host_text(&host);
	return 0;
}
