/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/server.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/pool.h"
#include "image/watch.h"
#include "serve/hot.h"
#include "serve/internal.h"

void
server_announce(struct server *s)
{
	fd_poke(s->event_fd);
}

void
server_complete(struct server *s)
{
	int filling = SERVER_FILLING;

	atomic_store(&s->complete, serve_now());
	/* A failure stays one. */
	atomic_compare_exchange_strong(&s->state, &filling, SERVER_COMPLETE);
}

void
server_fail(struct server *s, const struct err *e)
{
	pthread_mutex_lock(&s->fail_lock);
	err_first(&s->failure, e);
	pthread_mutex_unlock(&s->fail_lock);
	atomic_store(&s->state, SERVER_FAILED);
	server_announce(s);
}

enum server_state
server_state(struct server *s, struct err *e)
{
	enum server_state state = (enum server_state)atomic_load(&s->state);

	if (state == SERVER_FAILED) {
		pthread_mutex_lock(&s->fail_lock);
		*e = s->failure;
		pthread_mutex_unlock(&s->fail_lock);
	}
	return state;
}

void
server_set_prefetched(struct server *s)
{
	atomic_store(&s->prefetched, serve_now());
	server_announce(s);
}

bool
server_is_prefetched(const struct server *s)
{
	return atomic_load(&s->prefetched) != 0 && atomic_load(&s->state) != SERVER_FAILED;
}

int
server_event_fd(const struct server *s)
{
	return s->event_fd;
}

/* The thread that reads can't be told to stop; who waits for it need not wait. */
static void
stalled(void *arg, const struct image_stall *stall)
{
	struct server *s = arg;
	struct err e;

	err_set(&e, ERR_FAILED,
	    "%s: %llu bytes at %llu are being read for more than %u s (--io-timeout): the file "
	    "system hangs",
	    s->img->path, (unsigned long long)stall->len, (unsigned long long)stall->off,
	    s->options.io_timeout);
	if (stall->urgent && !atomic_exchange(&s->stuck, true))
		server_fail(s, &e);
	else if (!stall->urgent && !atomic_exchange(&s->slow, true))
		log_warn("%s; no page is waited for yet", e.msg);
}

int
server_new(struct server **out, const struct image *img, const struct server_options *options,
    struct err *e)
{
	struct server *s;
	unsigned most;

	if (place_check(&options->place, &most, e) == -1)
		return -1;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return err_sys(e, "page server");
	s->img = img;
	s->options = *options;
	if (s->options.nworkers == 0)
		s->options.nworkers = pool_ncpus();
	s->options.nworkers = MIN(s->options.nworkers, FAULT_WORKERS_MAX);
	if (most != 0)
		s->options.nworkers = MIN(s->options.nworkers, most);
	s->event_fd = -1;
	s->resuming = options->resume;
	s->record_lost = options->resume && options->record;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->asked_lock, NULL);
	pthread_mutex_init(&s->fail_lock, NULL);
	pthread_mutex_init(&s->stats_lock, NULL);
	pthread_mutex_init(&s->damage.lock, NULL);
	loaded_init(&s->loaded);
	s->nobjects = img->manifest.nregions;
	s->objects = calloc(s->nobjects + 1, sizeof(*s->objects));
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->objects == NULL || s->event_fd == -1) {
		err_sys(e, "page server");
		server_free(s);
		return -1;
	}
	if (options->record && !options->resume && recorder_new(&s->recorder, img, e) == -1) {
		server_free(s);
		return -1;
	}
	if (hot_open(s, e) == -1) {
		server_free(s);
		return -1;
	}
	threads_init();
	if (options->io_timeout != 0 &&
	    image_watch_start(&s->watch, img, options->io_timeout, stalled, s, e) == -1) {
		server_free(s);
		return -1;
	}
	*out = s;
	return 0;
}

bool
server_is_stuck(const struct server *s)
{
	return atomic_load(&s->stuck);
}

/* ---- start and end ---- */

