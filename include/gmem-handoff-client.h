/* SPDX-License-Identifier: 0BSD */
#ifndef GMEM_HANDOFF_CLIENT_H
#define GMEM_HANDOFF_CLIENT_H

/*
 * How a VMM asks gmem-restore to serve its guest memory: a client of the gmem
 * hand-off.  This file and gmem-handoff.h are all that it takes; copy them.
 *
 *	struct gmem_handoff h;
 *
 *	if (gmem_handoff_open(&h) == 0)
 *		nobody restores us: start afresh
 *	for each region i of h.nregions, with memory of our own that nobody has touched:
 *		gmem_handoff_memory(&h, i, memfd, 0, -1, 0);
 *	gmem_handoff_userfaultfd(&h);
 *	for each mapping of it, before anything looks at it:
 *		gmem_handoff_map(&h, i, address, length, offset, guest_address);
 *
 * Functions that return -1 say why in h.error; guest memory is not to be
 * trusted then, and the VMM has to end.  One thread at a time: a thread that
 * wants to talk by itself opens a conversation of its own.
 */

/* With _GNU_SOURCE, for F_SETSIG. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "gmem-handoff.h"

struct gmem_handoff {
	int sock;
	int lifeline; /* when gmem-restore dies, the kernel kills this process by it */
	int userfaultfd; /* stays open: who waits for a page must not get zeros */
	uint32_t nregions;
	struct gmem_region regions[GMEM_REGIONS_MAX];
	int fds[GMEM_REGIONS_MAX]; /* received; -1: none */
	char error[256];
};

static inline int
gmem_failed(struct gmem_handoff *h, const char *what)
{
	snprintf(h->error, sizeof(h->error), "%s: %s", what, strerror(errno));
	return -1;
}

