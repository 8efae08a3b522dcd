/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "serve/internal.h"

/*
 * Reading the userfaultfd of a process that made its handshake itself.
 *
 * It may tell of more than faults.  Who discards memory (a balloon) waits until its event was
 * read, and then the pages go: what is copied later would come back from the dead.  So events
 * are read by one thread at a time while nobody copies (the gate is shut), and what they
 * discard is marked before anybody copies again; whoever copies looks at the marks first.
 *
 * Faults come from the same descriptor, and before the events.  They go into a queue, from
 * which workers take one at a time.  While an event is unread nothing can be copied, so a
 * worker that finds that reads on, whatever it has to answer.
 *
 * Who discards all the time could keep everybody from copying.  Where nothing is left to be
 * given nobody needs to be told: discarded there, memory is let go of, and makes no more
 * events.  That splits mappings, of which a process may have so many (vm.max_map_count).
 *
 * Nothing is read before all memory is mapped: nobody could tell what was discarded.
 */
#define SLOT_BYTES 4096
#define QUEUE_MAX 1024u
#define READS_AT_ONCE 16 /* while the gate is shut */
#define LET_GO_MAX 1024u /* times that a process's memory is let go of */
#define LET_GO_PAGES 1024u /* around what was discarded, if they are given too */

struct queued {
	struct uffd_fault fault;
	uint64_t when; /* it was read */
};

struct events {
	pthread_rwlock_t gate;
	void *slot; /* shared: of messages that were read and maybe not applied */
	pthread_mutex_t turn; /* of the one worker that waits for messages */
	int kick; /* an eventfd: whoever waits is to look again */
	pthread_mutex_t lock; /* guards the queue */
	struct queued queue[QUEUE_MAX];
	size_t head, n;
	bool lost; /* faults that found no room: they have to come again */
	atomic_uint let_go; /* so often */
};

/* What is to be let go of, when the gate is open. */
struct leave {
	struct {
		uint64_t hva, len;
	} list[8];
	size_t n;
};

