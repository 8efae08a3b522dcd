/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "gmem-handoff.h"
#include "serve/pager.h"
#include "vmm/handoff.h"

/*
 * A VMM that hands over its memory, and what gmem-restore makes of its packets.  The server is
 * played here: the first byte chooses what it says.  Every request is answered, once; who got
 * an error is not listened to any more.
 */
static unsigned how;
static unsigned processes, removed;

int
pager_add_memory(
    struct pager *p, size_t index, const struct served_memory *memory, struct err *e)
{
	(void)p;
	must(index < 3 && memory->fd != -1 && memory->page_size >= 4096);
	return (how & 1) != 0 ? err_set(e, ERR_UNSUPPORTED, "memory") : 0;
}

struct ledger *
pager_ledger(const struct pager *p)
{
	(void)p;
	return NULL;
}

bool
pager_has_memory(const struct pager *p)
{
	(void)p;
	return (how & 2) == 0;
}

bool
pager_is_complete(const struct pager *p, size_t index)
{
	(void)p;
	must(index < 3);
	return (how & 4) != 0;
}

int
pager_add_process(struct pager *p, int fd, unsigned *id, struct err *e)
{
	(void)p;
	must(fd != -1);
	close(fd);
	if ((how & 8) != 0)
		return err_set(e, ERR_CORRUPT, "no userfaultfd");
	*id = processes++;
	return 0;
}

int
pager_add_mapping(struct pager *p, unsigned process, uint64_t hva, uint64_t len, size_t object,
    uint64_t offset, struct err *e)
{
	(void)p, (void)hva, (void)len, (void)offset;
	must(process < processes);
	return object >= 3 ? err_set(e, ERR_CORRUPT, "mapping") : 0;
}

void
pager_remove_mapping(struct pager *p, unsigned process, uint64_t hva, uint64_t len)
{
	(void)p, (void)hva, (void)len;
	must(process < processes);
}

void
pager_remove_process(struct pager *p, unsigned process)
{
	(void)p;
	must(process < processes);
	removed++;
}

int
pager_discard(struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	(void)p, (void)offset, (void)len;
	return object >= 3 ? err_set(e, ERR_CORRUPT, "discard") : 0;
}

int
pager_fault(struct pager *p, size_t object, uint64_t offset, struct err *e)
{
	(void)p, (void)offset;
	return object >= 3 ? err_set(e, ERR_CORRUPT, "fault") : 0;
}

int
pager_fault_rest(struct pager *p, struct err *e)
{
	(void)p;
	return (how & 16) != 0 ? err_set(e, ERR_CORRUPT, "rest") : 0;
}

enum server_state
pager_state(struct pager *p, struct err *e)
{
	(void)p, (void)e;
	return SERVER_FILLING;
}

void
pager_fail(struct pager *p, const struct err *e)
{
	(void)p;
	must(e->msg[0] != '\0');
}

bool
pager_covers(struct pager *p, unsigned process, uint64_t hva, uint64_t len)
{
	(void)p, (void)process, (void)hva, (void)len;
	return true;
}

bool
pager_is_process(struct pager *p, pid_t pid)
{
	(void)p, (void)pid;
	return false;
}

/* ---- the VMM ---- */

static void
close_fds(struct msghdr *msg)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm != NULL; cm = CMSG_NXTHDR(msg, cm)) {
		size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fd;

		must(cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS);
		for (size_t i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(fd), sizeof(fd));
			close(fd);
		}
	}
}

/* One answer: false when there will be none any more. */
static bool
answered(int sock)
{
	union {
		char buf[CMSG_SPACE((GMEM_REGIONS_MAX + 1) * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct gmem_region regions[GMEM_REGIONS_MAX];
	struct gmem_message m;
	struct iovec iov[] = { { &m, sizeof(m) }, { regions, sizeof(regions) } };
	struct msghdr msg = { .msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf) };
	ssize_t n;

	/* libFuzzer has an alarm clock. */
	while ((n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) == -1 && errno == EINTR)
		;
	must(n >= 0 || errno == ECONNRESET);
	if (n <= 0)
		return false;
	close_fds(&msg);
	must(n >= (ssize_t)sizeof(m) && m.version == GMEM_HANDOFF_VERSION);
	must(memchr(m.text, '\0', sizeof(m.text)) != NULL);
	if (m.type == GMEM_WELCOME)
		must((size_t)n == sizeof(m) + m.count * sizeof(regions[0]) && m.count == 3);
	else
		must((size_t)n == sizeof(m) && (m.type == GMEM_OK || m.type == GMEM_ERROR));
	return m.type != GMEM_ERROR;
}

static void
converse(int sock, struct fuzz_in in)
{
	const int *fds = fuzz_fds();
	bool more = true;

	/* An empty packet is an end too, and not answered. */
	while (more && fuzz_send_packet(sock, &in, fds, sizeof(struct gmem_message)))
		more = answered(sock);
	shutdown(sock, SHUT_WR);
	while (more)
		more = answered(sock);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	const int *fds = fuzz_fds();
	const struct handoff_region regions[] = {
		{ .name = "low",
		    .fd = fds[0],
		    .number = 100,
		    .size = 1 << 20,
		    .page_size = 4096 },
		{ .name = "own", .fd = -1, .size = 1 << 20, .page_size = 4096 },
		{ .name = "high",
		    .fd = -1,
		    .size = 1 << 20,
		    .page_size = 4096,
		    .guest_address = HANDOFF_NO_ADDRESS },
	};
	unsigned before = fuzz_count_fds();
	struct err e = ERR_INIT;
	struct handoff *h;
	int end;

	how = fuzz_byte(&in);
	processes = removed = 0;
	must(handoff_new(&h, NULL, regions, 3, &end, &e) == 0);
	converse(end, in);
	close(end);
	must(handoff_hellos(h) <= 1);
	handoff_free(h);
	must(removed <= processes && fuzz_count_fds() == before);
	return 0;
}