/* Sends one packet: a message, `more` bytes behind it, and nfds descriptors. */
static inline int
gmem_send(int sock, const struct gmem_message *m, const void *rest, size_t more, const int *fds,
    size_t nfds)
{
	union {
		char buf[CMSG_SPACE(GMEM_REGIONS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov[] = { { (void *)(uintptr_t)m, sizeof(*m) },
		{ (void *)(uintptr_t)rest, more } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	if (nfds != 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, nfds * sizeof(int));
	}
	while ((n = sendmsg(sock, &msg, MSG_NOSIGNAL)) == -1 && errno == EINTR)
		;
	return n == (ssize_t)(sizeof(*m) + more) ? 0 : -1;
}

/*
 * Receives one packet: a message, `more` bytes at most behind it, and descriptors,
 * *nfds at most.  The bytes in all; or -1, and no descriptors: EMSGSIZE if there was no
 * room for all of it, EPROTO if it is no message, ECONNRESET at the end.
 */
static inline ssize_t
gmem_receive(int sock, struct gmem_message *m, void *rest, size_t more, int *fds, size_t *nfds)
{
	union {
		char buf[CMSG_SPACE((GMEM_REGIONS_MAX + 1) * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov[] = { { m, sizeof(*m) }, { rest, more } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct cmsghdr *c;
	int truncated;
	size_t got = 0;
	ssize_t n;

	msg.msg_control = control.buf;
	msg.msg_controllen = CMSG_LEN(*nfds * sizeof(int)); /* not one more by alignment */
	while ((n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) == -1 && errno == EINTR)
		;
	if (n == -1)
		return -1;
	c = CMSG_FIRSTHDR(&msg);
	if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		got = got < *nfds ? got : *nfds;
		memcpy(fds, CMSG_DATA(c), got * sizeof(int));
	}
	*nfds = got;
	truncated = (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
	if ((size_t)n >= sizeof(*m) && !truncated && m->version == GMEM_HANDOFF_VERSION &&
	    memchr(m->text, '\0', sizeof(m->text)) != NULL)
		return n;
	while (got > 0)
		close(fds[--got]);
	*nfds = 0;
	errno = truncated ? EMSGSIZE : n == 0 ? ECONNRESET : EPROTO;
	return -1;
}

/* A request and its reply, which is *m then. */
static inline int
gmem_request(struct gmem_handoff *h, struct gmem_message *m, const int *fds, size_t nfds)
{
	size_t none = 0;

	m->version = GMEM_HANDOFF_VERSION;
	if (gmem_send(h->sock, m, NULL, 0, fds, nfds) == -1)
		return gmem_failed(h, "gmem-restore does not listen any more");
	if (gmem_receive(h->sock, m, NULL, 0, NULL, &none) <= 0)
		return gmem_failed(h, "gmem-restore is gone");
	if (m->type == GMEM_OK)
		return 0;
	snprintf(h->error, sizeof(h->error), "%s",
	    m->type == GMEM_ERROR ? m->text : "gmem-restore speaks another version");
	return -1;
}

static inline int
gmem_connect(struct gmem_handoff *h, const char *where)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strncmp(where, "fd:", 3) == 0) {
		h->sock = atoi(where + 3);
		return fcntl(h->sock, F_SETFD, FD_CLOEXEC) == -1 ? gmem_failed(h, where) : 0;
	}
	errno = ENAMETOOLONG;
	if (strlen(where) >= sizeof(addr.sun_path))
		return gmem_failed(h, where);
	memcpy(addr.sun_path, where, strlen(where));
	h->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (h->sock == -1 || connect(h->sock, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		return gmem_failed(h, where);
	return 0;
}

/* HELLO, and what is answered to it. */
static inline int
gmem_hello(struct gmem_handoff *h)
{
	struct gmem_message m = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_HELLO };
	int fds[GMEM_REGIONS_MAX + 1];
	size_t nfds = GMEM_REGIONS_MAX + 1, next = 0;
	ssize_t n;

	if (gmem_send(h->sock, &m, NULL, 0, NULL, 0) == -1)
		return gmem_failed(h, "gmem-restore does not listen");
	n = gmem_receive(h->sock, &m, h->regions, sizeof(h->regions), fds, &nfds);
	errno = n > 0 ? EPROTO : errno;
	if (n <= 0 || m.type != GMEM_WELCOME || m.count > GMEM_REGIONS_MAX ||
	    (size_t)n != sizeof(m) + m.count * sizeof(h->regions[0]))
		return gmem_failed(h, n > 0 && m.type == GMEM_ERROR ? m.text : "gmem-restore");
	h->nregions = m.count;
	for (uint32_t i = 0; i < m.count; i++) {
		h->regions[i].name[sizeof(h->regions[i].name) - 1] = '\0';
		h->fds[i] = -1;
		if (h->regions[i].fd != GMEM_NO_FD && next < nfds)
			h->fds[i] = fds[next++];
	}
	if (next + 1 != nfds)
		return gmem_failed(h, "gmem-restore: descriptors");
	h->lifeline = fds[next];
	if (fcntl(h->lifeline, F_SETOWN, getpid()) == -1 ||
	    fcntl(h->lifeline, F_SETSIG, 9 /* SIGKILL */) == -1 ||
	    fcntl(h->lifeline, F_SETFL, fcntl(h->lifeline, F_GETFL) | O_ASYNC) == -1)
		return gmem_failed(h, "lifeline");
	return 0;
}

/* 1: connected, and the regions of the image are in *h; 0: nobody restores us; -1. */
static inline int
gmem_handoff_open(struct gmem_handoff *h)
{
	const char *where = getenv(GMEM_HANDOFF_ENV);

	memset(h, 0, sizeof(*h));
	h->sock = h->lifeline = h->userfaultfd = -1;
	if (where == NULL)
		return 0;
	return gmem_connect(h, where) == -1 || gmem_hello(h) == -1 ? -1 : 1;
}

/*
 * Gives a region its memory: a file that holds nothing yet, from `offset` on.
 * bitmap: of KVM userfault, one bit for each 4 KiB, all set, or -1.  flags: GMEM_SLOTS.
 * 1: the region is complete already, and needs no userfaultfd.
 */
static inline int
gmem_handoff_memory(struct gmem_handoff *h, uint32_t region, int memory, uint64_t offset,
    int bitmap, uint32_t flags)
{
	struct gmem_message m = {
		.type = GMEM_MEMORY, .region = region, .offset = offset, .flags = flags
	};
	const int fds[] = { memory, bitmap };

	if (gmem_request(h, &m, fds, bitmap != -1 ? 2 : 1) == -1)
		return -1;
	return (m.flags & GMEM_COMPLETE) != 0;
}

/* A new userfaultfd of this process, or -1. */
static inline int
gmem_new_userfaultfd(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = ioctl(dev, _IO(0xAA, 0x00) /* USERFAULTFD_IOC_NEW */, O_CLOEXEC);

	if (dev != -1)
		close(dev);
	return fd != -1 ? fd : (int)syscall(SYS_userfaultfd, O_CLOEXEC);
}

/* Creates one and hands it over. */
static inline int
gmem_handoff_userfaultfd(struct gmem_handoff *h)
{
	struct gmem_message m = { .type = GMEM_USERFAULTFD };

	h->userfaultfd = gmem_new_userfaultfd();
	return h->userfaultfd == -1 ? gmem_failed(h, "userfaultfd")
				    : gmem_request(h, &m, &h->userfaultfd, 1);
}

/* A shared mapping of a region that nobody has touched.  Children do not inherit it. */
static inline int
gmem_handoff_map(struct gmem_handoff *h, uint32_t region, const void *address, uint64_t length,
    uint64_t offset, uint64_t guest_address)
{
	struct gmem_message m = { .type = GMEM_MAP,
		.region = region,
		.address = (uintptr_t)address,
		.length = length,
		.offset = offset,
		.guest_address = guest_address };

	if (syscall(SYS_madvise, address, length, MADV_DONTFORK) == -1)
		return gmem_failed(h, "MADV_DONTFORK");
	return gmem_request(h, &m, NULL, 0);
}

/* Before munmap(2). */
static inline int
gmem_handoff_unmap(struct gmem_handoff *h, const void *address, uint64_t len)
{
	struct gmem_message m = { .type = GMEM_UNMAP, .address = (uintptr_t)address };

	m.length = len;
	return gmem_request(h, &m, NULL, 0);
}

/* Before a hole is punched (fallocate, MADV_REMOVE): these pages are zeros from now on. */
static inline int
gmem_handoff_discard(struct gmem_handoff *h, uint32_t region, uint64_t offset, uint64_t len)
{
	struct gmem_message m = { .type = GMEM_DISCARD, .region = region, .offset = offset };

	m.length = len;
	return gmem_request(h, &m, NULL, 0);
}

/* A vCPU has exited for a page of KVM userfault; when this returns it is there. */
static inline int
gmem_handoff_fault(struct gmem_handoff *h, uint32_t region, uint64_t offset)
{
	struct gmem_message m = { .type = GMEM_FAULT, .region = region, .offset = offset };

	return gmem_request(h, &m, NULL, 0);
}

#endif