int
server_start(struct server *s, struct err *e)
{
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	s->background_wanted = s->options.background != BACKGROUND_OFF;
	if (s->nready == s->nobjects && atomic_load(&s->state) == SERVER_FILLING &&
	    !s->resuming)
		rc = server_begin(s, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int
server_record_end(struct server *s, struct err *e)
{
	int rc = 0;

	if (s->recorder == NULL || !recording(s))
		return 0;
	recorder_end(s->recorder);
	pthread_mutex_lock(&s->lock);
	if (s->nready == s->nobjects && atomic_load(&s->state) == SERVER_FILLING)
		rc = server_begin(s, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int
server_record_take(struct server *s, struct trace *t, struct err *e)
{
	if (s->record_lost) {
		*t = (struct trace){ 0 };
		return err_set(e, ERR_FAILED,
		    "what was touched is not known any more: the page server that recorded it "
		    "has died");
	}
	if (s->recorder == NULL)
		return err_set(e, ERR_FAILED, "nothing was recorded");
	recorder_end(s->recorder);
	return recorder_take(s->recorder, t, e);
}

uint64_t
server_record_pages(const struct server *s)
{
	return s->recorder != NULL ? recorder_pages(s->recorder) : 0;
}

bool
server_record_full(const struct server *s)
{
	return s->recorder != NULL && recorder_is_full(s->recorder);
}

void
server_record_ask(struct server *s, size_t object, uint64_t offset, uint64_t len)
{
	if (s->recorder != NULL && object < s->nobjects)
		recorder_ask(s->recorder, object, offset, len);
}

void
server_stop(struct server *s)
{
	if (s != NULL)
		atomic_store(&s->stop, true);
}

static void
add_up(struct server *s, void (*add)(struct serve_stats *, const struct serve_stats *),
    struct serve_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	pthread_mutex_lock(&s->stats_lock);
	add(stats, &s->past);
	for (const struct filler *f = s->fillers; f != NULL; f = f->next)
		add(stats, &f->stats);
	pthread_mutex_unlock(&s->stats_lock);
}

void
server_counts(struct server *s, struct serve_stats *stats)
{
	add_up(s, serve_stats_count, stats);
}

void
server_stats(struct server *s, struct serve_stats *stats, struct server_times *times)
{
	add_up(s, serve_stats_merge, stats);
	times->first_mapping = atomic_load(&s->first_mapping);
	times->first_fault = atomic_load(&s->first_fault);
	times->prefetched = atomic_load(&s->prefetched);
	times->complete = atomic_load(&s->complete);
}

static void
free_mappings(struct server *s)
{
	struct mapping_table *t = atomic_load(&s->mappings);

	while (t != NULL) {
		struct mapping_table *older = t->older;

		free(t);
		t = older;
	}
}

void
server_shed(struct server *s)
{
	pthread_mutex_lock(&s->asked_lock);
	filler_account(&s->asked_filler);
	filler_shed(&s->asked_filler);
	pthread_mutex_unlock(&s->asked_lock);
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->nprocesses; i++)
		for (unsigned k = 0; k < s->processes[i]->nworkers; k++) {
			filler_account(&s->processes[i]->workers[k].filler);
			filler_shed(&s->processes[i]->workers[k].filler);
		}
	pthread_mutex_unlock(&s->lock);
	loaded_shed(s);
	for (size_t i = 0; i < s->nobjects; i++)
		object_shed(&s->objects[i]);
	malloc_trim(0);
}

static void
free_objects(struct server *s)
{
	for (size_t i = 0; s->objects != NULL && i < s->nobjects; i++)
		object_fini(&s->objects[i]);
	free(s->objects);
}

void
server_free(struct server *s)
{
	if (s == NULL)
		return;
	atomic_store(&s->stop, true);
	image_watch_stop(s->watch);
	/* It may be giving back what the workers have, who look at what is prefetched. */
	background_free(s);
	prefetch_stop(s);
	for (unsigned i = 0; i < s->nprocesses; i++)
		process_stop(s->processes[i]);
	filler_fini(&s->asked_filler);
	/* Whose thread may be mapping something in one of them. */
	loaded_fini(s);
	for (unsigned i = 0; i < s->nprocesses; i++) {
		fd_close(&s->processes[i]->uffd);
		events_free(s->processes[i]);
		readers_fini(s->processes[i]);
		free(s->processes[i]);
	}
	prefetch_free(s);
	free_mappings(s);
	free_objects(s);
	hot_close(s);
	recorder_free(s->recorder);
	fd_close(&s->event_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->asked_lock);
	pthread_mutex_destroy(&s->fail_lock);
	pthread_mutex_destroy(&s->stats_lock);
	pthread_mutex_destroy(&s->damage.lock);
	free(s);
}
