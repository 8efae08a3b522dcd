/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_FDPASS_H
#define GMEM_BASE_FDPASS_H

#include <stddef.h>
#include <sys/socket.h>

#define FD_PASS_MAX 253 /* descriptors in one message: unix(7) */

/* Room for all that can come along with a message: descriptors, and who sends it. */
struct fd_room {
	union {
		char buf[CMSG_SPACE(FD_PASS_MAX * sizeof(int)) +
			 CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	};
};

/* Has nfds descriptors go along with m, FD_PASS_MAX at most; none is 0.  All are borrowed. */
void fd_attach(struct msghdr *m, struct fd_room *room, const int *fds, size_t nfds);

/*
 * How many descriptors have come along with m: the first max of them are in fds, the caller's,
 * and the others are closed.
 */
size_t fd_detach(struct msghdr *m, int *fds, size_t max);

#endif
