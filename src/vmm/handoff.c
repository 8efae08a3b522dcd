/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/handoff.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/thread.h"
#include "gmem-handoff.h"
#include "format/layout.h"
#include "memory/limits.h"
#include "memory/process.h"
#include "vmm/peer.h"
#include "vmm/text.h"

#define CLIENTS_MAX (HANDOFF_POLLED - 2)
#define NOBODY ((struct client){ .sock = -1, .pidfd = -1, .lifeline = -1 })

/* How long a process that has left the conversation may take to die, before it is alive. */
#define LEAVE_NS (UINT64_C(5) * 1000000000)
#define LEAVE_POLL_MS 500

/* How long a VMM may take from its memory to the first mapping of it. */
#define MAP_NS (UINT64_C(5) * 1000000000)

/* A process that has connected, until it is dead. */
struct client {
	bool used;
	int sock; /* -1: it has left the conversation … */
	uint64_t left; /* … at this time */
	bool stays; /* and is alive, with nothing of ours: its lifeline stays too */
	int pidfd;
	pid_t pid;
	int lifeline; /* our end of its lifeline; -1 before its hello */
	bool holds; /* it has guest memory … */
	bool owns; /* … that it made itself */
	bool mapped; /* … and has handed over a mapping */
	bool served; /* it has handed over a userfaultfd … */
	unsigned id; /* … and is this process of the server */
};

struct handoff {
	struct pager *server;
	char path[64];
	int listener;
	int wake_fd; /* its clients have changed, or it is to stop */
	atomic_bool stop;
	int place; /* the socket's file, which has no name any more */
	pthread_t thread;
	bool started;
	atomic_uint hellos;
	/* When a region got its memory, ns; UINT64_MAX: it is getting it just now. */
	_Atomic uint64_t last_memory;
	struct gmem_region regions[GMEM_REGIONS_MAX];
	int fds[GMEM_REGIONS_MAX]; /* -1: the client brings its memory */
	uint64_t stored[GMEM_REGIONS_MAX]; /* bytes that it will need room for */
	uint32_t nregions;
	pthread_mutex_t lock; /* guards clients and regions, which only the thread changes */
	struct client clients[CLIENTS_MAX];
};

/* ---- talking ---- */

static void
reply_error(struct gmem_message *reply, const struct err *e)
{
	reply->type = GMEM_ERROR;
	snprintf(
	    reply->text, sizeof(reply->text), "%.*s", (int)sizeof(reply->text) - 1, e->msg);
}

static int
send_reply(const struct client *c, const struct iovec *iov, size_t niov, const int *fds,
    size_t nfds, struct err *e)
{
	union {
		char buf[CMSG_SPACE((GMEM_REGIONS_MAX + 1) * sizeof(int))];
		struct cmsghdr head;
	} control = { 0 };
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = niov };

	if (nfds != 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, nfds * sizeof(int));
	}
	/*
	 * A client that does not read its one reply is broken: no waiting for it.  One that
	 * is gone is not: its end is seen next.
	 */
	if (sendmsg(c->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == -1 && errno != EPIPE &&
	    errno != ECONNRESET)
		return err_sys(e, "hand-off: reply to process %d", (int)c->pid);
	return 0;
}

#define REQUEST_FDS 2u
#define SCM_RIGHTS_MAX 253 /* descriptors in one message: unix(7) */

struct request {
	struct gmem_message m;
	int fds[REQUEST_FDS]; /* -1: none; owned */
};

static void
request_fini(struct request *r)
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
	unsigned n = 0;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm != NULL; cm = CMSG_NXTHDR(msg, cm)) {
		size_t len = cm->cmsg_len - CMSG_LEN(0);
		struct ucred cred;
		int fd;

		if (cm->cmsg_level != SOL_SOCKET)
			continue;
		for (size_t at = 0; cm->cmsg_type == SCM_RIGHTS && at < len; at += sizeof(fd)) {
			memcpy(&fd, CMSG_DATA(cm) + at, sizeof(fd));
			if (n < REQUEST_FDS)
				r->fds[n] = fd;
			else
				close(fd);
			n++;
		}
		if (cm->cmsg_type != SCM_CREDENTIALS || c->pid != 0)
			continue;
		memcpy(&cred, CMSG_DATA(cm), sizeof(cred));
		c->pid = cred.pid;
		c->pidfd = pidfd_open(cred.pid, 0);
	}
	return n <= REQUEST_FDS;
}

