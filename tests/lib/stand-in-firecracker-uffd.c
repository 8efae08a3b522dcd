/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* The userfaultfd, and how it is handed over. */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "stand-in-firecracker.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

int
uffd_open(bool event_remove)
{
	struct uffdio_api api = { .api = UFFD_API };
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev != -1) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
	} else {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	}
	if (fd == -1)
		quit(EXIT_LOAD, "userfaultfd: %s", strerror(errno));
	if (event_remove)
		api.features = UFFD_FEATURE_EVENT_REMOVE;
	if (ioctl(fd, UFFDIO_API, &api) == -1)
		quit(EXIT_LOAD, "UFFDIO_API: %s", strerror(errno));
	return fd;
}

void
uffd_register(int fd, const void *at, uint64_t len)
{
	struct uffdio_register reg = { .range = { (uintptr_t)at, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING };

	if (len > 0 && ioctl(fd, UFFDIO_REGISTER, &reg) == -1)
		quit(EXIT_LOAD, "UFFDIO_REGISTER: %s", strerror(errno));
}

static int
connect_to(const char *path, char *why)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock == -1 || strlen(path) >= sizeof(sa.sun_path)) {
		fail(why,
		    "Failed to connect to UDS Unix stream: path must be shorter than SUN_LEN");
		return -1;
	}
	memcpy(sa.sun_path, path, strlen(path));
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return sock;
	fail_sys(why, "Failed to connect to UDS Unix stream");
	close(sock);
	return -1;
}

bool
send_message(int sock, const void *buf, size_t len, const int *fds, size_t nfds)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds > 0) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * nfds);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)len;
}

/* ---- the message ---- */

static void __attribute__((format(printf, 2, 3))) put(struct handover *h, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	h->len += (size_t)vsnprintf(h->text + h->len, 4096, fmt, ap);
	va_end(ap);
}

void
handover_text(struct handover *h)
{
	const char *before = h->before != NULL ? h->before : "";
	const char *after = h->after != NULL ? h->after : "";

	h->text = malloc(1024 + h->nwires * 1024);
	if (h->text == NULL)
		quit(EXIT_CALL, "no memory");
	h->len = 0;
	put(h, "[");
	for (size_t i = 0; i < h->nwires; i++) {
		const struct wire *w = &h->wires[i];

		put(h, "%s{%s\"base_host_virt_addr\":%s,\"size\":%s,\"offset\":%s",
		    i > 0 ? "," : "", before, w->base, w->size, w->offset);
		if ((h->fields & FIELD_PAGE_SIZE) != 0)
			put(h, ",\"page_size\":%s", w->page);
		if ((h->fields & FIELD_PAGE_SIZE_KIB) != 0)
			put(h, ",\"page_size_kib\":%s", w->page);
		put(h, "%s}", after);
	}
	put(h, "]");
}

static unsigned
fields_of_version(void)
{
	if (opt.version < 107)
		return 0;
	return opt.version < 112 ? FIELD_PAGE_SIZE_KIB : FIELD_PAGE_SIZE | FIELD_PAGE_SIZE_KIB;
}

static void
fill_wires(struct handover *h)
{
	h->fields = fields_of_version();
	for (h->nwires = 0; h->nwires < vm.m.nregions; h->nwires++) {
		const struct region *r = &vm.regions[h->nwires];
		struct wire *w = &h->wires[h->nwires];

		snprintf(w->base, sizeof(w->base), "%lu", (unsigned long)(uintptr_t)r->at);
		snprintf(w->size, sizeof(w->size), "%lu", (unsigned long)r->size);
		snprintf(w->offset, sizeof(w->offset), "%lu", (unsigned long)r->offset);
		snprintf(w->page, sizeof(w->page), "%u", vm.m.page_size);
	}
}

bool
handover_to(const char *path, struct handover *h, char *why)
{
	int sock;

	die_at("before-connect");
	sock = connect_to(path, why);
	if (sock == -1)
		return false;
	die_at("connected");
	if (opt.die != NULL && strcmp(opt.die, "half") == 0) {
		send_message(sock, h->text, h->len / 2, h->fds, h->nfds);
		die_at("half");
	}
	if (!lie_sends(h, sock) && !send_message(sock, h->text, h->len, h->fds, h->nfds)) {
		fail_sys(why, "Failed to sends file descriptor");
		close(sock);
		return false;
	}
	die_at("sent");
	lie_afterwards(h, sock);
	/* From 1.12 on it is never closed. */
	if (opt.version < 112)
		close(sock);
	return true;
}

bool
hand_over(const char *path, char *why)
{
	static struct handover h;
	bool good;

	vm.uffd = uffd_open(opt.version >= 112 || vm.m.balloon != 0);
	for (uint32_t i = 0; i < vm.m.nregions; i++)
		uffd_register(vm.uffd, vm.regions[i].at, lie_register(vm.regions[i].size));
	h.fds[h.nfds++] = vm.uffd;
	fill_wires(&h);
	lie_wires(&h);
	handover_text(&h);
	lie_text(&h);
	good = handover_to(path, &h, why);
	free(h.text);
	h.text = NULL;
	return good;
}
