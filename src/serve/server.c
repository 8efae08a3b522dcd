/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/server.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/pool.h"
#include "serve/internal.h"

/* Takes a blocked read(2) out of the kernel; the handler has nothing to do. */
#define WAKE_SIGNAL SIGURG

static void
on_wake(int sig)
{
	(void)sig;
}

static void
server_announce(struct server *s)
{
	uint64_t one = 1;

	/* An eventfd takes this, or is readable already. */
	if (write(s->event_fd, &one, sizeof(one)) == -1)
		return;
}

void
server_complete(struct server *s)
{
	int filling = SERVER_FILLING;

	atomic_store(&s->complete, serve_now());
	/* A failure stays one. */
	atomic_compare_exchange_strong(&s->state, &filling, SERVER_COMPLETE);
	server_announce(s);
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

int
server_event_fd(const struct server *s)
{
	return s->event_fd;
}

int
server_new(struct server **out, const struct image *img, const struct server_options *options,
    struct err *e)
{
	struct sigaction sa = { .sa_handler = on_wake };
	struct server *s;

	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return err_sys(e, "page server");
	s->img = img;
	s->options = *options;
	if (s->options.nworkers == 0)
		s->options.nworkers = pool_ncpus();
	s->options.nworkers = MIN(s->options.nworkers, FAULT_WORKERS_MAX);
	s->event_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->asked_lock, NULL);
	pthread_mutex_init(&s->fail_lock, NULL);
	s->nobjects = img->manifest.nregions;
	s->objects = calloc(s->nobjects + 1, sizeof(*s->objects));
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->objects == NULL || s->event_fd == -1) {
		err_sys(e, "page server");
		server_free(s);
		return -1;
	}
	sigemptyset(&sa.sa_mask);
	sigaction(WAKE_SIGNAL, &sa, NULL);
	*out = s;
	return 0;
}

/* ---- memory ---- */

/* Tells what the memory cannot do, where that stands in the way of serving it lazily. */
static int
check_lazy(const struct served_object *o, bool slots, const struct err *why, struct err *e)
{
	if (why->kind != ERR_NONE)
		return err_set(e, ERR_UNSUPPORTED, "userfaultfd does not work on %s: %s",
		    o->guest_memfd ? "this kernel's guest_memfd" : "this memory", why->msg);
	if (slots && o->bitmap == NULL)
		return err_set(e, ERR_UNSUPPORTED,
		    "the vCPUs reach it past any mapping, and there is no bitmap of KVM "
		    "userfault to stop them");
	return 0;
}

/* The lazy engine that fits; write(2) was tried. */
static enum serve_engine
lazy_engine(const struct served_object *o)
{
	if (o->bitmap != NULL)
		return SERVE_USERFAULT;
	return o->writes ? SERVE_CONTINUE : SERVE_MAP_CONTINUE;
}

static int
wrong_engine(const struct served_object *o, enum serve_engine wanted, enum serve_engine fits,
    struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, "%s: engine %s does not fit this memory, %s does",
	    o->object->name, serve_engine_name(wanted), serve_engine_name(fits));
}

static int
choose_engine(
    struct server *s, struct served_object *o, bool slots, const struct err *why, struct err *e)
{
	enum serve_engine wanted = s->options.engine;
	struct err obstacle = ERR_INIT;

