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
#include "gmem-handoff.h"
#include "format/layout.h"
#include "memory/process.h"

#define CLIENTS_MAX 256u

/* A process that has connected. */
struct client {
	int sock; /* -1: this place is free */
	int pidfd;
	pid_t pid;
	int lifeline; /* our end of its lifeline; -1 before its hello */
	bool holds; /* it has guest memory … */
	bool owns; /* … that it made itself */
	bool served; /* it has handed over a userfaultfd … */
	unsigned id; /* … and is this process of the server */
};

struct handoff {
	struct server *server;
	char path[64];
	int listener;
	int wake_fd; /* its clients have changed, or it is to stop */
	atomic_bool stop;
	int place; /* the socket's file, which has no name any more */
	pthread_t thread;
	bool started;
	atomic_uint hellos;
	struct gmem_region regions[GMEM_REGIONS_MAX];
	int fds[GMEM_REGIONS_MAX]; /* -1: the client brings its memory */
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

/* Descriptors, and (from a socket that was made by ourselves) who it is that talks. */
static void
take_control(struct client *c, struct request *r, struct msghdr *msg)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm != NULL; cm = CMSG_NXTHDR(msg, cm)) {
		size_t len = cm->cmsg_len - CMSG_LEN(0);
		struct ucred cred;

		if (cm->cmsg_level != SOL_SOCKET)
			continue;
		if (cm->cmsg_type == SCM_RIGHTS)
			memcpy(r->fds, CMSG_DATA(cm), MIN(len, sizeof(r->fds)));
		if (cm->cmsg_type != SCM_CREDENTIALS || c->pid != 0)
			continue;
		memcpy(&cred, CMSG_DATA(cm), sizeof(cred));
		c->pid = cred.pid;
		c->pidfd = pidfd_open(cred.pid, 0);
	}
}

/* One request.  1, 0 at the end of the conversation, -1. */
static int
receive(struct client *c, struct request *r, struct err *e)
{
	union {
		char buf[CMSG_SPACE(REQUEST_FDS * sizeof(int)) +
			 CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	const struct gmem_message *m = &r->m;
	struct iovec iov = { &r->m, sizeof(r->m) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf) };
	ssize_t n;

	r->fds[0] = r->fds[1] = -1;
	n = recvmsg(c->sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n == 0 || (n == -1 && (errno == ECONNRESET || errno == EPIPE)))
		return 0;
	if (n == -1)
		return err_sys(e, "hand-off: process %d", (int)c->pid);
	take_control(c, r, &msg);
	if (n != (ssize_t)sizeof(*m) || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
	    m->version != GMEM_HANDOFF_VERSION ||
	    memchr(m->text, '\0', sizeof(m->text)) == NULL) {
		request_fini(r);
		return err_set(e, ERR_CORRUPT,
		    "hand-off: process %d sent a message of %zd bytes, version %u", (int)c->pid,
		    n, n >= 4 ? m->version : 0);
	}
	return 1;
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

	if (m->region >= h->nregions || h->fds[m->region] != -1 || r->fds[0] == -1)
		return err_set(e, ERR_CORRUPT, "hand-off: process %d brings %s memory %u",
		    (int)c->pid, r->fds[0] == -1 ? "no descriptor of" : "unwanted", m->region);
	if (fstat(r->fds[0], &st) == -1)
		return err_sys(e, "hand-off: memory %u", m->region);
	memory.page_size = page_size_of(r->fds[0], &st);
	region = &h->regions[m->region];
	pthread_mutex_lock(&h->lock);
	c->holds = c->owns = true;
	region->dev = st.st_dev;
	region->ino = st.st_ino;
	region->page_size = memory.page_size;
	region->offset = m->offset;
	pthread_mutex_unlock(&h->lock);
	if (server_add_memory(h->server, m->region, &memory, e) == -1)
		return -1;
	log_info("process %d brings memory %s", (int)c->pid, region->name);
	if (server_is_complete(h->server, m->region))
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
	if (!server_has_memory(h->server))
		return err_set(e, ERR_CORRUPT,
		    "hand-off: process %d sent a userfaultfd before the memory of all regions",
		    (int)c->pid);
	r->fds[0] = -1;
	if (server_add_process(h->server, fd, &id, e) == -1)
		return -1;
	pthread_mutex_lock(&h->lock);
	c->id = id;
	c->served = c->holds = true;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static int
take_mapping(
    struct handoff *h, const struct client *c, const struct gmem_message *m, struct err *e)
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
	return server_add_mapping(
	    h->server, c->id, m->address, m->length, m->region, m->offset, e);
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
		server_remove_mapping(h->server, c->id, m->address, m->length);
		return 0;
	case GMEM_DISCARD:
		return server_discard(h->server, m->region, m->offset, m->length, e);
	case GMEM_FAULT:
		return server_fault(h->server, m->region, m->offset, e);
	case GMEM_REFUSE:
		return err_set(e, ERR_FAILED, "%s", m->text);
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
		 (r.m.type == GMEM_FAULT && server_fault_rest(h->server, e) == -1))
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
		server_fail(h->server, &e);
		reply_error(&reply, &e);
		(void)send_reply(c, &iov, 1, NULL, 0, &unused);
	}
	return rc == 1;
}

