/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckd.h"
#include "serve/internal.h"

/*
 * Chunks that were decoded for faults, for all who answer faults.
 *
 * A fault gets its page and nothing else: the rest of its chunk waits here.  A thread of low
 * priority gives it, on a CPU that has nothing better to do.  If it does not get that far the
 * oldest is dropped when its place is needed, and whoever asks for that chunk again goes
 * through all of it: no chunk is decoded more than twice.
 *
 * Two who fault in one chunk decode it once: who comes second leaves its page, which it has
 * taken, to the one who is at it.  Nobody leaves a page to who gives rests, which may have to
 * wait for its CPU.
 *
 * There is always room: each filler that answers faults brings a place, and there are some
 * more.
 */

#define NICE 10
#define NAP_US 100
#define NAPS 20 /* with nothing to do, before it has to be woken */

void
loaded_init(struct loaded_set *set)
{
	pthread_mutexattr_t attr;

	/* Who gives rests may lose its CPU with the lock. */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&set->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	sem_init(&set->wake, 0, 0);
}

static void
loaded_free(struct loaded *l)
{
	if (l != NULL)
		image_reader_free(l->reader);
	free(l);
}

/* When nobody else is left. */
void
loaded_fini(struct server *s)
{
	struct loaded_set *set = &s->loaded;

	atomic_store(&set->stop, true);
	if (set->started)
		thread_stop(set->thread);
	filler_fini(&s->rest_filler);
	for (unsigned i = 0; i < set->n; i++)
		loaded_free(set->list[i]);
	free(set->list);
	pthread_mutex_destroy(&set->lock);
	sem_destroy(&set->wake);
}

/*
 * When nobody asks any more: the places stay away, for those who have joined find that out when
 * they leave.
 */
void
loaded_shed(struct server *s)
{
	struct loaded_set *set = &s->loaded;

	atomic_store(&set->stop, true);
	if (set->started)
		thread_stop(set->thread);
	set->started = false;
	filler_fini(&s->rest_filler);
	pthread_mutex_lock(&set->lock);
	for (unsigned i = 0; i < set->n; i++)
		loaded_free(set->list[i]);
	set->n = set->nrest = 0;
	pthread_mutex_unlock(&set->lock);
}

/* ---- places ---- */

static int
add_place(struct server *s, struct err *e)
{
	struct loaded_set *set = &s->loaded;
	struct loaded *l = calloc(1, sizeof(*l)), **list = NULL;

	if (l == NULL)
		return err_sys(e, "page server");
	if (image_reader_new(&l->reader, s->img, e) == -1 ||
	    image_reader_lock(l->reader, e) == -1) {
		loaded_free(l);
		return -1;
	}
	image_reader_urgent(l->reader, true);
	pthread_mutex_lock(&set->lock);
	list = realloc(set->list, (set->n + 1) * sizeof(struct loaded *));
	if (list != NULL) {
		set->list = list;
		list[set->n++] = l;
	}
	pthread_mutex_unlock(&set->lock);
	if (list != NULL)
		return 0;
	loaded_free(l);
	return err_sys(e, "page server");
}

/* Of those that nobody is at; there is one, for its filler is at none. */
void
loaded_leave(struct server *s)
{
	struct loaded_set *set = &s->loaded;
	struct loaded *l = NULL;

	pthread_mutex_lock(&set->lock);
	for (unsigned i = 0; i < set->n && l == NULL; i++)
		if (set->list[i]->state <= LOADED_REST) {
			l = set->list[i];
			set->nrest -= l->state == LOADED_REST;
			set->list[i] = set->list[--set->n];
		}
	pthread_mutex_unlock(&set->lock);
	loaded_free(l);
}

static void *rest_main(void *arg);

static unsigned
resting_places(const struct image *img)
{
	return MIN(MAX(LOADED_BYTES / img->g.chunk_size, 1), LOADED_MAX);
}

/* The place and the reader of each, and what rests. */
uint64_t
server_locked_least(const struct image *img, unsigned nworkers)
{
	return (uint64_t)img->g.chunk_size * (2 * nworkers + resting_places(img));
}

