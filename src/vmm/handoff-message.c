/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

#include "base/fdio.h"
#include "base/fdpass.h"
#include "vmm/handoff-internal.h"

/* Requests and replies, as they come and go. */

static int
send_reply(const struct client *c, const struct iovec *iov, size_t niov, const int *fds,
    size_t nfds, struct err *e)
{
	struct fd_room room;
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = niov };

	fd_attach(&msg, &room, fds, nfds);
	if (sendmsg(c->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == -1)
		return err_sys(e, "send");
	return 0;
}

int
handoff_reply(struct handoff *h, struct client *c, const struct iovec *iov, size_t niov,
    const int *fds, size_t nfds, struct err *e)
{
	int rc = h->ledger != NULL ? handoff_reply_noted(h, c, iov, niov, fds, nfds, e)
				   : send_reply(c, iov, niov, fds, nfds, e);

	/*
	 * A client that does not read its one reply is broken: no waiting for it.  One that
	 * is gone is not: its end is seen next.
	 */
	if (rc == 0 || e->sysno == EPIPE || e->sysno == ECONNRESET)
		return 0;
	return err_wrap(e, "hand-off: reply to process %d", (int)c->pid);
}

void
handoff_request_fini(struct request *r)
{
	for (unsigned i = 0; i < REQUEST_FDS; i++)
		fd_close(&r->fds[i]);
}

/*
 * Descriptors, and (from a socket that was made by ourselves) who it is that talks.
 * False: there are more descriptors than any request has.
 */
static bool
take_control(struct client *c, struct request *r, struct msghdr *msg)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm != NULL; cm = CMSG_NXTHDR(msg, cm)) {
		struct ucred cred;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_CREDENTIALS ||
		    c->pid != 0)
			continue;
		memcpy(&cred, CMSG_DATA(cm), sizeof(cred));
		c->pid = cred.pid;
		c->pidfd = pidfd_open(cred.pid, 0);
	}
	return fd_detach(msg, r->fds, REQUEST_FDS) <= REQUEST_FDS;
}

int
handoff_receive(struct handoff *h, struct client *c, struct request *r, struct err *e)
{
	struct fd_room room;
	const struct gmem_message *m = &r->m;
	struct iovec iov = { &r->m, sizeof(r->m) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf) };
	bool few;
	ssize_t n;

	r->fds[0] = r->fds[1] = -1;
	/* Until it is answered it is there for another supervisor too. */
	n = recvmsg(c->sock, &msg,
	    MSG_CMSG_CLOEXEC | MSG_DONTWAIT | (h->ledger != NULL ? MSG_PEEK : 0));
	c->peeked = h->ledger != NULL && n > 0;
	if (n == -1 && (errno == ECONNRESET || errno == EPIPE))
		return 0;
	if (n == -1)
		return err_sys(e, "hand-off: process %d", (int)c->pid);
	few = take_control(c, r, &msg);
	if (n == (ssize_t)sizeof(*m) && few &&
	    (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 &&
	    m->version == GMEM_HANDOFF_VERSION &&
	    memchr(m->text, '\0', sizeof(m->text)) != NULL)
		return 1;
	handoff_request_fini(r);
	if (n == 0)
		return 0;
	if (!few)
		return err_set(e, ERR_CORRUPT,
		    "hand-off: process %d sent more than %u descriptors", (int)c->pid,
		    REQUEST_FDS);
	return err_set(e, ERR_CORRUPT,
	    "hand-off: process %d sent a message of %zd bytes, version %u", (int)c->pid, n,
	    n >= 4 ? m->version : 0);
}
