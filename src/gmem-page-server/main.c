/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "base/thread.h"
#include "gmem-page-server/confine.h"
#include "gmem-page-server/requests.h"
#include "image/image.h"

/*
 * The page server of gmem-restore: a process of its own, so that what goes wrong in here, with
 * images that nobody has checked, goes wrong in here only.  It is told everything through
 * descriptor 3 (serve/pager-wire.h), opens nothing by name, and may die at any instruction.
 */

#define CHANNELS_MAX 64u
#define ALONE_MS 50 /* how often to look whether the VMM is dead */

struct channel {
	struct page_server *s;
	int sock;
	pthread_t thread;
};

struct state {
	struct page_server s;
	struct channel channels[CHANNELS_MAX];
	unsigned nchannels;
	void *list; /* of pages to prefetch, mapped */
	size_t list_len;
	struct pager_event told; /* the last event */
	bool kept; /* somebody keeps the userfaultfds, and waits for our end */
};

/* ---- signals ---- */

/*
 * Memory that we have mapped was truncated, or there is no huge page left.  The control socket
 * takes a message at any time.
 */
static void __attribute__((noreturn)) on_bus_error(int sig)
{
	static const struct pager_event event = {
		.version = PAGER_VERSION,
		.type = PAGER_EVENT,
		.state = SERVER_FAILED,
		.error = { .kind = ERR_FAILED,
		    .msg =
			"guest memory, or its bitmap, was truncated by the VMM, or there was "
			"no page left for it" },
	};

	(void)sig;
	if (send(PAGER_FD, &event, sizeof(event), MSG_NOSIGNAL) == -1)
		_exit(STATUS_FAILED);
	_exit(STATUS_FAILED);
}

/* Whatever is sent to all processes of a terminal or a service: our socket tells the end. */
static void
take_signals(void)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1,
		SIGUSR2, SIGALRM };
	sigset_t none;

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGBUS, on_bus_error);
	/* One that was stopped (SIGSTOP) has to see the end, too. */
	prctl(PR_SET_PDEATHSIG, SIGCONT);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- the first message ---- */

struct opening {
	struct pager_request r;
	struct pager_open o;
};