static int
start_resting(struct server *s, struct err *e)
{
	unsigned more = resting_places(s->img);

	for (unsigned i = 0; i < more; i++)
		if (add_place(s, e) == -1)
			return -1;
	/* What it gives was decoded before. */
	s->rest_filler = (struct filler){ 0 };
	atomic_store(&s->loaded.stop, false);
	if (filler_init(&s->rest_filler, s, false, -1, e) == -1 ||
	    thread_start(&s->loaded.thread, rest_main, s, e) == -1) {
		filler_fini(&s->rest_filler);
		return -1;
	}
	s->loaded.started = true;
	return 0;
}

int
loaded_join(struct server *s, struct err *e)
{
	if (add_place(s, e) == -1)
		return -1;
	return s->loaded.started ? 0 : start_resting(s, e);
}

/* ---- having one ---- */

static size_t
slot_of(size_t object, uint64_t chunk)
{
	return (size_t)((chunk + object) * UINT64_C(0x9E3779B97F4A7C15) >> 32) % LOADED_DROPPED;
}

static void
note_dropped(struct loaded_set *set, const struct loaded *l)
{
	size_t slot = slot_of(l->object, l->chunk);

	set->dropped[slot].object = l->object + 1;
	set->dropped[slot].chunk = l->chunk;
}

static bool
was_dropped(struct loaded_set *set, size_t object, uint64_t chunk)
{
	size_t slot = slot_of(object, chunk);

	if (set->dropped[slot].object != object + 1 || set->dropped[slot].chunk != chunk)
		return false;
	set->dropped[slot].object = 0;
	return true;
}

/* The chunk, unless who has it is not to be bothered. */
static struct loaded *
find(const struct loaded_set *set, size_t object, uint64_t chunk)
{
	for (unsigned i = 0; i < set->n; i++) {
		struct loaded *l = set->list[i];

		if (l->chunk == chunk && l->object == object && l->state != LOADED_EMPTY &&
		    l->state != LOADED_RESTING)
			return l;
	}
	return NULL;
}

/* The one that was used last of those that are empty (it is in the CPU's caches); or the
 * oldest. */
static struct loaded *
find_place(const struct loaded_set *set)
{
	struct loaded *best = set->list[0];

	for (unsigned i = 1; i < set->n; i++) {
		struct loaded *l = set->list[i];

		if (l->state > LOADED_REST)
			continue;
		if (l->state < best->state ||
		    (l->state == best->state &&
			(l->state == LOADED_EMPTY) == (l->when > best->when)))
			best = l;
	}
	return best;
}

static void
want(struct loaded *l, uint32_t page, uint64_t began)
{
	l->wanted[page / 64] |= UINT64_C(1) << (page % 64);
	if (l->nwanted++ == 0)
		l->wanted_since = began;
}

static struct loaded *
take_place(struct loaded_set *set, size_t object, uint64_t chunk)
{
	struct loaded *l = find_place(set);

	if (l->state == LOADED_REST)
		note_dropped(set, l);
	l->object = object;
	l->chunk = chunk;
	l->next = 0;
	return l;
}

static void
begin(struct loaded_set *set, struct loaded *l)
{
	if (l->state == LOADED_REST)
		set->nrest--;
	l->when = set->loads++;
	l->state = LOADED_BUSY;
}

/* With the lock. */
static struct loaded *
get(struct server *s, size_t object, uint64_t chunk, uint32_t page, uint64_t began, bool *again,
    bool *through)
{
	struct loaded_set *set = &s->loaded;
	struct loaded *l = find(set, object, chunk);

	*again = l != NULL;
	*through = false;
	if (l != NULL && l->state == LOADED_BUSY) {
		want(l, page, began);
		return NULL;
	}
	if (l == NULL) {
		*through = was_dropped(set, object, chunk);
		l = take_place(set, object, chunk);
	}
	begin(set, l);
	return l;
}

struct loaded *
loaded_get(struct server *s, size_t object, uint64_t chunk, uint32_t page, uint64_t began,
    bool *again, bool *through)
{
	struct loaded *l;

	pthread_mutex_lock(&s->loaded.lock);
	l = get(s, object, chunk, page, began, again, through);
	pthread_mutex_unlock(&s->loaded.lock);
	return l;
}