	o->engine = SERVE_EAGER;
	if (wanted == SERVE_EAGER)
		return 0;
	if (o->source && (wanted == SERVE_AUTO || wanted == SERVE_SOURCE)) {
		o->engine = SERVE_SOURCE;
		return 0;
	}
	if (o->source)
		return wrong_engine(o, wanted, SERVE_SOURCE, e);
	if (wanted == SERVE_COPY || wanted == SERVE_SOURCE)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s: engine %s is for VMMs %s; leave it out, or use auto", o->object->name,
		    serve_engine_name(wanted),
		    wanted == SERVE_COPY ? "whose memory is their own" : "that ask for pages");
	if (check_lazy(o, slots, why, &obstacle) == 0)
		o->engine = lazy_engine(o);
	if (wanted == SERVE_AUTO) {
		if (o->engine == SERVE_EAGER)
			log_warn("%s: %s; so all of it is filled before the VM runs",
			    o->object->name, obstacle.msg);
		return 0;
	}
	/* What can be written can be mapped too. */
	if (wanted == SERVE_MAP_CONTINUE && o->engine == SERVE_CONTINUE) {
		o->engine = wanted;
		return object_map(o, e);
	}
	if (o->engine == wanted)
		return 0;
	if (obstacle.kind != ERR_NONE)
		return err_set(e, ERR_UNSUPPORTED, "%s: engine %s: %s; --engine eager works",
		    o->object->name, serve_engine_name(wanted), obstacle.msg);
	return wrong_engine(o, wanted, o->engine, e);
}

/* Whether write(2) works is found out by the first page that has to be written anyway. */
static int
write_first(struct server *s, size_t index, struct err *e)
{
	struct filler f;
	int rc;

	if (s->objects[index].page_size > PAGE_GRANULE)
		return 0;
	rc = filler_init(&f, s, false, -1, e);
	if (rc == 0)
		rc = fill_first(&f, index, e);
	filler_account(&f);
	pthread_mutex_lock(&s->lock);
	serve_stats_merge(&s->past, &f.stats);
	pthread_mutex_unlock(&s->lock);
	filler_fini(&f);
	return rc;
}

/* The same bytes cannot be two regions. */
static int
check_overlap(const struct server *s, const struct served_object *o, struct err *e)
{
	for (size_t i = 0; i < s->nobjects; i++) {
		const struct served_object *other = &s->objects[i];

		if (other != o && other->object != NULL && object_overlaps(o, other))
			return err_set(e, ERR_FAILED, "%s: lies in the memory of %s",
			    o->object->name, other->object->name);
	}
	return 0;
}

static int
fill_now(struct server *s, size_t index, struct err *e)
{
	return fill_eagerly(
	    s, index, s->options.nfillers != 0 ? s->options.nfillers : pool_ncpus(), e);
}

static int
take_memory(struct server *s, size_t index, const struct served_memory *m, struct err *e)
{
	struct served_object *o = &s->objects[index];
	const struct object *object = &s->img->manifest.regions[index];
	struct err why = ERR_INIT;

	if (object_open(o, object, m, &why, e) == -1 || check_overlap(s, o, e) == -1 ||
	    write_first(s, index, e) == -1 || choose_engine(s, o, m->slots, &why, e) == -1)
		return -1;
	log_info("%s: engine %s", object->name, serve_engine_name(o->engine));
	if (o->engine != SERVE_EAGER)
		return 0;
	if (fill_now(s, index, e) == -1)
		return -1;
	object_complete(o);
	return 0;
}

static int
take_foreign(struct server *s, size_t index, uint64_t page_size, struct err *e)
{
	struct served_object *o = &s->objects[index];
	enum serve_engine wanted = s->options.engine;

	if (object_open_foreign(o, &s->img->manifest.regions[index], page_size, e) == -1)
		return -1;
	if (wanted != SERVE_AUTO && wanted != SERVE_COPY && wanted != SERVE_EAGER)
		return wrong_engine(o, wanted, SERVE_COPY, e);
	log_info("%s: engine %s", o->object->name, serve_engine_name(o->engine));
	return 0;
}

static bool
all_complete(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (!server_is_complete(s, i))
			return false;
	return true;
}

/* With s->lock: the last region has its memory. */
static int
begin(struct server *s, struct err *e)
{
	if (all_complete(s)) {
		server_complete(s);
		return 0;
	}
	if (!s->background_wanted || s->background_started)
		return 0;
	if (filler_init(&s->background_filler, s, false, -1, e) == -1 ||
	    thread_start(&s->background, background_main, s, e) == -1)
		return -1;
	s->background_started = true;
	return 0;
}

