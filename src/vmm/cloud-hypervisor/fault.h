/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_FAULT_H
#define GMEM_VMM_CLOUD_HYPERVISOR_FAULT_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/image.h"
#include "serve/pager.h"
#include "vmm/cloud-hypervisor/memory.h"

/*
 * The fault connection: the VMM asks for one page after the other, also for those that
 * nobody has touched yet, and hangs up when it has asked for all of them.  A thread answers.
 * What goes wrong there fails the server.
 */
struct ch_fault;

/* Where pages come from.  All borrowed, until ch_fault_stop. */
struct ch_pages {
	const struct image *img;
	struct pager *server;
	const struct ch_memory *memory;
	const size_t *regions; /* which of the image each mapping is */
	const int *fds; /* what is behind each; NULL: it is the VMM's own, pages are sent */
	pid_t vmm; /* 0: not known */
};

/* Takes the connection, also on failure. */
int ch_fault_start(struct ch_fault **out, const struct ch_pages *p, int fd, struct err *e);

/* An error if the VMM has hung up before it had asked for everything. */
int ch_fault_check(struct ch_fault *f, struct err *e);

/* Ends the thread.  NULL is fine. */
void ch_fault_stop(struct ch_fault *f);

#endif
