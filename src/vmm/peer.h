/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_PEER_H
#define GMEM_VMM_PEER_H

#include <sys/types.h>

#include "base/err.h"

/* Who has connected to a UNIX socket, as the kernel noted it then. */
struct peer {
	pid_t pid; /* 0: in a PID namespace that we can't see into */
	uid_t uid;
	int pidfd; /* -1: nobody's any more, or not to be had; owned */
};

/* Of the very process, even if its number is another's by now, where the kernel tells (6.5). */
int peer_of(int sock, struct peer *peer, struct err *e);

#endif