static int
check_new(const struct server *s, size_t index, struct err *e)
{
	if (index < s->nobjects && s->objects[index].object == NULL)
		return 0;
	return err_set(e, ERR_CORRUPT, "hand-off: memory number %zu %s", index,
	    index < s->nobjects ? "came twice" : "is not in the image");
}

/* Region `index` has its memory, if rc is 0. */
static int
added(struct server *s, size_t index, int rc, struct err *e)
{
	if (rc == -1) {
		object_fini(&s->objects[index]);
		return -1;
	}
	pthread_mutex_lock(&s->lock);
	if (++s->nready == s->nobjects)
		rc = begin(s, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int
server_add_memory(
    struct server *s, size_t index, const struct served_memory *memory, struct err *e)
{
	if (check_new(s, index, e) == -1)
		return -1;
	return added(s, index, take_memory(s, index, memory, e), e);
}

int
server_add_foreign(struct server *s, size_t index, uint64_t page_size, struct err *e)
{
	if (check_new(s, index, e) == -1)
		return -1;
	return added(s, index, take_foreign(s, index, page_size, e), e);
}

bool
server_has_memory(const struct server *s)
{
	return atomic_load(&s->nready) == s->nobjects;
}

bool
server_is_complete(const struct server *s, size_t index)
{
	return atomic_load(&s->objects[index].complete);
}

enum serve_engine
server_engine(const struct server *s, size_t index)
{
	return s->objects[index].engine;
}

/* ---- mappings ---- */

const struct mapping *
mapping_find(const struct server *s, unsigned process, uint64_t hva)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->process == process && hva - m->hva < m->len)
			return m;
	}
	return NULL;
}

/*
 * Makes a table without what [hva, hva + len) of the process was, with `extra`
 * more places.  A mapping that loses its middle becomes two.
 */
static struct mapping_table *
table_without(
    const struct server *s, unsigned process, uint64_t hva, uint64_t len, size_t extra)
{
	struct mapping_table *old = atomic_load(&s->mappings), *t;
	size_t n = old != NULL ? old->n : 0;

	t = calloc(1, sizeof(*t) + (2 * n + extra) * sizeof(t->list[0]));
	if (t == NULL)
		return NULL;
	t->older = old;
	for (size_t i = 0; i < n; i++) {
		struct mapping m = old->list[i], right = m;
		uint64_t end = m.hva + m.len;

		if (m.process != process || hva >= end || hva + len <= m.hva) {
			t->list[t->n++] = m;
			continue;
		}
		if (hva > m.hva) {
			m.len = hva - m.hva;
			t->list[t->n++] = m;
		}
		if (hva + len < end) {
			right.hva = hva + len;
			right.len = end - right.hva;
			right.offset += right.hva - m.hva;
			t->list[t->n++] = right;
		}
	}
	return t;
}

/* Memory of a VMM's own is one process's, each part has one place, and nothing else is there.
 */
static int
check_foreign(const struct server *s, const struct mapping *new, struct err *e)
{
	const struct served_object *o = &s->objects[new->object];
	const struct mapping_table *t = atomic_load(&s->mappings);
	bool adopted = s->processes[new->process]->events != NULL;

	if (o->engine == SERVE_SOURCE || o->source)
		return err_set(e, ERR_CORRUPT, "hand-off: %s is for a VMM that asks for pages",
		    o->object->name);
	if ((o->engine == SERVE_COPY) != adopted ||
	    (adopted && o->mapped != 0 && o->process != new->process))
		return err_set(
		    e, ERR_CORRUPT, "hand-off: %s is not that process's", o->object->name);
	for (size_t i = 0; adopted && t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->object == new->object &&
		    m->offset < new->offset + new->len &&new->offset < m->offset + m->len)
			return err_set(e, ERR_CORRUPT,
			    "hand-off: the part at %#llx of %s is mapped twice",
			    (unsigned long long)MAX(m->offset, new->offset), o->object->name);
		if (m->process == new->process &&
		    m->hva < new->hva + new->len &&new->hva < m->hva + m->len)
			return err_set(e, ERR_CORRUPT, "hand-off: two mappings at %#llx",
			    (unsigned long long)MAX(m->hva, new->hva));
	}
	return 0;
}

