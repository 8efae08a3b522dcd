/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "image/reader.h"
#include "serve/stats.h"
#include "vmm/descent.h"
#include "vmm/firecracker/api.h"
#include "vmm/firecracker/handoff.h"
#include "vmm/firecracker/impl.h"
#include "vmm/firecracker/place.h"
#include "vmm/http.h"
#include "vmm/wait.h"

/*
 * Loading: Firecracker is asked to, and while it does so it connects to us, hands over its
 * userfaultfd and touches its memory already.  So the request has a thread of its own.
 */

#define API_DEFAULT "/run/firecracker.socket"
#define MESSAGE_MS 10000 /* from the connection to the end of the message */
#define DEATH_MS 100
#define STATE_PIECE (256u << 10)

struct session {
	const struct vmm_load *how;
	const struct object *state;
	struct fc_api api;
	struct fc_place place;
	int listener;
	pthread_mutex_t lock; /* guards the peer */
	struct fc_peer peer;
	/* PUT /snapshot/load */
	pthread_t thread;
	bool asking;
	int quit_fd; /* readable: give it up */
	int done_fd; /* readable: it is answered, as these say */
	json_t *body;
	int rc;
	struct err err;
};

/* ---- before the VMM runs ---- */

/* The state that was asked for, the one of our own making, or the only one there is. */
static int
find_state(const struct vmm_load *how, const struct object **state, struct err *e)
{
	const struct manifest *m = &how->img->manifest;

	*state = how->state;
	for (size_t i = 0; i < m->nstates && *state == NULL; i++)
		if (strcmp(m->states[i].kind, FC_STATE_KIND) == 0 || m->nstates == 1)
			*state = &m->states[i];
	if (*state == NULL)
		*state = manifest_state(m, FC_STATE_NAME);
	if (*state != NULL)
		return 0;
	return err_set(e, ERR_USAGE, "%s: has no state of a Firecracker%s", how->img->path,
	    m->nstates > 0 ? ": --state says which one it is" : "");
}

static bool
is_jailer(const char *program)
{
	const char *slash = strrchr(program, '/');

	return strncmp(slash != NULL ? slash + 1 : program, "jailer", 6) == 0;
}

/* Where the API will be: as the VMM's arguments say, unless we are told. */
static int
find_api(const struct vmm_load *how, const char **path, struct err *e)
{
	static const char option[] = "--api-sock";
	char *const *v = how->argv;

	*path = how->api != NULL ? how->api : API_DEFAULT;
	if (how->api != NULL)
		return 0;
	if (is_jailer(v[0]))
		return err_set(e, ERR_USAGE,
		    "a jailed VMM: --api says where its API socket is, by default "
		    "/srv/jailer/firecracker/ID/root/run/firecracker.socket");
	for (size_t i = 1; v[i] != NULL; i++) {
		if (strcmp(v[i], "--no-api") == 0)
			return err_set(e, ERR_USAGE,
			    "--no-api: Firecracker loads a snapshot by its API only");
		if (strcmp(v[i], option) == 0 && v[i + 1] != NULL)
			*path = v[i + 1];
		else if (strncmp(v[i], option, sizeof(option) - 1) == 0 &&
			 v[i][sizeof(option) - 1] == '=')
			*path = v[i] + sizeof(option);
	}
	return 0;
}

int
fc_load_open(void **session, const struct vmm_load *how, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return err_sys(e, "Firecracker");
	*s = (struct session){ .how = how,
		.api = { .timeout_ms = how->timeout_ms, .stop_fd = how->stop_fd },
		.place = FC_PLACE_INIT,
		.listener = -1,
		.peer = FC_PEER_INIT,
		.quit_fd = eventfd(0, EFD_CLOEXEC),
		.done_fd = eventfd(0, EFD_CLOEXEC) };
	pthread_mutex_init(&s->lock, NULL);
	if (s->quit_fd == -1 || s->done_fd == -1)
		err_sys(e, "eventfd");
	else if (find_state(how, &s->state, e) == 0 && find_api(how, &s->api.socket, e) == 0) {
		*session = s;
		return 0;
	}
	fc_load_close(s);
	return -1;
}

/* ---- what the VMM gets ---- */