/* One request.  1, 0 at the end of the conversation, -1. */
static int
receive(struct client *c, struct request *r, struct err *e)
{
	union {
		char buf[CMSG_SPACE(SCM_RIGHTS_MAX * sizeof(int)) +
			 CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	const struct gmem_message *m = &r->m;
	struct iovec iov = { &r->m, sizeof(r->m) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf) };
	bool few;
	ssize_t n;

	r->fds[0] = r->fds[1] = -1;
	n = recvmsg(c->sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
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
	request_fini(r);
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

/* ---- requests ---- */

static int
welcome(struct handoff *h, struct client *c, struct err *e)
{
	struct gmem_message m = {
		.version = GMEM_HANDOFF_VERSION, .type = GMEM_WELCOME, .count = h->nregions
	};
	struct iovec iov[] = { { &m, sizeof(m) },
		{ h->regions, h->nregions * sizeof(h->regions[0]) } };
	int fds[GMEM_REGIONS_MAX + 1], ends[2], rc;
	size_t n = 0;

	if (c->lifeline != -1)
		return err_set(
		    e, ERR_CORRUPT, "hand-off: process %d says hello twice", (int)c->pid);
	if (pipe2(ends, O_CLOEXEC) == -1)
		return err_sys(e, "hand-off: lifeline");
	for (uint32_t i = 0; i < h->nregions; i++)
		if (h->fds[i] != -1)
			fds[n++] = h->fds[i];
	fds[n++] = ends[0];
	c->lifeline = ends[1];
	/* Counted before the client knows: it may have ended by the time that it is asked for.
	 */
	atomic_fetch_add(&h->hellos, 1);
	rc = send_reply(c, iov, 2, fds, n, e);
	close(ends[0]);
	return rc;
}

/* What the kernel says of the memory's pages. */
static uint64_t
page_size_of(int fd, const struct stat *st)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		return (uint64_t)st->st_blksize;
	return PAGE_GRANULE;
}

/* A write that finds the file system full would be the end of a VM that runs. */
static int
check_room(
    const struct handoff *h, uint32_t region, int fd, const struct stat *st, struct err *e)
{
	uint64_t left = limits_of_file(fd), has = (uint64_t)st->st_blocks * 512;

	if (left == LIMITS_NONE || h->stored[region] <= has || h->stored[region] - has <= left)
		return 0;
	return err_set(e, ERR_FAILED,
	    "hand-off: memory %s is a file where there is room for %llu bytes, and %llu are "
	    "stored of it: make the file system larger (mount -o remount,size=), or free some "
	    "of it",
	    h->regions[region].name, (unsigned long long)left,
	    (unsigned long long)(h->stored[region] - has));
}

static int
take_memory(struct handoff *h, struct client *c, const struct request *r,
    struct gmem_message *reply, struct err *e)
{
	const struct gmem_message *m = &r->m;
	struct served_memory memory = {
		.fd = r->fds[0],
		.offset = m->offset,
		.bitmap = r->fds[1],
		.slots = (m->flags & GMEM_SLOTS) != 0,
	};
	struct gmem_region *region;
	struct stat st;
	int rc;

	if (m->region >= h->nregions || h->fds[m->region] != -1 || r->fds[0] == -1)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d brings %s memory %u",
		    (int)c->pid, r->fds[0] == -1 ? "no descriptor of" : "unwanted", m->region);
	if (fstat(r->fds[0], &st) == -1)
		return err_sys(e, "hand-off: memory %u", m->region);
	if (check_room(h, m->region, r->fds[0], &st, e) == -1)
		return -1;
	memory.page_size = page_size_of(r->fds[0], &st);
	region = &h->regions[m->region];
	pthread_mutex_lock(&h->lock);
	c->holds = c->owns = true;
	region->dev = st.st_dev;
	region->ino = st.st_ino;
	region->page_size = memory.page_size;
	region->offset = m->offset;
	pthread_mutex_unlock(&h->lock);
	atomic_store(&h->last_memory, UINT64_MAX);
	rc = pager_add_memory(h->server, m->region, &memory, e);
	atomic_store(&h->last_memory, serve_now());
	if (rc == -1)
		return -1;
	log_info("process %d brings memory %s", (int)c->pid, region->name);
	if (pager_is_complete(h->server, m->region))
		reply->flags = GMEM_COMPLETE;
	return 0;
}

static int
take_userfaultfd(struct handoff *h, struct client *c, struct request *r, struct err *e)
{
	int fd = r->fds[0];
	unsigned id;

	if (fd == -1 || c->served)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d sent %s userfaultfd",
		    (int)c->pid, c->served ? "another" : "no");
	if (!pager_has_memory(h->server))
		return err_set(e, ERR_CORRUPT,
		    "hand-off: process %d sent a userfaultfd before the memory of all regions",
		    (int)c->pid);
	r->fds[0] = -1;
	if (pager_add_process(h->server, fd, &id, e) == -1)
		return -1;
	pthread_mutex_lock(&h->lock);
	c->id = id;
	c->served = c->holds = true;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static int
take_mapping(struct handoff *h, struct client *c, const struct gmem_message *m, struct err *e)
{
	uint64_t known =
	    m->region < h->nregions ? h->regions[m->region].guest_address : GMEM_NO_ADDRESS;

	log_info("process %d maps %llu bytes of memory %u at %#llx", (int)c->pid,
	    (unsigned long long)m->length, m->region, (unsigned long long)m->address);
	if (known != GMEM_NO_ADDRESS && m->guest_address != GMEM_NO_ADDRESS &&
	    m->guest_address != known + m->offset)
		return err_set(e, ERR_FAILED,
		    "hand-off: memory %s is at guest physical address %#llx in the image, the "
		    "VMM has it at %#llx",
		    h->regions[m->region].name, (unsigned long long)known,
		    (unsigned long long)(m->guest_address - m->offset));
	if (pager_add_mapping(
		h->server, c->id, m->address, m->length, m->region, m->offset, e) == -1)
		return -1;
	pthread_mutex_lock(&h->lock);
	c->mapped = true;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static int
handle(struct handoff *h, struct client *c, struct request *r, struct gmem_message *reply,
    struct err *e)
{
	const struct gmem_message *m = &r->m;

	if (c->lifeline == -1)
		return err_set(
		    e, ERR_CORRUPT, "hand-off: process %d has not said hello", (int)c->pid);
	if ((m->type == GMEM_MAP || m->type == GMEM_UNMAP) && !c->served)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d has sent no userfaultfd",
		    (int)c->pid);
	switch (m->type) {
	case GMEM_MEMORY:
		return take_memory(h, c, r, reply, e);
	case GMEM_USERFAULTFD:
		return take_userfaultfd(h, c, r, e);
	case GMEM_MAP:
		return take_mapping(h, c, m, e);
	case GMEM_UNMAP:
		pager_remove_mapping(h->server, c->id, m->address, m->length);
		return 0;
	case GMEM_DISCARD:
		return pager_discard(h->server, m->region, m->offset, m->length, e);
	case GMEM_FAULT:
		return pager_fault(h->server, m->region, m->offset, e);
	case GMEM_REFUSE:
		text_make_printable(r->m.text);
		return err_set(e, ERR_FAILED, "%s",
		    m->text[0] != '\0' ? m->text : "the VMM can't go on, and does not say why");
	default:
		return err_set(e, ERR_CORRUPT, "hand-off: request %u is not known", m->type);
	}
}

/* One request and its reply.  0 at the end of the conversation. */
static int
answer(struct handoff *h, struct client *c, struct err *e)
{
	struct gmem_message reply = { .version = GMEM_HANDOFF_VERSION, .type = GMEM_OK };
	struct iovec iov = { &reply, sizeof(reply) };
	struct request r;
	int rc;

	rc = receive(c, &r, e);
	if (rc != 1)
		return rc;
	if (r.m.type == GMEM_HELLO)
		rc = welcome(h, c, e);
	else if (handle(h, c, &r, &reply, e) == -1 ||
		 send_reply(c, &iov, 1, NULL, 0, e) == -1 ||
		 (r.m.type == GMEM_FAULT && pager_fault_rest(h->server, e) == -1))
		rc = -1;
	request_fini(&r);
	return rc == -1 ? -1 : 1;
}

/* The same.  False: the conversation is over. */
static bool
converse(struct handoff *h, struct client *c)
{
	struct gmem_message reply = { .version = GMEM_HANDOFF_VERSION };
	struct iovec iov = { &reply, sizeof(reply) };
	struct err e = ERR_INIT, unused;
	int rc = answer(h, c, &e);

	if (rc == -1) {
		/* Somebody's memory is not served: nobody may run on. */
		pager_fail(h->server, &e);
		reply_error(&reply, &e);
		(void)send_reply(c, &iov, 1, NULL, 0, &unused);
	}
	return rc == 1;
}

/* ---- clients ---- */

/* Nobody would ever be answered: the VM is stopped, and not left to wait. */
static void
fail(struct handoff *h, const char *what)
{
	struct err e = ERR_INIT;

	err_sys(&e, "hand-off: %s", what);
	pager_fail(h->server, &e);
}

static void
client_accept(struct handoff *h)
{
	struct client *c = NULL;
	struct peer peer = { .pidfd = -1 };
	struct err unused;
	int sock;

	sock = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
	/* Who waits there without end would freeze, and we would look for it again and again.
	 */
	if (sock == -1 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		fail(h, "accept");
	if (sock == -1)
		return;
	for (unsigned i = 0; i < CLIENTS_MAX && c == NULL; i++)
		if (!h->clients[i].used)
			c = &h->clients[i];
	if (c == NULL || peer_of(sock, &peer, &unused) == -1 ||
	    (peer.uid != geteuid() && peer.uid != 0)) {
		log_warn(
		    "hand-off: a connection of user %u was turned away", (unsigned)peer.uid);
		fd_close(&peer.pidfd);
		close(sock);
		return;
	}
	pthread_mutex_lock(&h->lock);
	*c = (struct client){
		.used = true, .sock = sock, .pid = peer.pid, .pidfd = peer.pidfd, .lifeline = -1
	};
	pthread_mutex_unlock(&h->lock);
}

static bool
client_is_alive(const struct client *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return c->pidfd != -1 && poll(&p, 1, 0) == 0;
}

/* The conversation is over; a dying process closes its sockets a moment before it is dead. */
static void
client_leave(struct handoff *h, struct client *c)
{
	pthread_mutex_lock(&h->lock);
	fd_close(&c->sock);
	c->left = serve_now();
	pthread_mutex_unlock(&h->lock);
}

/*
 * The process is alive without its conversation.  That is fine when all memory is there,
 * when it never had any, or for a new program in the place of the old one.
 */
static int
check_left(struct handoff *h, struct client *c, struct err *e)
{
	struct err unused;

	if (!c->holds || pager_state(h->server, &unused) != SERVER_FILLING)
		return 0;
	if (c->owns)
		return err_set(e, ERR_FAILED,
		    "process %d has left the hand-off before all of its memory was there",
		    (int)c->pid);
	pthread_mutex_lock(&h->lock);
	c->served = false;
	pthread_mutex_unlock(&h->lock);
	return handoff_check(h, e);
}

static void
client_stays(struct handoff *h, struct client *c)
{
	struct err e = ERR_INIT;
	bool served = c->served;

	if (check_left(h, c, &e) == -1)
		pager_fail(h->server, &e);
	else if (served && !c->owns)
		pager_remove_process(h->server, c->id);
	pthread_mutex_lock(&h->lock);
	c->served = false;
	c->holds &= c->owns; /* complete, and still its memory: it is waited for */
	c->stays = true;
	pthread_mutex_unlock(&h->lock);
}

static void
client_end(struct handoff *h, struct client *c)
{
	if (c->served)
		pager_remove_process(h->server, c->id);
	pthread_mutex_lock(&h->lock);
	fd_close(&c->sock);
	fd_close(&c->lifeline);
	fd_close(&c->pidfd);
	*c = NOBODY;
	pthread_mutex_unlock(&h->lock);
}

/* One that has left: is it dead by now, or alive after all? */
static void
client_watch(struct handoff *h, struct client *c)
{
	if (!client_is_alive(c))
		client_end(h, c);
	else if (!c->stays && serve_now() - c->left > LEAVE_NS)
		client_stays(h, c);
}

/* What to wait for: a request, or the end of one who has left.  True: some may stay. */
static bool
make_polls(const struct handoff *h, struct pollfd *polls)
{
	bool leaving = false;

	polls[0] = (struct pollfd){ .fd = h->wake_fd, .events = POLLIN };
	polls[1] = (struct pollfd){ .fd = h->listener, .events = POLLIN };
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		const struct client *c = &h->clients[i];

		polls[i + 2] = (struct pollfd){ .fd = c->sock, .events = POLLIN };
		if (!c->used || c->sock != -1)
			continue;
		polls[i + 2].fd = c->pidfd;
		leaving |= !c->stays;
	}
	return leaving;
}

static void
handle_client(struct handoff *h, struct client *c, bool ready)
{
	if (!c->used)
		return;
	if (c->sock != -1 && ready && !converse(h, c)) {
		if (c->lifeline == -1)
			client_end(h, c); /* it has got nothing */
		else
			client_leave(h, c);
		return;
	}
	if (c->sock == -1)
		client_watch(h, c);
}

static void *
handoff_main(void *arg)
{
	struct handoff *h = arg;
	struct pollfd polls[HANDOFF_POLLED];

	for (;;) {
		bool leaving = make_polls(h, polls);

		if (poll(polls, HANDOFF_POLLED, leaving ? LEAVE_POLL_MS : -1) == -1) {
			if (errno == EINTR)
				continue;
			fail(h, "poll");
			return NULL;
		}
		if (atomic_load(&h->stop))
			return NULL;
		if (polls[0].revents != 0 && !fd_poked(h->wake_fd))
			continue;
		for (unsigned i = 0; i < CLIENTS_MAX; i++)
			handle_client(h, &h->clients[i], polls[i + 2].revents != 0);
		if (polls[1].revents != 0)
			client_accept(h);
	}
}

/* ---- the owner's side ---- */

static int
set_region(struct handoff *h, const struct handoff_region *from, uint32_t i, struct err *e)
{
	struct gmem_region *r = &h->regions[i];
	struct stat st;

	snprintf(r->name, sizeof(r->name), "%s", from->name);
	r->size = from->size;
	r->page_size = from->page_size;
	r->guest_address = from->guest_address;
	r->fd = GMEM_NO_FD;
	h->fds[i] = from->fd;
	h->stored[i] = from->stored;
	if (from->fd == -1)
		return 0;
	if (fstat(from->fd, &st) == -1)
		return err_sys(e, "stat memory %s", from->name);
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	r->fd = (uint32_t)from->number;
	return 0;
}

static int
set_regions(struct handoff *h, const struct handoff_region *regions, size_t n, struct err *e)
{
	if (n > GMEM_REGIONS_MAX)
		return err_set(
		    e, ERR_FAILED, "%zu regions, a VMM can be handed %u", n, GMEM_REGIONS_MAX);
	for (size_t i = 0; i < n; i++)
		if (set_region(h, &regions[i], (uint32_t)i, e) == -1)
			return -1;
	h->nregions = (uint32_t)n;
	return 0;
}

/*
 * The socket's file is unlinked at once and reached through a descriptor of
 * ours: nothing is left behind, however we end.
 */
static int
open_socket(struct handoff *h, struct err *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/gmem-XXXXXX";
	int rc = -1;

	if (mkdtemp(dir) == NULL)
		return err_sys(e, "make a folder in /tmp");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/handoff", dir);
	h->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Its mode before it has a name. */
	if (h->listener == -1 || fchmod(h->listener, 0600) == -1 ||
	    bind(h->listener, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
	    listen(h->listener, 16) == -1)
		err_sys(e, "listen on %s", addr.sun_path);
	else if ((h->place = open(addr.sun_path, O_PATH | O_CLOEXEC)) == -1)
		err_sys(e, "open %s", addr.sun_path);
	else
		rc = 0;
	unlink(addr.sun_path);
	rmdir(dir);
	snprintf(h->path, sizeof(h->path), "/proc/%d/fd/%d", (int)getpid(), h->place);
	return rc;
}

static int
start_thread(struct handoff *h, struct err *e)
{
	if (quiet_thread(&h->thread, handoff_main, h, (const int[]){ SIGBUS, 0 }) == -1)
		return err_sys(e, "start a thread");
	h->started = true;
	return 0;
}

/* A conversation that is open already; before the thread starts. */
static int
make_pair(struct handoff *h, int *end, struct err *e)
{
	const int on = 1;
	int ends[2];

	if (end == NULL)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return err_sys(e, "hand-off");
	*end = ends[1];
	h->clients[0].used = true;
	h->clients[0].sock = ends[0];
	/* Who talks is told with the first message. */
	if (setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == -1)
		return err_sys(e, "hand-off");
	return 0;
}

int
handoff_new(struct handoff **out, struct pager *server, const struct handoff_region *regions,
    size_t n, int *end, struct err *e)
{
	struct handoff *h;

	h = calloc(1, sizeof(*h));
	if (h == NULL)
		return err_sys(e, "hand-off");
	h->server = server;
	h->listener = h->place = -1;
	pthread_mutex_init(&h->lock, NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		h->clients[i] = NOBODY;
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->wake_fd == -1) {
		err_sys(e, "hand-off");
		handoff_free(h);
		return -1;
	}
	if (set_regions(h, regions, n, e) == -1 || open_socket(h, e) == -1 ||
	    make_pair(h, end, e) == -1 || start_thread(h, e) == -1) {
		handoff_free(h);
		return -1;
	}
	*out = h;
	return 0;
}

const char *
handoff_path(const struct handoff *h)
{
	return h->path;
}

uint64_t
handoff_last_memory(const struct handoff *h)
{
	return atomic_load(&h->last_memory);
}

unsigned
handoff_hellos(const struct handoff *h)
{
	return atomic_load(&h->hellos);
}

size_t
handoff_processes(struct handoff *h, pid_t *pids, size_t max)
{
	size_t n = 0;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < CLIENTS_MAX && n < max; i++)
		if (h->clients[i].used && h->clients[i].holds)
			pids[n++] = h->clients[i].pid;
	pthread_mutex_unlock(&h->lock);
	return n;
}

void
handoff_kill(struct handoff *h)
{
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (h->clients[i].used && h->clients[i].holds)
			pidfd_send_signal(h->clients[i].pidfd, SIGKILL, NULL, 0);
	pthread_mutex_unlock(&h->lock);
}

/*
 * The part of a mapping that shows region i while that still has to be served: false if
 * there is none.  With the lock held.
 */
static bool
shows_region(const struct handoff *h, uint32_t i, const struct memory_object *o,
    const struct memory_mapping *m, struct memory_mapping *part)
{
	const struct gmem_region *r = &h->regions[i];
	uint64_t start = MAX(m->offset, r->offset);
	uint64_t end = MIN(m->offset + m->len, r->offset + align_up(r->size, r->page_size));

	if (r->dev != o->dev || r->ino != o->ino || start >= end ||
	    pager_is_complete(h->server, i))
		return false;
	*part =
	    (struct memory_mapping){ .hva = m->hva + (start - m->offset), .len = end - start };
	return true;
}

/* By a process that has handed it over, or is about to.  With the lock held. */
static bool
is_served(const struct handoff *h, pid_t pid, const struct memory_mapping *m)
{
	uint64_t last = atomic_load(&h->last_memory);
	bool fresh = last == UINT64_MAX || serve_now() - last < MAP_NS;

	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		const struct client *c = &h->clients[i];

		if (!c->used || c->pid != pid)
			continue;
		if ((c->owns && !c->mapped && fresh) ||
		    (c->served && pager_covers(h->server, c->id, m->hva, m->len)))
			return true;
	}
	return false;
}