static bool
foreign_mapped(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY &&
		    s->objects[i].mapped != object_length(&s->objects[i]))
			return false;
	return true;
}

/* What was discarded before it was known where would be lost: so nobody has read until now. */
static void
begin_copying(struct server *s)
{
	atomic_store(&s->mapped, true);
	for (unsigned i = 0; i < s->nprocesses; i++)
		if (s->processes[i]->events != NULL)
			events_kick(s->processes[i]);
}

/* With s->lock. */
static int
add_mapping(struct server *s, const struct mapping *new, struct err *e)
{
	struct served_object *o = &s->objects[new->object];
	struct mapping_table *t;

	if (check_foreign(s, new, e) == -1)
		return -1;
	if (server_is_complete(s, new->object) || atomic_load(&s->state) == SERVER_COMPLETE)
		return 0;
	t = table_without(s, new->process, new->hva, new->len, 1);
	if (t == NULL)
		return err_sys(e, "hand-off");
	t->list[t->n++] = *new;
	/* Known before the first fault can come. */
	atomic_store(&s->mappings, t);
	if (o->engine != SERVE_COPY)
		return uffd_register(s->processes[new->process]->uffd, new->hva, new->len, e);
	o->process = new->process;
	o->mapped += new->len;
	if (foreign_mapped(s))
		begin_copying(s);
	return 0;
}

/* Eagerly: with the mapping that was the last to come. */
static int
fill_foreign(struct server *s, struct err *e)
{
	if (s->options.engine != SERVE_EAGER || !atomic_load(&s->mapped) ||
	    atomic_load(&s->filled))
		return 0;
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY && fill_now(s, i, e) == -1)
			return -1;
	atomic_store(&s->filled, true);
	return 0;
}

int
server_add_mapping(struct server *s, unsigned process, uint64_t hva, uint64_t len,
    size_t object, uint64_t offset, struct err *e)
{
	const struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	const struct mapping new = { process, hva, len, object, offset };
	uint64_t end, size, unused = 0;
	int rc;

	if (o == NULL || o->object == NULL)
		return err_set(
		    e, ERR_CORRUPT, "hand-off: there is no memory number %zu", object);
	size = object_length(o);
	if (ckd_add(&end, offset, len) || end > size || len == 0 ||
	    ckd_add(&unused, hva, len) || ((hva | len | offset) & (o->page_size - 1)) != 0)
		return err_set(e, ERR_CORRUPT,
		    "hand-off: %llu bytes at %#llx, offset %#llx, do not fit %s of %llu bytes",
		    (unsigned long long)len, (unsigned long long)hva,
		    (unsigned long long)offset, o->object->name, (unsigned long long)size);
	pthread_mutex_lock(&s->lock);
	rc = add_mapping(s, &new, e);
	if (atomic_load(&s->first_mapping) == 0)
		atomic_store(&s->first_mapping, serve_now());
	pthread_mutex_unlock(&s->lock);
	return rc == -1 ? -1 : fill_foreign(s, e);
}

static bool
is_mapped(const struct server *s, unsigned process, uint64_t hva, uint64_t len)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->process == process && hva < m->hva + m->len && m->hva < hva + len)
			return true;
	}
	return false;
}

void
server_remove_mapping(struct server *s, unsigned process, uint64_t hva, uint64_t len)
{
	struct mapping_table *t = NULL;

	pthread_mutex_lock(&s->lock);
	/* Old tables are kept: no new one for nothing. */
	if (is_mapped(s, process, hva, len) && atomic_load(&s->state) != SERVER_COMPLETE)
		t = table_without(s, process, hva, len, 0);
	if (t != NULL)
		atomic_store(&s->mappings, t);
	/* Without memory the entry stays: its ioctls say ENOENT then. */
	pthread_mutex_unlock(&s->lock);
}

bool
server_has_mappings(const struct server *s)
{
	return atomic_load(&s->first_mapping) != 0;
}