struct loaded *
loaded_get_rest(struct server *s)
{
	struct loaded_set *set = &s->loaded;
	struct loaded *newest = NULL;

	pthread_mutex_lock(&set->lock);
	for (unsigned i = 0; i < set->n && set->nrest > 0; i++) {
		struct loaded *l = set->list[i];

		if (l->state == LOADED_REST && (newest == NULL || l->when > newest->when))
			newest = l;
	}
	if (newest != NULL) {
		newest->state = LOADED_RESTING;
		set->nrest--;
	}
	pthread_mutex_unlock(&set->lock);
	return newest;
}

/* ---- letting go of it ---- */

static bool
has_rest(const struct server *s, const struct loaded *l)
{
	const struct claims *c = &s->objects[l->object].claims;
	uint64_t first = l->chunk * s->img->g.pages;

	for (uint32_t i = l->next; l->damage.kind == ERR_NONE && i < s->img->g.pages; i++)
		if (entry_is_stored(&l->entry, i) && !claims_taken(c, first + i))
			return true;
	return false;
}

/* With the lock: a page that is wanted, or UINT32_MAX. */
static uint32_t
take_wanted(struct loaded *l)
{
	unsigned word = 0, bit;

	if (l->nwanted == 0)
		return UINT32_MAX;
	while (l->wanted[word] == 0)
		word++;
	bit = (unsigned)__builtin_ctzll(l->wanted[word]);
	l->wanted[word] &= l->wanted[word] - 1;
	l->nwanted--;
	return word * 64 + bit;
}

int
loaded_put(struct filler *f, struct loaded *l, struct err *e)
{
	struct server *s = f->server;
	bool rest = has_rest(s, l), kept = rest && recording(s);
	uint64_t since;
	uint32_t page;

	filler_count(f, l->reader, &l->counted);
	rest = rest && !kept;
	for (;;) {
		pthread_mutex_lock(&s->loaded.lock);
		page = take_wanted(l);
		since = l->wanted_since;
		if (page == UINT32_MAX) {
			l->state = rest ? LOADED_REST : kept ? LOADED_KEPT : LOADED_EMPTY;
			s->loaded.nrest += rest;
		}
		pthread_mutex_unlock(&s->loaded.lock);
		if (page == UINT32_MAX)
			break;
		if (fill_page(f, l, page, since, e) == -1)
			return -1;
	}
	if (rest && atomic_load(&s->loaded.sleeps) &&
	    atomic_exchange(&s->loaded.sleeps, false)) {
		sem_post(&s->loaded.wake);
		stat_add(&f->stats.crossings, 1);
	}
	return 0;
}

/* ---- the rests ---- */

static bool
any_rest(struct loaded_set *set)
{
	bool any;

	pthread_mutex_lock(&set->lock);
	any = set->nrest > 0;
	pthread_mutex_unlock(&set->lock);
	return any;
}

/* Whoever leaves a rest from then on wakes it. */
static void
sleep_long(struct loaded_set *set)
{
	atomic_store(&set->sleeps, true);
	if (any_rest(set) && atomic_exchange(&set->sleeps, false))
		return;
	/* A signal ends this, too. */
	sem_wait(&set->wake);
	atomic_store(&set->sleeps, false);
}

/* While faults come it looks by itself: to wake it costs them more than their answers. */
static void *
rest_main(void *arg)
{
	struct server *s = arg;
	struct err e = ERR_INIT;
	unsigned naps = 0;
	int rc = 0;

	(void)setpriority(PRIO_PROCESS, 0, NICE);
	while (rc != -1 && !atomic_load(&s->stop) && !atomic_load(&s->loaded.stop) &&
	       atomic_load(&s->state) != SERVER_FAILED) {
		rc = fill_pending(&s->rest_filler, &e);
		filler_account(&s->rest_filler);
		if (rc == 1) {
			naps = 0;
			crossing();
			sched_yield();
		} else if (++naps < NAPS) {
			thread_nap(NAP_US);
		} else {
			sleep_long(&s->loaded);
			naps = 0;
		}
	}
	if (rc == -1)
		server_fail(s, &e);
	return NULL;
}
