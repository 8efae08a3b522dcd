/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/fdio.h"
#include "serve/internal.h"

/* Processes that have handed over a userfaultfd, and the threads that serve each. */

static void
worker_stop(struct worker *w)
{
	if (w->started)
		thread_stop(w->thread);
	w->started = false;
	filler_fini(&w->filler);
	w->filler = (struct filler){ 0 };
}

void
process_stop(struct served_process *p)
{
	atomic_store(&p->stop, true);
	if (p->events != NULL)
		events_kick(p);
	for (unsigned i = 0; i < p->nworkers; i++)
		worker_stop(&p->workers[i]);
	p->nworkers = 0;
}

int
process_start(struct server *s, struct served_process *p, struct err *e)
{
	/* Nothing is registered any more. */
	if (s->resuming)
		return 0;
	if (p->events == NULL && atomic_load(&s->state) == SERVER_COMPLETE)
		return 0;
	for (unsigned i = 0; i < s->options.nworkers; i++) {
		struct worker *w = &p->workers[i];

		w->process = p;
		w->number = i;
		p->nworkers = i + 1;
		if (filler_init(&w->filler, s, true, p->uffd, e) == -1)
			return -1;
		w->filler.process = p->events != NULL ? p : NULL;
		if (thread_start(&w->thread, worker_main, w, e) == -1)
			return -1;
		w->started = true;
	}
	return 0;
}

/* What the kernel can do, if it cannot be learned from this one any more. */
static void
ask_another(struct server *s)
{
	uint64_t features;
	struct err unused;
	int fd;

	if (uffd_create(&fd, &unused) == 0 && uffd_handshake(fd, &features, &unused) == 0)
		damage_features(s, features);
	fd_close(&fd);
}

/* A dead server may have made it, or not; also of one that comes later, and again. */
static int
handshake(struct server *s, int uffd, struct err *e)
{
	uint64_t features;
	struct err unused;

	if (uffd_handshake(uffd, &features, e) == 0) {
		damage_features(s, features);
		return 0;
	}
	if (!s->options.resume || !uffd_is_ready(uffd, &unused))
		return -1;
	if (s->options.on_error == ON_ERROR_POISON)
		ask_another(s);
	*e = (struct err)ERR_INIT;
	return uffd_block(uffd, e);
}

static int
add_process(struct server *s, int uffd, bool adopt, int events, unsigned *id, struct err *e)
{
	struct served_process *p;
	int rc;

	p = calloc(1, sizeof(*p));
	if (p == NULL) {
		err_sys(e, "hand-off");
		fd_close(&uffd);
		return -1;
	}
	p->server = s;
	p->uffd = uffd;
	readers_init(p);
	if (adopt ? uffd_adopt(uffd, e) == -1 || events_new(p, events, e) == -1
		  : handshake(s, uffd, e) == -1)
		goto fail;
	pthread_mutex_lock(&s->lock);
	p->id = s->nprocesses;
	if (p->id < PROCESSES_MAX)
		s->processes[s->nprocesses++] = p;
	pthread_mutex_unlock(&s->lock);
	if (p->id == PROCESSES_MAX) {
		err_set(e, ERR_FAILED, "hand-off: more than %u processes map the memory",
		    PROCESSES_MAX);
		goto fail;
	}
	*id = p->id;
	pthread_mutex_lock(&s->lock);
	rc = process_start(s, p, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
fail:
	events_free(p);
	readers_fini(p);
	fd_close(&p->uffd);
	free(p);
	return -1;
}

int
server_add_process(struct server *s, int uffd, unsigned *id, struct err *e)
{
	return add_process(s, uffd, false, -1, id, e);
}

int
server_adopt_process(struct server *s, int uffd, int events, unsigned *id, struct err *e)
{
	return add_process(s, uffd, true, events, id, e);
}

void
server_remove_process(struct server *s, unsigned process)
{
	struct served_process *p = s->processes[process];

	atomic_store(&p->dead, true);
	server_remove_mapping(s, process, 0, UINT64_MAX);
	pthread_mutex_lock(&s->lock);
	process_stop(p);
	pthread_mutex_unlock(&s->lock);
}