bool
server_covers(const struct server *s, unsigned process, uint64_t hva, uint64_t len)
{
	uint64_t end = hva + len;

	while (hva < end && atomic_load(&s->state) != SERVER_COMPLETE) {
		const struct mapping *m = mapping_find(s, process, hva);

		if (m == NULL)
			return false;
		hva = m->hva + m->len;
	}
	return true;
}

/* ---- faults ---- */

static int
answer(struct worker *w, const struct uffd_fault *fault, struct err *e)
{
	struct server *s = w->filler.server;
	const struct mapping *m = mapping_find(s, w->process->id, fault->hva);
	enum uffd_result r;

	if (fault->write)
		stat_add(&w->filler.stats.faults_write, 1);
	if (m == NULL) {
		/* Unmapped meanwhile, or all is complete: the access is to be tried again. */
		stat_add(&w->filler.stats.faults_outside, 1);
		if (w->filler.process != NULL && !atomic_load(&w->process->dead))
			return err_set(e, ERR_CORRUPT,
			    "hand-off: the VMM waits for memory at %#llx, which it has not "
			    "handed "
			    "over",
			    (unsigned long long)fault->hva);
		r = uffd_wake(
		    w->process->uffd, align_down(fault->hva, PAGE_GRANULE), PAGE_GRANULE, e);
		return r == UFFD_FAILED ? -1 : 0;
	}
	return fill_fault(&w->filler, m,
	    align_down(fault->hva - m->hva + m->offset, s->objects[m->object].page_size), e);
}

/* Whether more faults wait by now, without waiting for one; they are in the queue then. */
static int
more_faults(struct filler *f, struct err *e)
{
	/* Where the thread that was just woken shares our CPU: its next fault may be the one.
	 */
	sched_yield();
	if (f->process != NULL)
		return events_take(f, e) == -1 ? -1 : 0;
	f->at = 0;
	f->n = uffd_peek(f->uffd, f->queue, FAULTS_AT_ONCE, e);
	f->began = serve_now();
	return f->n == -1 ? -1 : 0;
}

/*
 * Answers what is in the queue, and what comes in meanwhile.  No fault waits for
 * pages that nobody has asked for: the rests of chunks come when none waits.
 */
static int
answer_queue(struct worker *w, struct err *e)
{
	struct filler *f = &w->filler;
	int rest = 1;

	while (rest == 1) {
		while (f->at < f->n) {
			struct uffd_fault fault = f->queue[f->at++];

			if (answer(w, &fault, e) == -1)
				return -1;
			if (f->at == f->n && more_faults(f, e) == -1)
				return -1;
		}
		rest = fill_pending(f, e);
		if (rest == 1 && more_faults(f, e) == -1)
			return -1;
	}
	return rest;
}

static int
handle_faults(struct worker *w, struct err *e)
{
	struct filler *f = &w->filler;
	struct server *s = f->server;
	int rc;

	if (f->process == NULL)
		f->began = serve_now();
	if (atomic_load_explicit(&s->first_fault, memory_order_relaxed) == 0)
		atomic_store(&s->first_fault, f->began);
	atomic_fetch_add(&s->busy, 1);
	rc = answer_queue(w, e);
	filler_account(f);
	atomic_fetch_sub(&s->busy, 1);
	return rc;
}

/* Faults into the queue, waiting for the first: their number, 0 to look around, -1. */
static int
await_faults(struct filler *f, struct err *e)
{
	if (f->process != NULL)
		return events_wait(f, e);
	f->at = 0;
	f->n = uffd_read(f->uffd, f->queue, FAULTS_AT_ONCE, e);
	return f->n;
}

static void *
worker_main(void *arg)
{
	struct worker *w = arg;
	struct filler *f = &w->filler;
	struct err e = ERR_INIT;

	while (!atomic_load(&w->process->stop)) {
		f->n = await_faults(f, &e);
		if (f->n == -1 || (f->n > 0 && handle_faults(w, &e) == -1)) {
			server_fail(f->server, &e);
			break;
		}
	}
	return NULL;
}

