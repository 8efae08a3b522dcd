/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/handoff.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "base/thread.h"
#include "vmm/handoff-internal.h"
#include "vmm/peer.h"

/* How long a process that has left the conversation may take to die, before it is alive. */
#define LEAVE_NS (UINT64_C(5) * 1000000000)
#define LEAVE_POLL_MS 500

/* ---- clients ---- */

/* Nobody would ever be answered: the VM is stopped, and not left to wait. */
static void
fail(struct handoff *h, const char *what)
{
	struct err e = ERR_INIT;

	err_sys(&e, "hand-off: %s", what);
	pager_fail(h->server, &e);
}

/* Its socket, or -1.  The keeper has it before we do. */
static int
take_connection(struct handoff *h, const struct client *c)
{
	struct err e = ERR_INIT;
	int sock = -1;

	if (h->ledger == NULL || c == NULL)
		sock = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
	else if (handoff_accept(h, c, &sock, &e) == -1)
		errno = e.sysno;
	/* Who waits there without end would freeze, and we would look for it again and again.
	 */
	if (sock == -1 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		fail(h, "accept");
	return sock;
}

static void
client_accept(struct handoff *h)
{
	struct client *c = NULL;
	struct peer peer = { .pidfd = -1 };
	struct err unused;
	int sock;

	for (unsigned i = 0; i < CLIENTS_MAX && c == NULL; i++)
		if (!h->clients[i].used)
			c = &h->clients[i];
	sock = take_connection(h, c);
	if (sock == -1)
		return;
	if (c == NULL || peer_of(sock, &peer, &unused) == -1 ||
	    (peer.uid != geteuid() && peer.uid != 0)) {
		log_warn(
		    "hand-off: a connection of user %u was turned away", (unsigned)peer.uid);
		fd_close(&peer.pidfd);
		close(sock);
		if (c != NULL)
			handoff_note_client(h, c);
		return;
	}
	pthread_mutex_lock(&h->lock);
	*c = (struct client){
		.used = true, .sock = sock, .pid = peer.pid, .pidfd = peer.pidfd, .lifeline = -1
	};
	pthread_mutex_unlock(&h->lock);
	handoff_note_client(h, c);
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
	handoff_note_client(h, c);
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
	handoff_note_client(h, c);
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
	handoff_note_client(h, c);
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
	if (c->sock != -1 && ready && !handoff_converse(h, c)) {
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

static struct handoff *
new_handoff(struct pager *server, struct err *e)
{
	struct handoff *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		err_sys(e, "hand-off");
		return NULL;
	}
	h->server = server;
	h->ledger = pager_ledger(server);
	h->listener = h->place = -1;
	pthread_mutex_init(&h->lock, NULL);
	for (unsigned i = 0; i < GMEM_REGIONS_MAX; i++)
		h->own_fds[i] = -1;
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		h->clients[i] = NOBODY;
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->wake_fd != -1)
		return h;
	err_sys(e, "hand-off");
	handoff_free(h);
	return NULL;
}

int
handoff_new(struct handoff **out, struct pager *server, const struct handoff_region *regions,
    size_t n, int *end, struct err *e)
{
	struct handoff *h = new_handoff(server, e);

	if (h == NULL)
		return -1;
	if (set_regions(h, regions, n, e) == -1 || open_socket(h, e) == -1 ||
	    make_pair(h, end, e) == -1 || handoff_note_all(h, e) == -1 ||
	    start_thread(h, e) == -1) {
		handoff_free(h);
		return -1;
	}
	*out = h;
	return 0;
}

int
handoff_inherit(struct handoff **out, struct pager *server, struct err *e)
{
	struct handoff *h = new_handoff(server, e);

	if (h == NULL)
		return -1;
	if (handoff_inherit_all(h, e) == -1 || start_thread(h, e) == -1) {
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
	for (unsigned i = 0; i < GMEM_REGIONS_MAX; i++)
		fd_close(&h->own_fds[i]);
	fd_close(&h->listener);
	fd_close(&h->place);
	fd_close(&h->wake_fd);
	pthread_mutex_destroy(&h->lock);
	free(h);
}
