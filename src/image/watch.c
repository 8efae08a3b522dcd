/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/ckd.h"
#include "base/thread.h"

#define SECOND UINT64_C(1000000000)

struct image_reads {
	pthread_mutex_t lock; /* guards the list, not what the marks say */
	struct read_mark *list;
};

struct image_watch {
	const struct image *img;
	uint64_t limit; /* ns */
	void (*stalled)(void *arg, const struct image_stall *stall);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop;
};

/* ---- marks ---- */

/* To some milliseconds, for next to nothing. */
static uint64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

struct image_reads *
image_reads_new(void)
{
	struct image_reads *reads = calloc(1, sizeof(*reads));

	if (reads != NULL)
		pthread_mutex_init(&reads->lock, NULL);
	return reads;
}

void
image_reads_free(struct image_reads *reads)
{
	if (reads != NULL)
		pthread_mutex_destroy(&reads->lock);
	free(reads);
}

void
image_reads_add(const struct image *img, struct read_mark *m)
{
	pthread_mutex_lock(&img->reads->lock);
	m->next = img->reads->list;
	img->reads->list = m;
	pthread_mutex_unlock(&img->reads->lock);
}

void
image_reads_remove(const struct image *img, struct read_mark *m)
{
	struct read_mark **link;

	pthread_mutex_lock(&img->reads->lock);
	for (link = &img->reads->list; *link != NULL && *link != m; link = &(*link)->next)
		;
	if (*link == m)
		*link = m->next;
	pthread_mutex_unlock(&img->reads->lock);
}

void
read_mark_begin(struct read_mark *m, uint64_t off, uint64_t len)
{
	atomic_store_explicit(&m->off, off, memory_order_relaxed);
	atomic_store_explicit(&m->len, len, memory_order_relaxed);
	atomic_store_explicit(&m->since, MAX(now(), 1), memory_order_release);
}

void
read_mark_end(struct read_mark *m)
{
	atomic_store_explicit(&m->since, 0, memory_order_release);
}

/* ---- the thread ---- */

static bool
find_stall(const struct image_watch *w, struct image_stall *stall)
{
	uint64_t since, at = now();
	bool any = false;

	*stall = (struct image_stall){ 0 };
	pthread_mutex_lock(&w->img->reads->lock);
	for (struct read_mark *m = w->img->reads->list; m != NULL && !stall->urgent;
	     m = m->next) {
		since = atomic_load_explicit(&m->since, memory_order_acquire);
		if (since == 0 || at < since || at - since < w->limit)
			continue;
		any = true;
		stall->off = atomic_load(&m->off);
		stall->len = atomic_load(&m->len);
		stall->urgent = atomic_load(&m->urgent);
	}
	pthread_mutex_unlock(&w->img->reads->lock);
	return any;
}

/* A part of the limit, so that nobody waits for much longer than that; false: it is to end. */
static bool
nap(struct image_watch *w)
{
	uint64_t ns = w->limit / 8;
	struct timespec until;
	bool stop;

	clock_gettime(CLOCK_MONOTONIC, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / SECOND);
	until.tv_nsec = (long)(ns % SECOND);
	pthread_mutex_lock(&w->lock);
	if (!w->stop)
		pthread_cond_timedwait(&w->changed, &w->lock, &until);
	stop = w->stop;
	pthread_mutex_unlock(&w->lock);
	return !stop;
}

static void *
watch_main(void *arg)
{
	struct image_watch *w = arg;
	struct image_stall stall;

	while (nap(w))
		if (find_stall(w, &stall))
			w->stalled(w->arg, &stall);
	return NULL;
}

static int
start(struct image_watch *w, struct err *e)
{
	if (quiet_thread(&w->thread, watch_main, w, NULL) == -1)
		return err_sys(e, "start a thread");
	return 0;
}

int
image_watch_start(struct image_watch **out, const struct image *img, unsigned limit,
    void (*stalled)(void *arg, const struct image_stall *stall), void *arg, struct err *e)
{
	struct image_watch *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;

	if (w == NULL)
		return err_sys(e, "%s", img->path);
	w->img = img;
	w->limit = limit * SECOND;
	w->stalled = stalled;
	w->arg = arg;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (start(w, e) == 0) {
		*out = w;
		return 0;
	}
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return -1;
}

void
image_watch_stop(struct image_watch *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