/* Threads of the server take no signal but the one that wakes them. */
int
thread_start(pthread_t *thread, void *(*run)(void *), void *arg, struct err *e)
{
	sigset_t mask, old;

	sigfillset(&mask);
	sigdelset(&mask, WAKE_SIGNAL);
	sigdelset(&mask, SIGBUS); /* it comes from what the thread itself does */
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	errno = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return errno != 0 ? err_sys(e, "start a thread") : 0;
}

/* The signal may come just before the thread blocks: it is sent until the thread is gone. */
static void
thread_stop(pthread_t thread)
{
	for (;;) {
		struct timespec until;

		pthread_kill(thread, WAKE_SIGNAL);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		if (pthread_timedjoin_np(thread, NULL, &until) == 0)
			return;
	}
}

static void
worker_stop(struct server *s, struct worker *w)
{
	if (w->started)
		thread_stop(w->thread);
	w->started = false;
	serve_stats_merge(&s->past, &w->filler.stats);
	filler_fini(&w->filler);
	w->filler = (struct filler){ 0 };
}

static void
process_stop(struct server *s, struct served_process *p)
{
	atomic_store(&p->stop, true);
	if (p->events != NULL)
		events_kick(p);
	for (unsigned i = 0; i < p->nworkers; i++)
		worker_stop(s, &p->workers[i]);
	p->nworkers = 0;
}

static int
process_start(struct server *s, struct served_process *p, struct err *e)
{
	for (unsigned i = 0; i < s->options.nworkers; i++) {
		struct worker *w = &p->workers[i];

		w->process = p;
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

static int
add_process(struct server *s, int uffd, bool adopt, unsigned *id, struct err *e)
{
	struct served_process *p;
	uint64_t features;
	int rc;

	p = calloc(1, sizeof(*p));
	if (p == NULL) {
		err_sys(e, "hand-off");
		fd_close(&uffd);
		return -1;
	}
	p->server = s;
	p->uffd = uffd;
	if (adopt ? uffd_adopt(uffd, e) == -1 || events_new(p, e) == -1
		  : uffd_handshake(uffd, &features, e) == -1)
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
	fd_close(&p->uffd);
	free(p);
	return -1;
}

int
server_add_process(struct server *s, int uffd, unsigned *id, struct err *e)
{
	return add_process(s, uffd, false, id, e);
}

int
server_adopt_process(struct server *s, int uffd, unsigned *id, struct err *e)
{
	return add_process(s, uffd, true, id, e);
}

void
server_remove_process(struct server *s, unsigned process)
{
	struct served_process *p = s->processes[process];

	atomic_store(&p->dead, true);
	server_remove_mapping(s, process, 0, UINT64_MAX);
	pthread_mutex_lock(&s->lock);
	process_stop(s, p);
	pthread_mutex_unlock(&s->lock);
}

/* ---- vCPUs ---- */

int
asked_filler_init(struct server *s, struct err *e)
{
	int rc;

	if (s->asked_filler.reader != NULL)
		return 0;
	/* Somebody may be adding up what fillers did. */
	pthread_mutex_lock(&s->lock);
	rc = filler_init(&s->asked_filler, s, true, -1, e);
	pthread_mutex_unlock(&s->lock);
	if (rc == -1)
		filler_fini(&s->asked_filler);
	return rc;
}

int
server_fault(struct server *s, size_t object, uint64_t offset, struct err *e)
{
	struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	int rc;

	if (o == NULL || !server_has_memory(s) || offset >= o->object->size)
		return err_set(e, ERR_CORRUPT,
		    "hand-off: there is no page at %llu of memory %zu",
		    (unsigned long long)offset, object);
	if (o->engine != SERVE_USERFAULT)
		return 0;
	pthread_mutex_lock(&s->asked_lock);
	rc = asked_filler_init(s, e);
	if (rc == 0)
		rc = fill_vcpu(&s->asked_filler, object, align_down(offset, o->page_size), e);
	pthread_mutex_unlock(&s->asked_lock);
	return rc;
}

int
server_fault_rest(struct server *s, struct err *e)
{
	int rc = 0;

	pthread_mutex_lock(&s->asked_lock);
	if (s->asked_filler.reader != NULL) {
		rc = fill_pending(&s->asked_filler, e);
		filler_account(&s->asked_filler);
	}
	pthread_mutex_unlock(&s->asked_lock);
	return rc;
}

/* ---- discarded pages ---- */

static void
take_away(struct server *s, struct served_object *o, uint64_t first, uint64_t end)
{
	const struct timespec nap = { .tv_nsec = 50000 };

	for (uint64_t page = first; page < end; page++)
		if (claims_take(&o->claims, page))
			object_give(o, page);
	/* Somebody may be writing one of them just now. */
	for (uint64_t page = first; page < end; page++)
		while (
		    !claims_given(&o->claims, page) && atomic_load(&s->state) == SERVER_FILLING)
			nanosleep(&nap, NULL);
}

/* Whoever asked for a page while it was being taken away waits for nobody: asks again. */
static int
wake_everywhere(struct server *s, size_t object, uint64_t off, uint64_t end, struct err *e)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];
		uint64_t from = MAX(off, m->offset), to = MIN(end, m->offset + m->len);

		if (m->object == object && from < to &&
		    uffd_wake(s->processes[m->process]->uffd, m->hva + (from - m->offset),
			to - from, e) == UFFD_FAILED)
			return -1;
	}
	return 0;
}