int
server_events_create(int *fd, struct err *e)
{
	*fd = memfd_create("gmem-events", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd != -1 && ftruncate(*fd, SLOT_BYTES) == 0 &&
	    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return 0;
	err_sys(e, "a buffer for messages");
	fd_close(fd);
	return -1;
}

/*
 * Where messages are read to has to be there: the kernel gives each away before it stores it,
 * and whoever is being killed gets no page any more.
 */
static int
open_slot(struct events *v, int fd, struct err *e)
{
	struct stat st;
	void *map;

	if (fd > 0 && (fstat(fd, &st) == -1 || st.st_size != SLOT_BYTES ||
			  (fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) == 0))
		return err_set(e, ERR_CORRUPT, "the descriptor is no buffer for messages");
	map = mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE,
	    MAP_POPULATE | (fd > 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
	    fd > 0 ? fd : -1, 0);
	if (map == MAP_FAILED)
		return err_sys(e, "a buffer for messages");
	v->slot = map;
	/* Without it hardly ever anything happens. */
	(void)mlock(map, SLOT_BYTES);
	return 0;
}

int
events_new(struct served_process *p, int fd, struct err *e)
{
	pthread_rwlockattr_t attr;
	struct events *v;

	v = calloc(1, sizeof(*v));
	if (v == NULL)
		return err_sys(e, "hand-off");
	/* Those who copy must not keep those out who read. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&v->gate, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&v->turn, NULL);
	pthread_mutex_init(&v->lock, NULL);
	p->events = v;
	v->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return v->kick == -1 ? err_sys(e, "hand-off") : open_slot(v, fd, e);
}

void
events_free(struct served_process *p)
{
	struct events *v = p->events;

	if (v == NULL)
		return;
	fd_close(&v->kick);
	if (v->slot != NULL)
		munmap(v->slot, SLOT_BYTES);
	pthread_rwlock_destroy(&v->gate);
	pthread_mutex_destroy(&v->turn);
	pthread_mutex_destroy(&v->lock);
	free(v);
	p->events = NULL;
}

void
events_kick(struct served_process *p)
{
	fd_poke(p->events->kick);
}

void
events_begin_copy(struct served_process *p)
{
	pthread_rwlock_rdlock(&p->events->gate);
}

void
events_end_copy(struct served_process *p)
{
	pthread_rwlock_unlock(&p->events->gate);
}

/* ---- the queue ---- */

static void
queue_put(struct events *v, const struct uffd_fault *fault)
{
	struct queued q = { *fault, serve_now() };

	pthread_mutex_lock(&v->lock);
	if (v->n == QUEUE_MAX)
		v->lost = true;
	else
		v->queue[(v->head + v->n++) % QUEUE_MAX] = q;
	pthread_mutex_unlock(&v->lock);
}

/* *again: faults were lost, and there is room for them now. */
static bool
queue_take(struct events *v, struct queued *q, bool *again)
{
	bool any;

	pthread_mutex_lock(&v->lock);
	any = v->n > 0;
	if (any) {
		*q = v->queue[v->head];
		v->head = (v->head + 1) % QUEUE_MAX;
		v->n--;
	}
	*again = v->lost && v->n == 0;
	if (*again)
		v->lost = false;
	pthread_mutex_unlock(&v->lock);
	return any;
}

bool
events_waiting(struct served_process *p)
{
	struct events *v = p->events;
	bool any;

	pthread_mutex_lock(&v->lock);
	any = v->n > 0;
	pthread_mutex_unlock(&v->lock);
	return any;
}

/* Whoever still waits asks again. */
static int
wake_all(struct served_process *p, struct err *e)
{
	const struct mapping_table *t = atomic_load(&p->server->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++)
		if (t->list[i].process == p->id &&
		    uffd_wake(p->uffd, t->list[i].hva, t->list[i].len, e) == UFFD_FAILED)
			return -1;
	return 0;
}

/* ---- reading ---- */

/* Pages [first, end) of the mapping are discarded and were given: so are some around them. */
static void
plan_to_leave(const struct served_object *o, const struct mapping *m, uint64_t first,
    uint64_t end, struct leave *leave)
{
	const struct claims *c = &o->claims;
	uint64_t low = m->offset / o->page_size, high = (m->offset + m->len) / o->page_size;

	if (leave->n == sizeof(leave->list) / sizeof(leave->list[0]))
		return;
	for (unsigned i = 0; i < LET_GO_PAGES && first > low && claims_given(c, first - 1); i++)
		first--;
	for (unsigned i = 0; i < LET_GO_PAGES && end < high && claims_given(c, end); i++)
		end++;
	leave->list[leave->n].hva = m->hva + (first * o->page_size - m->offset);
	leave->list[leave->n++].len = (end - first) * o->page_size;
}

static void
remove_from(struct served_object *o, const struct mapping *m, uint64_t from, uint64_t to,
    struct leave *leave)
{
	/* Whole pages only: nobody can discard less. */
	uint64_t first = div_up(from, o->page_size), end = to / o->page_size, page = first;

	while (page < end && claims_given(&o->claims, page))
		page++;
	if (page < end)
		claims_remove(&o->claims, page, end);
	else if (first < end)
		plan_to_leave(o, m, first, end, leave);
}

static void
remove_pages(struct served_process *p, uint64_t start, uint64_t end, struct leave *leave)
{
	struct server *s = p->server;
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];
		struct served_object *o = &s->objects[m->object];
		uint64_t from = MAX(start, m->hva), to = MIN(end, m->hva + m->len);

		if (m->process == p->id && from < to)
			remove_from(
			    o, m, from - m->hva + m->offset, to - m->hva + m->offset, leave);
	}
}

static void
let_go(struct served_process *p, const struct leave *leave)
{
	struct err e;

	/* What the VMM has unmapped meanwhile cannot be unregistered, and need not. */
	for (size_t i = 0; i < leave->n; i++)
		if (atomic_fetch_add(&p->events->let_go, 1) < LET_GO_MAX &&
		    uffd_unregister(p->uffd, leave->list[i].hva, leave->list[i].len, &e) == -1)
			log_debug("%s", e.msg);
}

/* With the gate shut. */
static int
apply(struct served_process *p, const struct uffd_event *ev, struct leave *leave, struct err *e)
{
	switch (ev->kind) {
	case UFFD_EV_FAULT:
		queue_put(p->events, &ev->fault);
		return 0;
	case UFFD_EV_REMOVE:
	case UFFD_EV_UNMAP: /* Its pages are as good as discarded. */
		remove_pages(p, ev->start, ev->end, leave);
		return 0;
	case UFFD_EV_OTHER:
		break;
	}
	return err_set(e, ERR_UNSUPPORTED, "the VMM %s, which cannot be served", ev->name);
}

