/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/peer.h"

#include <errno.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

int
peer_of(int sock, struct peer *peer, struct err *e)
{
	struct ucred cred;
	socklen_t len = sizeof(cred), size = sizeof(peer->pidfd);

	*peer = (struct peer){ .pidfd = -1 };
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1)
		return err_sys(e, "who has connected");
	peer->pid = cred.pid;
	peer->uid = cred.uid;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &peer->pidfd, &size) == 0)
		return 0;
	/* An older kernel tells the number alone. */
	peer->pidfd = errno == ENOPROTOOPT && cred.pid > 0 ? pidfd_open(cred.pid, 0) : -1;
	return 0;
}
