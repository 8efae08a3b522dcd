/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/handoff.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/fdpass.h"
#include "memory/served.h"
#include "vmm/peer.h"
#include "vmm/wait.h"

#define FDS_MAX 64 /* that we take; the kernel passes 253 */
#define PIECE (64u << 10)

/*
 * Up to 1.11 Firecracker closes its socket at once, and its own handler has seen the end of a
 * connection before what was sent: look again.
 */
#define AGAIN 5
#define AGAIN_MS 100

/* ---- who it is ---- */

static int
identify(struct fc_peer *peer, struct err *e)
{
	struct peer who;

	if (peer_of(peer->sock, &who, e) == -1)
		return -1;
	peer->pid = who.pid;
	peer->uid = who.uid;
	peer->pidfd = who.pidfd;
	if (peer->pidfd == -1)
		return err_set(
		    e, ERR_FAILED, "process %d, which has connected, has ended", (int)who.pid);
	return 0;
}

void
fc_peer_fini(struct fc_peer *peer)
{
	fd_close(&peer->sock);
	fd_close(&peer->pidfd);
}

/* ---- waiting ---- */

/* Until fd has something to read: 1; 0: over_fd has; -1. */
static int
wait_for(int fd, const struct fc_wait *w, int64_t end, const char *what, struct err *e)
{
	for (;;) {
		struct pollfd p[3] = {
			{ .fd = w->stop_fd, .events = POLLIN },
			{ .fd = fd, .events = POLLIN },
			{ .fd = w->over_fd, .events = POLLIN },
		};
		int64_t left = end == -1 ? -1 : MAX(end - wait_now_ms(), INT64_C(0));
		int n = poll(p, 3, (int)left);

		if (n == -1 && errno != EINTR)
			return err_sys(e, "poll for the %s", what);
		if (n == 0)
			return err_set(e, ERR_FAILED, "no %s within %d s", what,
			    (w->timeout_ms + 999) / 1000);
		if (n > 0 && p[0].revents != 0)
			return wait_interrupted(what, e);
		if (n > 0)
			return p[1].revents != 0 ? 1 : 0;
	}
}

static int64_t
end_of(const struct fc_wait *w)
{
	return w->timeout_ms < 0 ? -1 : wait_now_ms() + w->timeout_ms;
}

int
fc_accept(int listener, const struct fc_wait *w, struct fc_peer *peer, struct err *e)
{
	int64_t end = end_of(w);
	int rc;

	*peer = (struct fc_peer)FC_PEER_INIT;
	while ((rc = wait_for(listener, w, end, "hand-off of the VMM's memory", e)) == 1) {
		peer->sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (peer->sock != -1)
			break;
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return err_sys(e, "accept the VMM's connection");
	}
	if (rc != 1)
		return rc;
	if (identify(peer, e) == 0)
		return 1;
	fc_peer_fini(peer);
	return -1;
}

/* ---- the message ---- */

struct message {
	char *buf; /* FC_MESSAGE_MAX + PIECE */
	size_t len, end;
	int fds[FDS_MAX];
	size_t nfds;
	bool lost; /* some of them */
	int empty; /* how often nothing came */
};

static void
message_fini(struct message *m)
{
	while (m->nfds > 0)
		fd_close(&m->fds[--m->nfds]);
	free(m->buf);
}

/* Those beyond what we have room for are closed at once. */
static void
take_descriptors(struct message *m, struct msghdr *h)
{
	size_t room = FDS_MAX - m->nfds, n = fd_detach(h, m->fds + m->nfds, room);

	m->nfds += MIN(n, room);
}

/* Some of it: 1, 0 at the end of the connection, 2: nothing yet, or -1. */
static int
read_some(int sock, struct message *m, struct err *e)
{
	struct fd_room room;
	struct iovec iov = { m->buf + m->len, PIECE };
	struct msghdr h = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf) };
	ssize_t n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 2;
	if (n == -1)
		return err_sys(e, "receive");
	take_descriptors(m, &h);
	m->lost = (h.msg_flags & MSG_CTRUNC) != 0;
	if (m->lost)
		return err_set(
		    e, ERR_FAILED, "descriptors that came with it are lost (RLIMIT_NOFILE?)");
	m->len += (size_t)n;
	return n > 0 ? 1 : 0;
}

static int
hung_up(struct message *m, struct err *e)
{
	if (m->len > 0)
		return err_set(
		    e, ERR_CORRUPT, "it ends after %zu bytes, before its array closes", m->len);
	if (++m->empty > AGAIN)
		return err_set(
		    e, ERR_FAILED, "the VMM has closed the connection and sent nothing");
	poll(NULL, 0, AGAIN_MS);
	return 0;
}