static int
map_list(struct state *t, int fd, uint64_t n, struct err *e)
{
	struct stat st;

	if (n == 0)
		return 0;
	t->list_len = n * sizeof(struct page_ref);
	if (n > TRACE_PAGES_MAX || fd == -1 || fstat(fd, &st) == -1 ||
	    (uint64_t)st.st_size < t->list_len)
		return err_set(e, ERR_CORRUPT, "a list of %llu pages", (unsigned long long)n);
	t->list = mmap(NULL, t->list_len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (t->list != MAP_FAILED)
		return 0;
	t->list = NULL;
	return err_sys(e, "a list of %llu pages", (unsigned long long)n);
}

static int
check_open(const struct pager_open *o, struct err *e)
{
	if (o->background > BACKGROUND_IDLE || o->engine > SERVE_SOURCE ||
	    o->prefetch_kind > PREFETCH_ALL || o->prefetch_io > COLD_CACHED ||
	    o->place_how > PLACE_LIST || o->place_urgency > URGENT_FIFO ||
	    o->log_level > LOG_LEVEL_DEBUG || o->on_error > ON_ERROR_POISON ||
	    memchr(o->path, '\0', sizeof(o->path)) == NULL)
		return err_set(e, ERR_CORRUPT, "page server: wrong options");
	return 0;
}

static int
new_server(struct state *t, const struct pager_open *o, struct err *e)
{
	struct server_options options = {
		.nworkers = o->nworkers,
		.nfillers = o->nfillers,
		.background = o->background,
		.background_rate = o->background_rate,
		.engine = (enum serve_engine)o->engine,
		.record = o->record != 0,
		.on_error = (enum on_error)o->on_error,
		.io_timeout = o->io_timeout,
		.resume = o->resume != 0,
		.prefetch = {
			.kind = (enum prefetch_kind)o->prefetch_kind,
			.list = t->list,
			.nlist = o->nlist,
			.nthreads = o->prefetch_nthreads,
			.io = (enum cold_io)o->prefetch_io,
		},
		.place = { .cpus = o->place_cpus },
	};

	options.place.how = o->place_how;
	options.place.urgency = o->place_urgency;
	t->s.records = options.record && !options.resume;
	return server_new(&t->s.server, t->s.img, &options, e);
}

static int
open_all(struct state *t, const struct pager_open *o, int fds[PAGER_FDS_MAX], struct err *e)
{
	int image = fds[0], direct;

	if (check_open(o, e) == -1)
		return -1;
	log_setup("gmem-restore", (enum log_level)o->log_level);
	if (map_list(t, fds[1], o->nlist, e) == -1)
		return -1;
	if (image == -1)
		return err_set(e, ERR_CORRUPT, "page server: no image");
	direct = page_server_confine(o, image);
	fds[0] = -1;
	if (image_open_fd_expected(&t->s.img, image, o->path, o->root, e) == -1) {
		fd_close(&direct);
		return -1;
	}
	t->s.img->direct = direct;
	return new_server(t, o, e);
}

/*
 * Somebody else keeps what we serve, and another one goes on when we are dead: the descriptor,
 * which stays open to the end, tells that.
 */
static void
be_kept(struct state *t, const struct pager_open *o, int fds[PAGER_FDS_MAX])
{
	if (o->kept == 0)
		return;
	t->kept = true;
	fds[o->nlist != 0 ? 2 : 1] = -1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* 0: the other side wants nothing of us; -1: it is none, or we can't. */
static int
begin(struct state *t, struct err *e)
{
	const struct pager_event hello = { .version = PAGER_VERSION, .type = PAGER_HELLO };
	struct pager_reply reply = { .version = PAGER_VERSION, .type = PAGER_OPEN };
	struct opening m;
	int fds[PAGER_FDS_MAX], rc;
	ssize_t n;

	if (pager_send(PAGER_FD,
		&(struct pager_message){ .head = &hello, .head_len = sizeof(hello) }, e) == -1)
		return -1;
	n = pager_receive(PAGER_FD, &m, sizeof(m), fds, e);
	if (n == -1)
		return -1;
	if (n == 0 || m.r.type == PAGER_BYE)
		return 0;
	if (n != (ssize_t)sizeof(m) || m.r.version != PAGER_VERSION || m.r.type != PAGER_OPEN) {
		pager_close_fds(fds);
		err_set(e, ERR_UNSUPPORTED, "gmem-restore speaks version %u, not %u",
		    m.r.version, PAGER_VERSION);
		rc = -1;
	} else {
		be_kept(t, &m.o, fds);
		rc = open_all(t, &m.o, fds, e);
		pager_close_fds(fds);
	}
	reply.failed = rc == -1;
	if (rc == -1)
		pager_error_set(&reply.error, e);
	if (pager_send(PAGER_FD,
		&(struct pager_message){ .head = &reply, .head_len = sizeof(reply) }, e) == -1)
		return 0;
	return rc == -1 ? 0 : 1;
}

/* ---- while it serves ---- */

static void *
channel_main(void *arg)
{
	struct channel *c = arg;

	requests_serve(c->s, c->sock);
	/* The other side need not wait. */
	shutdown(c->sock, SHUT_RDWR);
	return NULL;
}

/* One for each thread over there. */
static void
start_channel(struct state *t, int *sock)
{
	struct channel *c = &t->channels[t->nchannels];

	if (t->nchannels == CHANNELS_MAX || *sock == -1)
		return;
	*c = (struct channel){ .s = &t->s, .sock = *sock };
	if (quiet_thread(&c->thread, channel_main, c, (const int[]){ SIGBUS, 0 }) == -1)
		return;
	*sock = -1;
	t->nchannels++;
}

/* The end of the conversation: 0 if it was said, -1 if the other side has gone. */
static int
hear(struct state *t)
{
	struct err e = ERR_INIT;
	struct pager_request r;
	int fds[PAGER_FDS_MAX];
	ssize_t n = pager_receive(PAGER_FD, &r, sizeof(r), fds, &e);

	if (n != (ssize_t)sizeof(r))
		return -1;
	if (r.type == PAGER_CHANNEL)
		start_channel(t, &fds[0]);
	pager_close_fds(fds);
	return r.type == PAGER_BYE ? 0 : 1;
}

static void
tell(struct state *t)
{
	struct pager_event ev = { .version = PAGER_VERSION, .type = PAGER_EVENT };
	struct err e = ERR_INIT, unused = ERR_INIT;

	ev.state = server_state(t->s.server, &e);
	ev.prefetched = server_is_prefetched(t->s.server);
	if (ev.state == SERVER_FAILED)
		pager_error_set(&ev.error, &e);
	if (ev.state == t->told.state && ev.prefetched == t->told.prefetched)
		return;
	t->told = ev;
	(void)pager_send(
	    PAGER_FD, &(struct pager_message){ .head = &ev, .head_len = sizeof(ev) }, &unused);
}

static int
serve(struct state *t)
{
	struct pollfd polls[] = {
		{ .fd = PAGER_FD, .events = POLLIN },
		{ .fd = server_event_fd(t->s.server), .events = POLLIN },
	};
	int rc = 1;

	while (rc == 1) {
		if (poll(polls, 2, -1) == -1)
			continue;
		if (polls[1].revents != 0 && fd_poked(polls[1].fd))
			tell(t);
		if (polls[0].revents != 0)
			rc = hear(t);
	}
	return rc;
}

/* ---- the end ---- */

static void
fini(struct state *t)
{
	atomic_store(&t->s.ending, true);
	/* Some thread can't be ended but with all of us. */
	if (t->s.server != NULL && server_is_stuck(t->s.server))
		_exit(STATUS_FAILED);
	server_stop(t->s.server);
	for (unsigned i = 0; i < t->nchannels; i++) {
		shutdown(t->channels[i].sock, SHUT_RDWR);
		pthread_join(t->channels[i].thread, NULL);
		fd_close(&t->channels[i].sock);
	}
	server_free(t->s.server);
	for (unsigned i = 0; i < t->s.nuffds; i++)
		fd_close(&t->s.uffds[i]);
	image_close(t->s.img);
	if (t->list != NULL)
		munmap(t->list, t->list_len);
	pthread_mutex_destroy(&t->s.lock);
}

/*
 * gmem-restore was killed.  So is its VMM, which must not see the zeros that it would read if
 * the last userfaultfd was closed before it is dead.
 */
static void __attribute__((noreturn)) outlive_vmm(struct state *t)
{
	while (!page_server_is_alone(&t->s))
		poll(NULL, 0, ALONE_MS);
	_exit(STATUS_FAILED);
}

int
main(void)
{
	static struct state t = { .s = { .lock = PTHREAD_MUTEX_INITIALIZER } };
	struct err e = ERR_INIT;
	int rc;

	log_setup("gmem-page-server", LOG_LEVEL_WARN);
	take_signals();
	rc = begin(&t, &e);
	if (rc == -1) {
		log_error("this is a part of gmem-restore, which starts it: %s", e.msg);
		/* There is nothing to be freed, nor anybody who would wait for that. */
		_exit(STATUS_USAGE);
	}
	if (rc == 1 && serve(&t) == -1) {
		if (t.kept)
			_exit(STATUS_FAILED);
		outlive_vmm(&t);
	}
	fini(&t);
	return STATUS_OK;
}