static int
check_mapping(struct handoff *h, pid_t pid, const struct memory_object *o,
    const struct memory_mapping *m, struct err *e)
{
	struct memory_mapping part;
	bool good = true;

	pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->nregions && good; i++)
		good = !shows_region(h, i, o, m, &part) || is_served(h, pid, &part);
	pthread_mutex_unlock(&h->lock);
	if (good)
		return 0;
	return err_set(e, ERR_FAILED,
	    "process %d maps the guest's memory at %#llx and has not handed it over: it would "
	    "read zeros there; use --eager",
	    (int)pid, (unsigned long long)part.hva);
}

static int
check_process(struct handoff *h, pid_t pid, struct err *e)
{
	struct memory_object *list;
	struct err unused;
	size_t n;
	int rc = 0;

	/* A process that has ended meanwhile is none to worry about. */
	if (memory_list(pid, &list, &n, &unused) == -1)
		return 0;
	for (size_t i = 0; i < n && rc == 0; i++)
		for (size_t k = 0; k < list[i].nmappings && rc == 0; k++)
			rc = check_mapping(h, pid, &list[i], &list[i].mappings[k], e);
	memory_list_free(list, n);
	return rc;
}

static int
check_once(struct handoff *h, struct err *e)
{
	int rc = 0;

	for (uint32_t i = 0; i < h->nregions && rc == 0; i++) {
		size_t n, unreadable;
		struct err unused;
		pid_t *pids;
		dev_t dev;
		ino_t ino;

		pthread_mutex_lock(&h->lock);
		dev = (dev_t)h->regions[i].dev;
		ino = (ino_t)h->regions[i].ino;
		pthread_mutex_unlock(&h->lock);
		if (ino == 0 || memory_users(dev, ino, &pids, &n, &unreadable, &unused) == -1)
			continue;
		for (size_t k = 0; k < n && rc == 0; k++)
			/* The page server maps it, and is nobody who would read zeros. */
			if (pids[k] != getpid() && !pager_is_process(h->server, pids[k]))
				rc = check_process(h, pids[k], e);
		free(pids);
	}
	return rc;
}

int
handoff_check(struct handoff *h, struct err *e)
{
	const struct timespec nap = { .tv_nsec = 100000000 };
	int rc = -1;

	/* A mapping exists a moment before it is handed over: look again. */
	for (int i = 0; i < 3 && rc == -1; i++) {
		if (i > 0)
			nanosleep(&nap, NULL);
		rc = check_once(h, e);
	}
	return rc;
}

void
handoff_free(struct handoff *h)
{
	if (h == NULL)
		return;
	atomic_store(&h->stop, true);
	fd_poke(h->wake_fd);
	if (h->started)
		pthread_join(h->thread, NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		fd_close(&h->clients[i].sock);
		fd_close(&h->clients[i].lifeline);
		fd_close(&h->clients[i].pidfd);
	}
	fd_close(&h->listener);
	fd_close(&h->place);
	fd_close(&h->wake_fd);
	pthread_mutex_destroy(&h->lock);
	free(h);
}