/* As fc_accept. */
static int
read_message(int sock, const struct fc_wait *w, struct message *m, struct err *e)
{
	int64_t end = end_of(w);
	int rc, whole;

	while ((whole = fc_message_end(m->buf, m->len, &m->end, e)) == 0) {
		rc = wait_for(sock, w, end, "message of the VMM about its memory", e);
		if (rc != 1)
			return rc;
		rc = read_some(sock, m, e);
		if (rc == -1 || (rc == 0 && hung_up(m, e) == -1))
			return -1;
	}
	return whole;
}

static bool
is_userfaultfd(int fd)
{
	char path[64], name[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n == -1)
		return false;
	name[n] = '\0';
	return strcmp(name, "anon_inode:[userfaultfd]") == 0;
}

/* The first descriptor; others are of forks, which send a memfd as well. */
static int
take_userfaultfd(struct message *m, int *uffd, struct err *e)
{
	if (m->nfds == 0)
		return err_set(e, ERR_CORRUPT, "no userfaultfd came with it");
	if (!is_userfaultfd(m->fds[0]))
		return err_set(e, ERR_CORRUPT, "what came with it is no userfaultfd");
	*uffd = m->fds[0];
	m->fds[0] = -1;
	return 0;
}

int
fc_receive(struct fc_peer *peer, const struct fc_wait *w, struct fc_regions *regions, int *uffd,
    struct err *e)
{
	struct message m = { .buf = malloc(FC_MESSAGE_MAX + PIECE) };
	int rc;

	/* Until we have seen it. */
	peer->gave = true;
	if (m.buf == NULL)
		return err_sys(e, "hand-off");
	rc = read_message(peer->sock, w, &m, e);
	peer->gave = m.nfds > 0 || m.lost;
	if (rc == 1 && (fc_message_parse(m.buf, m.end, regions, e) == -1 ||
			   take_userfaultfd(&m, uffd, e) == -1))
		rc = -1;
	message_fini(&m);
	return rc == -1 ? err_wrap(e, "message of process %d about its memory", (int)peer->pid)
			: rc;
}

/* ---- serving it ---- */

static int
check_image(const struct image *img, const struct fc_regions *r, struct err *e)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < img->manifest.nregions; i++) {
		const struct object *o = &img->manifest.regions[i];

		if (o->size % r->page_size != 0)
			return err_set(e, ERR_FAILED,
			    "%s: region %s has %" PRIu64
			    " bytes, the VMM has pages of %" PRIu64,
			    img->path, o->name, o->size, r->page_size);
		sum += o->size;
	}
	if (sum != r->size)
		return err_set(e, ERR_FAILED,
		    "the VMM's memory has %" PRIu64 " bytes, that of %s %" PRIu64
		    ": it is not the one that was saved",
		    r->size, img->path, sum);
	return 0;
}

/* Where nothing is registered the guest would read zeros.  A process we can't see is believed.
 */
static int
check_registered(const struct fc_peer *peer, const struct fc_regions *r, struct err *e)
{
	struct memory_range *ranges = calloc(r->n, sizeof(*ranges));
	struct err unused = ERR_INIT;
	bool registered;
	int rc = 0;

	if (ranges == NULL)
		return err_sys(e, "hand-off");
	for (size_t i = 0; i < r->n; i++)
		ranges[i] = (struct memory_range){ r->v[i].hva, r->v[i].size };
	if (peer->pid > 0 &&
	    memory_is_registered(peer->pid, ranges, r->n, &registered, &unused) == 0 &&
	    !registered)
		rc = err_set(e, ERR_FAILED,
		    "not all of the VMM's memory is registered with a userfaultfd: it would "
		    "read zeros there");
	free(ranges);
	return rc;
}

/* One piece of the VMM's memory, which may go over several regions of the image. */
static int
map_piece(struct pager *s, const struct image *img, unsigned id, const struct fc_region *r,
    struct err *e)
{
	uint64_t begin = 0; /* of the region in the memory file */

	for (size_t i = 0; i < img->manifest.nregions; i++) {
		uint64_t size = img->manifest.regions[i].size;
		uint64_t from = MAX(begin, r->offset);
		uint64_t to = MIN(begin + size, r->offset + r->size);

		if (from < to && pager_add_mapping(s, id, r->hva + (from - r->offset),
				     to - from, i, from - begin, e) == -1)
			return -1;
		begin += size;
	}
	return 0;
}

int
fc_serve(struct pager *s, const struct image *img, const struct fc_peer *peer,
    const struct fc_regions *regions, int uffd, struct err *e)
{
	unsigned id;

	if (check_image(img, regions, e) == -1 || check_registered(peer, regions, e) == -1) {
		fd_close(&uffd);
		return -1;
	}
	for (size_t i = 0; i < img->manifest.nregions; i++)
		if (pager_add_foreign(s, i, regions->page_size, e) == -1) {
			fd_close(&uffd);
			return -1;
		}
	if (pager_adopt_process(s, uffd, &id, e) == -1)
		return -1;
	for (size_t i = 0; i < regions->n; i++)
		if (map_piece(s, img, id, &regions->v[i], e) == -1)
			return -1;
	return 0;
}
