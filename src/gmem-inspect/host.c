/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/host.h"

#include "base/fdio.h"
#include "gmem-inspect/inspect.h"

static enum serve_engine
if_registered(const struct host *host)
{
	if (!serve_host_usable(&host->serve) || !host->memory.guest_memfd_mmap)
		return SERVE_EAGER;
	return host->memory.guest_memfd_write ? SERVE_CONTINUE : SERVE_MAP_CONTINUE;
}

static void
try_guest_memfd(struct host *host)
{
	struct err why = ERR_INIT;
	int fd;

	host->gmem = (struct serve_modes){ .tried = false };
	if (!host->memory.guest_memfd_shared ||
	    (!serve_host_usable(&host->serve) && !host->serve.user_mode_only))
		return;
	if (memory_host_guest_memfd(&host->memory, &fd, &why) == -1) {
		host->gmem.sysno = why.sysno;
		return;
	}
	serve_modes_probe(&host->gmem, fd, (size_t)host->memory.page_size);
	fd_close(&fd);
}

const char *
host_why(const struct host *host)
{
	const struct memory_host *m = &host->memory;

	if (!m->kvm)
		return "KVM cannot be used here";
	if (!m->guest_memfd_made)
		return "this kernel has no guest_memfd for an ordinary VM";
	if (!m->guest_memfd_mmap)
		return "this kernel's guest_memfd cannot be mapped";
	if (!m->guest_memfd_shared)
		return "this kernel's guest_memfd is private to the guest";
	switch (host->guest_memfd) {
	case SERVE_CONTINUE:
		return "userfaultfd takes it, and write(2) puts pages into it";
	case SERVE_MAP_CONTINUE:
		return "userfaultfd takes it, and a mapping of the server's puts pages into it";
	case SERVE_USERFAULT:
	case SERVE_AUTO:
	case SERVE_EAGER:
	case SERVE_COPY:
	case SERVE_SOURCE:
		break;
	}
	if (!serve_host_usable(&host->serve))
		return "there is no userfaultfd, as above";
	if (!host->gmem.both)
		return "userfaultfd does not take it";
	return "userfaultfd takes it, but a page that was put into it cannot be mapped";
}

int
verb_host(struct inspect *in, struct err *e)
{
	struct host host;

	memory_host_probe(&host.memory);
	serve_host_probe(&host.serve);
	try_guest_memfd(&host);
	host.memfd = serve_engine_choose(&host.serve, &host.serve.memfd);
	host.hugetlb = serve_engine_choose(&host.serve, &host.serve.hugetlb);
	host.if_registered = if_registered(&host);
	host.guest_memfd = serve_engine_choose(&host.serve, &host.gmem);
	host.slots = serve_engine_slots(&host.serve, &host.gmem, host.memory.userfault);
	if (in->opt->json)
		return host_json(&host, e);
	host_text(&host);
	return 0;
}
