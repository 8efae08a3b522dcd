/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pass-fd.h"

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

union control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr head;
};

int
pass_fd(int sock, const void *buf, size_t len, int fd)
{
	union control control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf) };

	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == (ssize_t)len ? 0 : -1;
}

int
take_fd(int sock, void *buf, size_t len, int *fd)
{
	union control control = { 0 };
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf) };

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)len ||
	    CMSG_FIRSTHDR(&msg) == NULL)
		return -1;
	memcpy(fd, CMSG_DATA(&control.head), sizeof(*fd));
	return 0;
}