static int
copy_state(const struct session *s, int fd, struct err *e)
{
	struct image_reader *r;
	uint8_t *buf;
	int rc = 0;

	if (image_reader_new(&r, s->how->img, e) == -1)
		return -1;
	buf = malloc(STATE_PIECE);
	if (buf == NULL)
		rc = err_sys(e, "state");
	for (uint64_t off = 0; off < s->state->size && rc == 0; off += STATE_PIECE) {
		size_t n = MIN(s->state->size - off, STATE_PIECE);

		rc = image_reader_read(r, s->state, off, buf, n, e);
		if (rc == 0)
			rc = fd_pwrite_full(fd, buf, n, off, e);
	}
	free(buf);
	image_reader_free(r);
	return rc == -1 ? err_wrap(e, "state %s", s->state->name) : 0;
}

/* The folder, with the state and the socket in it. */
static int
make_place(struct session *s, pid_t vmm, struct err *e)
{
	int fd, rc;

	if (fc_place_make(&s->place, vmm, e) == -1 ||
	    fc_place_create(&s->place, FC_STATE, &fd, e) == -1)
		return -1;
	rc = copy_state(s, fd, e);
	fd_close(&fd);
	if (rc == -1 || fc_place_listen(&s->place, FC_SOCKET, &s->listener, e) == -1)
		return -1;
	return fc_place_give(&s->place, e);
}

static int
make_body(struct session *s, struct err *e)
{
	char state[PATH_MAX], socket[PATH_MAX];

	if (fc_place_path(&s->place, FC_STATE, state, e) == -1 ||
	    fc_place_path(&s->place, FC_SOCKET, socket, e) == -1)
		return -1;
	s->body = json_pack("{s:s, s:{s:s, s:s}, s:b}", "snapshot_path", state, "mem_backend",
	    "backend_type", "Uffd", "backend_path", socket, "resume_vm", 0);
	return 0;
}

/* ---- asking it to load ---- */

static void *
ask(void *arg)
{
	struct session *s = arg;
	struct fc_api api = s->api;

	api.stop_fd = s->quit_fd;
	s->rc =
	    fc_api_send(&api, "PUT", "/snapshot/load", s->body, "load the snapshot", &s->err);
	s->body = NULL;
	fd_poke(s->done_fd);
	return NULL;
}

static int
start_asking(struct session *s, struct err *e)
{
	if (make_body(s, e) == -1)
		return -1;
	errno = pthread_create(&s->thread, NULL, ask, s);
	if (errno != 0)
		return err_sys(e, "start a thread");
	s->asking = true;
	return 0;
}

/* The answer, which may have to be waited for. */
static int
finish_asking(struct session *s, struct err *e)
{
	struct pollfd p[2] = {
		{ .fd = s->done_fd, .events = POLLIN },
		{ .fd = s->how->stop_fd, .events = POLLIN },
	};

	while (poll(p, 2, -1) == -1 && errno == EINTR)
		;
	if (p[0].revents == 0)
		return wait_interrupted("answer of the VMM", e);
	pthread_join(s->thread, NULL);
	s->asking = false;
	if (s->rc == -1)
		*e = s->err;
	return s->rc;
}

static void
stop_asking(struct session *s)
{
	if (s->asking) {
		fd_poke(s->quit_fd);
		pthread_join(s->thread, NULL);
	}
	s->asking = false;
}

/* ---- its memory ---- */

/* It has answered before it has handed over its memory: with an error, one hopes. */
static int
no_handoff(struct session *s, struct err *e)
{
	if (finish_asking(s, e) == -1)
		return -1;
	return err_set(
	    e, ERR_FAILED, "the VMM has loaded the snapshot and not handed over its memory");
}

static struct fc_wait
patience(const struct session *s, int timeout_ms)
{
	return (struct fc_wait){
		.timeout_ms = timeout_ms, .stop_fd = s->how->stop_fd, .over_fd = s->done_fd
	};
}

