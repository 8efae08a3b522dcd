/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_PLACE_H
#define GMEM_VMM_CLOUD_HYPERVISOR_PLACE_H

#include <sys/types.h>

#include "base/err.h"
#include "vmm/cloud-hypervisor/wire.h"

/*
 * A folder for one socket, which nobody else can enter: of ours until it is given to the VMM's
 * user id, if that is another one and we may.  All zero: there is none.
 */
struct ch_place {
	char dir[64];
	char path[96]; /* of the socket */
};

int ch_place_make(struct ch_place *p, struct err *e);

/* The VMM of that user id may make its socket there. */
int ch_place_give(const struct ch_place *p, uid_t uid, struct err *e);

/* Removes socket and folder; what is missing is fine. */
void ch_place_remove(struct ch_place *p);

/* Listens there, and gives it: the VMM of that user id may connect.  Once. */
int ch_place_listen(const struct ch_place *p, uid_t uid, int *fd, struct err *e);

/*
 * Connects as soon as the VMM listens there.  failed_fd (or -1): readable when it won't any
 * more.  1, or 0 when that one became readable.
 */
int ch_place_connect(
    const struct ch_place *p, struct ch_link *link, int failed_fd, struct err *e);

#endif
