/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/series.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"

#define FIRST_STEP_NS UINT64_C(1000000)

struct series {
	struct pager *server;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t stopped;
	bool stop;
	uint64_t step; /* ns */
	size_t n;
	struct sample list[SERIES_MAX];
};

static struct sample
sample_of(const struct serve_stats *s, uint64_t at)
{
	return (struct sample){
		.at = at,
		.demand = stat_get(&s->pages_demand),
		.around = stat_get(&s->pages_around),
		.prefetched = stat_get(&s->pages_prefetched),
		.background = stat_get(&s->pages_background),
		.zero = stat_get(&s->pages_zero),
		.faults = stat_get(&s->faults_stored) + stat_get(&s->faults_zero) +
			  stat_get(&s->faults_present) + stat_get(&s->faults_waited) +
			  stat_get(&s->faults_outside),
		.bytes_read = stat_get(&s->bytes_read),
	};
}

static bool
same(const struct sample *a, const struct sample *b)
{
	struct sample later = *a;

	later.at = b->at;
	return memcmp(&later, b, sizeof(later)) == 0;
}

/* The first one stays, and so does the last. */
static void
thin_out(struct series *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		if (i % 2 == 0 || i == t->n - 1)
			t->list[n++] = t->list[i];
	t->n = n;
	t->step *= 2;
}

static void
add(struct series *t, const struct sample *new)
{
	if (t->n != 0 && same(&t->list[t->n - 1], new))
		return;
	if (t->n == SERIES_MAX)
		thin_out(t);
	t->list[t->n++] = *new;
}

/* With the lock.  True: it is time to look again. */
static bool
await_step(struct series *t, uint64_t *next)
{
	struct timespec until;

	*next += t->step;
	/* Nobody waits for samples that come late. */
	if (*next < serve_now())
		*next = serve_now();
	until = (struct timespec){ (time_t)(*next / 1000000000), (long)(*next % 1000000000) };
	while (!t->stop && pthread_cond_timedwait(&t->stopped, &t->lock, &until) != ETIMEDOUT)
		;
	return !t->stop;
}

static void *
series_main(void *arg)
{
	struct series *t = arg;
	struct serve_stats *stats = malloc(sizeof(*stats));
	enum server_state state = SERVER_FILLING;
	uint64_t next = serve_now();
	struct sample new;
	struct err e;

	pthread_mutex_lock(&t->lock);
	while (stats != NULL && state == SERVER_FILLING && await_step(t, &next)) {
		state = pager_state(t->server, &e);
		pager_counts(t->server, stats);
		new = sample_of(stats, serve_now());
		add(t, &new);
	}
	pthread_mutex_unlock(&t->lock);
	free(stats);
	return NULL;
}

static int
start_thread(struct series *t, struct err *e)
{
	if (quiet_thread(&t->thread, series_main, t, NULL) == -1)
		return err_sys(e, "start a thread");
	return 0;
}

int
series_start(struct series **out, struct pager *s, struct err *e)
{
	struct series *t = calloc(1, sizeof(*t));
	pthread_condattr_t clock;

	if (t == NULL)
		return err_sys(e, "statistics");
	t->server = s;
	t->step = FIRST_STEP_NS;
	t->list[t->n++].at = serve_now();
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&t->stopped, &clock);
	pthread_condattr_destroy(&clock);
	if (start_thread(t, e) == -1) {
		pthread_cond_destroy(&t->stopped);
		pthread_mutex_destroy(&t->lock);
		free(t);
		return -1;
	}
	*out = t;
	return 0;
}

size_t
series_take(struct series *t, struct serve_stats *stats, struct server_times *times,
    struct pager_self *self, struct sample list[SERIES_MAX])
{
	struct sample new;
	size_t n;

	pthread_mutex_lock(&t->lock);
	pager_stats(t->server, stats, times, self);
	new = sample_of(stats, serve_now());
	add(t, &new);
	n = t->n;
	memcpy(list, t->list, n * sizeof(*list));
	pthread_mutex_unlock(&t->lock);
	return n;
}

void
series_free(struct series *t)
{
	if (t == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_signal(&t->stopped);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	pthread_cond_destroy(&t->stopped);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