int
server_discard(struct server *s, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	uint64_t end, size;

	if (o == NULL || o->object == NULL || ckd_add(&end, offset, len))
		return err_set(
		    e, ERR_CORRUPT, "hand-off: there is no memory number %zu", object);
	size = o->claims.npages * o->page_size;
	end = MIN(end, size);
	if (offset >= end || atomic_load(&s->state) == SERVER_COMPLETE)
		return 0;
	/* The other part of a page would have to be there first. */
	if (((offset | end) & (o->page_size - 1)) != 0)
		return err_set(e, ERR_FAILED,
		    "the VMM discards a part of a page: %llu bytes at %#llx of %s; use --eager",
		    (unsigned long long)len, (unsigned long long)offset, o->object->name);
	take_away(s, o, offset / o->page_size, end / o->page_size);
	if (atomic_load(&s->state) == SERVER_FAILED)
		return err_set(e, ERR_FAILED, "the page server has stopped");
	return wake_everywhere(s, object, offset, end, e);
}

/* ---- start and end ---- */

int
server_start(struct server *s, struct err *e)
{
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	s->background_wanted = s->options.background;
	if (s->nready == s->nobjects && atomic_load(&s->state) == SERVER_FILLING)
		rc = begin(s, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void
server_stop(struct server *s)
{
	if (s != NULL)
		atomic_store(&s->stop, true);
}

void
server_stats(struct server *s, struct serve_stats *stats, struct server_times *times)
{
	memset(stats, 0, sizeof(*stats));
	pthread_mutex_lock(&s->lock);
	serve_stats_merge(stats, &s->past);
	for (unsigned i = 0; i < s->nprocesses; i++)
		for (unsigned k = 0; k < s->processes[i]->nworkers; k++)
			serve_stats_merge(stats, &s->processes[i]->workers[k].filler.stats);
	serve_stats_merge(stats, &s->background_filler.stats);
	serve_stats_merge(stats, &s->asked_filler.stats);
	pthread_mutex_unlock(&s->lock);
	times->first_mapping = atomic_load(&s->first_mapping);
	times->first_fault = atomic_load(&s->first_fault);
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
	if (s->background_started)
		thread_stop(s->background);
	filler_fini(&s->background_filler);
	filler_fini(&s->asked_filler);
	for (unsigned i = 0; i < s->nprocesses; i++) {
		process_stop(s, s->processes[i]);
		fd_close(&s->processes[i]->uffd);
		events_free(s->processes[i]);
		free(s->processes[i]);
	}
	free_mappings(s);
	free_objects(s);
	fd_close(&s->event_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->asked_lock);
	pthread_mutex_destroy(&s->fail_lock);
	free(s);
}