/* Reads what there is: of those who never stop to discard, something. */
static int
read_events(struct served_process *p, struct err *e)
{
	struct uffd_event list[UFFD_EVENTS_MAX];
	struct leave leave = { .n = 0 };
	int n = UFFD_EVENTS_MAX, rc = 0;

	pthread_rwlock_wrlock(&p->events->gate);
	for (int reads = 0; reads < READS_AT_ONCE && n == UFFD_EVENTS_MAX && rc == 0; reads++) {
		n = uffd_read_events(p->uffd, p->events->slot, list, e);
		for (int i = 0; i < n && rc == 0; i++)
			rc = apply(p, &list[i], &leave, e);
		if (n == -1)
			rc = -1;
	}
	pthread_rwlock_unlock(&p->events->gate);
	if (leave.n > 0 && atomic_load(&p->events->let_go) < LET_GO_MAX)
		let_go(p, &leave);
	return rc;
}

/*
 * Doing it twice does no harm: discarded pages are given, and nobody copies those.  Who has
 * faulted is woken, and asks again.
 */
int
events_recover(struct served_process *p, struct err *e)
{
	struct uffd_event list[UFFD_EVENTS_MAX];
	struct leave leave = { .n = 0 };
	int n, rc = 0;

	pthread_rwlock_wrlock(&p->events->gate);
	n = uffd_slot_events(p->events->slot, list);
	for (int i = 0; i < n && rc == 0; i++)
		if (list[i].kind != UFFD_EV_FAULT)
			rc = apply(p, &list[i], &leave, e);
	pthread_rwlock_unlock(&p->events->gate);
	return rc;
}

int
events_yield(const struct filler *f, struct served_process *p, unsigned *tries, struct err *e)
{
	struct server *s = f->server;

	if (atomic_load(&s->stop) || atomic_load(&s->state) == SERVER_FAILED)
		return err_set(e, ERR_FAILED, "the page server has stopped");
	if (f->process == p) {
		if (read_events(p, e) == -1)
			return -1;
		/* Other workers may have nothing to do. */
		if (events_waiting(p))
			events_kick(p);
	}
	/* Who has been told to go on has to get as far as to say so to the kernel. */
	if (++*tries < (f->process == p ? 64u : 8u))
		sched_yield();
	else
		thread_nap(20);
	return 0;
}

/* ---- faults ---- */

static bool
readable(struct served_process *p, int timeout_ms)
{
	bool mapped = atomic_load(&p->server->mapped);
	struct err unused;
	struct pollfd fds[] = { { .fd = mapped ? p->uffd : -1, .events = POLLIN },
		{ .fd = timeout_ms == 0 ? -1 : p->events->kick, .events = POLLIN } };

	if (poll(fds, 2, timeout_ms) < 1)
		return false;
	/* Read, unless all are to end: then the next one has to see it too. */
	if (fds[1].revents != 0 && !atomic_load(&p->stop) && !fd_poked(p->events->kick))
		return false;
	/* So poll(2) says that it blocks, and nothing else. */
	if ((fds[0].revents & POLLERR) != 0 && uffd_unblock(p->uffd, &unused) == 0)
		return false;
	return fds[0].revents != 0;
}

static int
take_queued(struct filler *f, struct err *e)
{
	struct served_process *p = f->process;
	struct queued q;
	bool again;

	f->at = 0;
	f->n = queue_take(p->events, &q, &again);
	if (f->n == 1) {
		f->queue[0] = q.fault;
		f->began = q.when;
	}
	return again ? wake_all(p, e) : 0;
}

int
events_wait(struct filler *f, struct err *e)
{
	struct served_process *p = f->process;
	int rc;

	pthread_mutex_lock(&p->events->turn);
	while ((rc = take_queued(f, e)) == 0 && f->n == 0 && !atomic_load(&p->stop))
		if (readable(p, -1) && (rc = read_events(p, e)) == -1)
			break;
	pthread_mutex_unlock(&p->events->turn);
	return rc == -1 ? -1 : f->n;
}