/* ---- clients ---- */

static void
client_accept(struct handoff *h)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct client *c = NULL;
	int sock;

	sock = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
	if (sock == -1)
		return;
	for (unsigned i = 0; i < CLIENTS_MAX && c == NULL; i++)
		if (h->clients[i].sock == -1)
			c = &h->clients[i];
	if (c == NULL || getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1 ||
	    (cred.uid != geteuid() && cred.uid != 0)) {
		log_warn("hand-off: a connection was turned away");
		close(sock);
		return;
	}
	pthread_mutex_lock(&h->lock);
	*c = (struct client){ .sock = sock, .pid = cred.pid, .lifeline = -1 };
	c->pidfd = pidfd_open(cred.pid, 0);
	pthread_mutex_unlock(&h->lock);
}

static bool
client_is_alive(const struct client *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return c->pidfd != -1 && poll(&p, 1, 0) == 0;
}

/*
 * The conversation is over, the process is not.  That is fine for a new program in the
 * place of the old one, that has nothing of ours.
 */
static int
check_left(struct handoff *h, const struct client *c, struct err *e)
{
	struct err unused;

	if (c->owns && server_state(h->server, &unused) == SERVER_FILLING)
		return err_set(e, ERR_FAILED,
		    "process %d has left the hand-off before all of its memory was there",
		    (int)c->pid);
	return handoff_check(h, e);
}

/*
 * The end of a conversation is the end of the process, or of its old program.
 * Somebody who only closed the socket still has the memory, unserved.
 */
static void
client_end(struct handoff *h, struct client *c)
{
	const struct timespec nap = { .tv_nsec = 20000000 };
	struct err e = ERR_INIT;

	if (c->holds) {
		/* A dying process closes its sockets a moment before it is dead. */
		for (int i = 0; i < 250 && client_is_alive(c); i++)
			nanosleep(&nap, NULL);
	}
	if (c->served)
		server_remove_process(h->server, c->id);
	pthread_mutex_lock(&h->lock);
	c->served = c->holds = false;
	fd_close(&c->sock);
	pthread_mutex_unlock(&h->lock);
	if (client_is_alive(c) && check_left(h, c, &e) == -1)
		server_fail(h->server, &e);
	fd_close(&c->lifeline);
	fd_close(&c->pidfd);
}

static void
wake(struct handoff *h)
{
	uint64_t one = 1;

	/* An eventfd takes this, or is readable already. */
	if (write(h->wake_fd, &one, sizeof(one)) == -1)
		return;
}