/* The VMM's connection; whoever else may connect is sent away. */
static int
await_peer(struct session *s, struct err *e)
{
	const struct fc_wait w = patience(s, s->how->timeout_ms);
	struct fc_peer peer;
	int rc;

	while ((rc = fc_accept(s->listener, &w, &peer, e)) == 1) {
		if (descends(peer.pid, getpid()))
			break;
		log_warn("process %d of user %u wants the guest's memory, and is not the VMM: "
			 "sent away",
		    (int)peer.pid, (unsigned)peer.uid);
		fc_peer_fini(&peer);
	}
	if (rc != 1)
		return rc == 0 ? no_handoff(s, e) : -1;
	pthread_mutex_lock(&s->lock);
	s->peer = peer;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* The end of its connection may be the first that we see of its death. */
static bool
dies(const struct session *s)
{
	struct pollfd p = { .fd = s->peer.pidfd, .events = POLLIN };

	return p.fd != -1 && poll(&p, 1, DEATH_MS) == 1;
}

static int
take_memory(struct session *s, struct err *e)
{
	const struct fc_wait w = patience(s, MESSAGE_MS);
	struct fc_regions *regions;
	int uffd, rc;

	if (await_peer(s, e) == -1)
		return -1;
	regions = malloc(sizeof(*regions));
	if (regions == NULL)
		return err_sys(e, "hand-off");
	rc = fc_receive(&s->peer, &w, regions, &uffd, e);
	if (rc == 1)
		rc = fc_serve(s->how->server, s->how->img, &s->peer, regions, uffd, e);
	else if (rc == 0)
		rc = no_handoff(s, e) == -1 ? -2 : 0;
	free(regions);
	/* It waits for us then, and has nothing to say itself. */
	if (rc == -1 && e->kind != ERR_INTERRUPTED && !dies(s))
		pager_fail(s->how->server, e);
	return rc == 0 ? 0 : -1;
}

/* ---- all of it ---- */

/* Somebody else's VMM may listen there; ours would not get the socket then. */
static int
find_vmm(const struct session *s, pid_t *pid, struct err *e)
{
	if (fc_api_peer(&s->api, pid, e) == -1)
		return -1;
	if (*pid == 0 || descends(*pid, getpid()))
		return 0;
	return err_set(e, ERR_FAILED,
	    "%s: process %d answers there, which is not the VMM that was started",
	    s->api.socket, (int)*pid);
}

static int
load(struct session *s, struct vmm_load_times *times, struct err *e)
{
	pid_t pid;

	/* Who waits for our child sees its end; and a jailer may leave the VMM behind. */
	if (http_await(s->api.socket, 0, s->how->timeout_ms, s->how->stop_fd, e) == -1 ||
	    find_vmm(s, &pid, e) == -1)
		return -1;
	times->connected = serve_now();
	if (make_place(s, pid, e) == -1 || start_asking(s, e) == -1 || take_memory(s, e) == -1)
		return -1;
	times->ready = serve_now();
	if (finish_asking(s, e) == -1)
		return -1;
	times->loaded = serve_now();
	return 0;
}

int
fc_load(void *session, pid_t vmm, struct vmm_load_times *times, struct err *e)
{
	struct session *s = session;
	int rc = load(s, times, e);

	(void)vmm;
	stop_asking(s);
	fd_close(&s->listener);
	fc_place_remove(&s->place);
	if (rc == -1 || s->how->paused)
		return rc;
	if (fc_api_set_state(&s->api, "Resumed", e) == -1)
		return -1;
	times->running = serve_now();
	return 0;
}

size_t
fc_load_processes(void *session, pid_t *pids, size_t max)
{
	struct session *s = session;
	struct pollfd p = { .events = POLLIN };
	pid_t pid;

	pthread_mutex_lock(&s->lock);
	p.fd = s->peer.pidfd;
	pid = s->peer.pid;
	pthread_mutex_unlock(&s->lock);
	if (p.fd == -1 || pid <= 0 || max == 0 || poll(&p, 1, 0) != 0)
		return 0;
	pids[0] = pid;
	return 1;
}

void
fc_load_close(void *session)
{
	struct session *s = session;

	stop_asking(s);
	fd_close(&s->listener);
	fc_place_remove(&s->place);
	fc_peer_fini(&s->peer);
	json_decref(s->body);
	fd_close(&s->quit_fd);
	fd_close(&s->done_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
