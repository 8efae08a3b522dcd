/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/fdpass.h"

#include <string.h>
#include <unistd.h>

void
fd_attach(struct msghdr *m, struct fd_room *room, const int *fds, size_t nfds)
{
	struct cmsghdr *head = &room->align;

	if (nfds == 0)
		return;
	memset(room, 0, CMSG_SPACE(nfds * sizeof(int)));
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(head), fds, nfds * sizeof(int));
	m->msg_control = room->buf;
	m->msg_controllen = CMSG_SPACE(nfds * sizeof(int));
}

size_t
fd_detach(struct msghdr *m, int *fds, size_t max)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(fd) <= len; at += sizeof(fd), n++) {
			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			if (n < max)
				fds[n] = fd;
			else
				close(fd);
		}
	}
	return n;
}
