/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-page-server/confine.h"

#include <linux/capability.h>
#include <stdint.h>

#include "base/log.h"
#include "cli/confine.h"
#include "image/cold.h"
#include "serve/uffd.h"

/*
 * Memory objects, each with claims, a bitmap and userfaultfds of our own; processes, with
 * their events; channels, and what we open ourselves.
 */
#define DESCRIPTORS 4096u

int
page_server_confine(const struct pager_open *o, int image)
{
	uint64_t keep = 0;
	int direct = o->prefetch_io != COLD_CACHED ? cold_reopen(image) : -1;

	/* userfaultfd(2), for which root needs it, is all that is left to make one by. */
	if (!uffd_keep_device())
		keep |= UINT64_C(1) << CAP_SYS_PTRACE;
	if (o->place_urgency != URGENT_NOT)
		keep |= UINT64_C(1) << CAP_SYS_NICE;
	confine_page_server(keep, DESCRIPTORS);
	return direct;
}