static void *
handoff_main(void *arg)
{
	struct handoff *h = arg;
	struct pollfd polls[CLIENTS_MAX + 2];
	uint64_t count;

	for (;;) {
		polls[0] = (struct pollfd){ .fd = h->wake_fd, .events = POLLIN };
		polls[1] = (struct pollfd){ .fd = h->listener, .events = POLLIN };
		for (unsigned i = 0; i < CLIENTS_MAX; i++)
			polls[i + 2] =
			    (struct pollfd){ .fd = h->clients[i].sock, .events = POLLIN };
		if (poll(polls, CLIENTS_MAX + 2, -1) == -1)
			continue;
		if (atomic_load(&h->stop))
			return NULL;
		if (polls[0].revents != 0 && read(h->wake_fd, &count, sizeof(count)) == -1)
			continue;
		for (unsigned i = 0; i < CLIENTS_MAX; i++)
			if (polls[i + 2].revents != 0 && !converse(h, &h->clients[i]))
				client_end(h, &h->clients[i]);
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
	if (h->listener == -1 ||
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
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	errno = pthread_create(&h->thread, NULL, handoff_main, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (errno != 0)
		return err_sys(e, "start a thread");
	h->started = true;
	return 0;
}

int
handoff_new(struct handoff **out, struct server *server, const struct handoff_region *regions,
    size_t n, struct err *e)
{
	struct handoff *h;

	h = calloc(1, sizeof(*h));
	if (h == NULL)
		return err_sys(e, "hand-off");
	h->server = server;
	h->listener = h->place = -1;
	pthread_mutex_init(&h->lock, NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		h->clients[i] = (struct client){ .sock = -1, .pidfd = -1, .lifeline = -1 };
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->wake_fd == -1) {
		err_sys(e, "hand-off");
		handoff_free(h);
		return -1;
	}
	if (set_regions(h, regions, n, e) == -1 || open_socket(h, e) == -1 ||
	    start_thread(h, e) == -1) {
		handoff_free(h);
		return -1;
	}
	*out = h;
	return 0;
}

int
handoff_pair(struct handoff *h, int *fd, struct err *e)
{
	const int on = 1;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return err_sys(e, "hand-off");
	/* Who talks is told with the first message. */
	if (setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == -1) {
		close(ends[0]);
		close(ends[1]);
		return err_sys(e, "hand-off");
	}
	*fd = ends[1];
	pthread_mutex_lock(&h->lock);
	h->clients[0].sock = ends[0];
	pthread_mutex_unlock(&h->lock);
	wake(h);
	return 0;
}

const char *
handoff_path(const struct handoff *h)
{
	return h->path;
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
		if (h->clients[i].sock != -1 && h->clients[i].holds)
			pids[n++] = h->clients[i].pid;
	pthread_mutex_unlock(&h->lock);
	return n;
}

void
handoff_kill(struct handoff *h)
{
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (h->clients[i].sock != -1 && h->clients[i].holds)
			pidfd_send_signal(h->clients[i].pidfd, SIGKILL, NULL, 0);
	pthread_mutex_unlock(&h->lock);
}

/* Whether somebody has to serve what this object shows. */
static bool
is_ours(struct handoff *h, const struct memory_object *o)
{
	bool yes = false;

	pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->nregions && !yes; i++)
		yes = h->regions[i].dev == o->dev && h->regions[i].ino == o->ino &&
		      !server_is_complete(h->server, i);
	pthread_mutex_unlock(&h->lock);
	return yes;
}

static bool
is_served(struct handoff *h, pid_t pid, const struct memory_mapping *m)
{
	bool yes = false;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < CLIENTS_MAX && !yes; i++) {
		const struct client *c = &h->clients[i];

		yes = c->sock != -1 && c->served && c->pid == pid &&
		      server_covers(h->server, c->id, m->hva, m->len);
	}
	pthread_mutex_unlock(&h->lock);
	return yes;
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
	for (size_t i = 0; i < n && rc == 0; i++) {
		for (size_t k = 0; is_ours(h, &list[i]) && k < list[i].nmappings && rc == 0;
		     k++)
			if (!is_served(h, pid, &list[i].mappings[k]))
				rc = err_set(e, ERR_FAILED,
				    "process %d maps the guest's memory at %#llx and has not "
				    "handed it "
				    "over: it would read zeros there; use --eager",
				    (int)pid, (unsigned long long)list[i].mappings[k].hva);
	}
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
			if (pids[k] != getpid())
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
	wake(h);
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
