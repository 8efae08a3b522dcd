/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_FIRECRACKER_HANDOFF_H
#define GMEM_VMM_FIRECRACKER_HANDOFF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/image.h"
#include "serve/pager.h"
#include "vmm/firecracker/message.h"

/*
 * The page server's side of Firecracker's userfaultfd backend: Firecracker connects, sends one
 * message with its userfaultfd, and waits for its pages.  It is never answered.
 */

/* Whoever has connected. */
struct fc_peer {
	int sock; /* owned, like pidfd */
	int pidfd;
	pid_t pid; /* as we see it; 0: we don't */
	uid_t uid;
	bool gave; /* a descriptor, or it may have: its memory may wait for us from then on */
};

#define FC_PEER_INIT                                                                           \
	{                                                                                      \
		.sock = -1, .pidfd = -1                                                        \
	}

/* How long to wait for it, and what ends that. */
struct fc_wait {
	int timeout_ms; /* -1: for ever */
	int stop_fd; /* readable: somebody wants out; or -1 */
	int over_fd; /* readable: it won't come any more; or -1 */
};

/* Takes a connection: 1, 0 when over_fd is readable, or -1.  The listener does not block. */
int fc_accept(int listener, const struct fc_wait *w, struct fc_peer *peer, struct err *e);

void fc_peer_fini(struct fc_peer *peer);

/* Receives the message and the userfaultfd, which is the caller's.  As fc_accept. */
int fc_receive(struct fc_peer *peer, const struct fc_wait *w, struct fc_regions *regions,
    int *uffd, struct err *e);

/*
 * Serves that memory of the peer from now on; takes the userfaultfd, also on failure.  The
 * regions of the image are the memory file, one after the other.
 */
int fc_serve(struct pager *s, const struct image *img, const struct fc_peer *peer,
    const struct fc_regions *regions, int uffd, struct err *e);

#endif
