/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_INTERNAL_H
#define GMEM_SERVE_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "image/reader.h"
#include "serve/object.h"
#include "serve/record.h"
#include "serve/server.h"
#include "serve/uffd.h"

/*
 * What the files of the page server share.
 *
 * Lock order: server.asked_lock, server.lock, server.fail_lock or server.stats_lock; none is
 * taken where userfaultfd's faults are answered, nor with the gate of events.c; there only
 * loaded_set.lock is, the last of all.  Tables that
 * faults read (mappings) are never changed: a new one replaces them, the old one stays until
 * the server is freed.
 */
#define PROCESSES_MAX 256u
#define FAULT_WORKERS_MAX 4u
#define FAULTS_AT_ONCE 16

struct mapping {
	unsigned process;
	uint64_t hva, len;
	size_t object;
	uint64_t offset;
};

struct mapping_table {
	struct mapping_table *older;
	size_t room;
	atomic_size_t n; /* it may grow, by mappings where there was none */
	struct mapping list[];
};

/*
 * A chunk that was decoded for a fault.  The page that was asked for is given at once; the
 * rest is, when somebody has the time.  See loaded.c.
 */
struct loaded {
	struct image_reader *reader; /* owned */
	enum {
		LOADED_EMPTY,
		LOADED_KEPT, /* there is a rest that nobody is to give: touches are recorded */
		LOADED_REST, /* there may be a rest, and nobody is at it */
		LOADED_BUSY, /* whoever has it answers for what is wanted of it, too */
		LOADED_RESTING, /* busy with what nobody has asked for: nothing is wanted of it
				 */
	} state;
	size_t object;
	uint64_t chunk;
	struct entry entry;
	uint32_t next; /* the rest begins at this page */
	struct err damage; /* why its record cannot be read; ERR_NONE: it is loaded */
	uint64_t when; /* counts up: the newest comes first, the oldest is dropped */
	uint64_t wanted[CHUNK_PAGES_MAX / 64]; /* pages that others have taken and ask for */
	unsigned nwanted;
	uint64_t wanted_since; /* the first of these */
	struct image_reader_stats counted; /* of the reader's, in some filler's statistics */
};

#define LOADED_MAX 16u
#define LOADED_BYTES (1u << 20) /* of chunks that are kept while nobody is at them, or one */
#define LOADED_DROPPED 256u

struct loaded_set {
	pthread_mutex_t lock; /* held for a look around, never longer */
	struct loaded **list;
	unsigned n;
	unsigned nrest; /* in that state */
	uint64_t loads;
	/* Chunks that were dropped with a rest, and asked for again go through at once. */
	struct {
		size_t object; /* + 1 */
		uint64_t chunk;
	} dropped[LOADED_DROPPED];
	/* Who gives the rests. */
	pthread_t thread;
	bool started;
	atomic_bool stop, sleeps;
	sem_t wake;
};

/* A thread that gives pages, with all it needs for that. */
struct filler {
	struct server *server;
	struct image_reader *reader; /* for the index; of who fills unasked also for chunks */
	struct image_reader_stats counted; /* of its reader, in its statistics */
	bool locked; /* its reader's chunks are (filler_lock) */
	bool joined; /* it answers who has asked: has a part in server.loaded */
	uint8_t *unit; /* locked; for objects of huge pages */
	const uint8_t *zeros; /* the same, and nobody writes it */
	size_t unit_size;
	struct hot_filler *hot; /* hot.c; NULL where there are no hot pages */
	int uffd; /* where its faults come from, or -1 */
	struct served_process *process; /* the same, if it was adopted; or NULL */
	/* Faults [at, n) were read and wait to be answered. */
	struct uffd_fault queue[FAULTS_AT_ONCE];
	int at, n;
	uint64_t began; /* when they were read */
	struct serve_stats stats;
	struct filler *next; /* of server.fillers */
};

struct worker {
	struct filler filler;
	struct served_process *process;
	unsigned number;
	sem_t turn; /* it is to read now */
	_Atomic pid_t tid; /* 0: it does not run */
	uint64_t answered; /* its last fault, at this time; 0: it has not read since */
	pthread_t thread;
	bool started;
};

/* readers.c: who reads the userfaultfd. */
struct readers {
	atomic_bool crowd; /* all of them */
	atomic_uint leader; /* else this one */
	atomic_uint answering; /* workers that are at it */
	pthread_mutex_t lock; /* guards the rest; nobody waits for it */
	int score; /* how often faults have waited, lately */
	unsigned count, tried, home;
	bool settled;
	uint64_t sum, cost[FAULT_WORKERS_MAX]; /* ns */
};

struct served_process {
	struct server *server;
	unsigned id;
	int uffd;
	struct events *events; /* of one that was adopted; NULL: it tells of faults only */
	atomic_bool stop; /* its workers shall end */
	atomic_bool dead; /* its address space is gone */
	unsigned nworkers;
	struct readers readers;
	struct worker workers[FAULT_WORKERS_MAX];
};

/* damage.c: what of the image cannot be had. */
struct damage {
	atomic_bool powerless; /* this kernel cannot poison */
	pthread_mutex_t lock; /* guards the rest */
	struct {
		size_t object;
		uint64_t chunk;
		bool asked; /* for a page of it */
		char why[160]; /* the message begins so */
	} told[16];
	unsigned ntold;
};

struct server {
	const struct image *img;
	struct server_options options;
	size_t nobjects;
	struct served_object *objects;
	atomic_size_t nready; /* that have their memory; changes under lock */
	_Atomic(struct mapping_table *) mappings;
	size_t tables_size; /* bytes of it and all older ones */

	pthread_mutex_t lock; /* guards the processes and replaces the mappings */
	struct served_process *processes[PROCESSES_MAX];
	unsigned nprocesses;
	pthread_mutex_t stats_lock;
	struct filler *fillers; /* all there are, from filler_init to filler_fini */
	struct serve_stats past; /* of those that are no more */

	bool resuming; /* until server_resume: nothing is given; changes under lock */
	bool record_lost;
	struct recorder *recorder; /* NULL: nothing is recorded, nor was */
	struct hot *hot; /* hot.c; NULL: the image has no hot pages */
	_Atomic(struct prefetch *) prefetch; /* prefetch.c; NULL: there is none (yet) */
	_Atomic uint64_t prefetched; /* when what was to be prefetched was there, or 0 */

	struct loaded_set loaded;
	struct filler rest_filler;
	struct damage damage;
	struct image_watch *watch; /* NULL: reads may take for ever */
	atomic_bool stuck; /* in a read that somebody waits for */
	atomic_bool slow; /* a read that nobody waits for was told of */

	bool background_wanted;
	struct backfill *background; /* background.c; NULL: there is none (yet) */
	/* The filler that answers who asks with words: vCPUs, and VMMs of engine source. */
	pthread_mutex_t asked_lock;
	struct filler asked_filler; /* .reader NULL: nobody has asked yet */
	/* Memory of VMMs' own is copied into when all of it is mapped: each page has its place.
	 */
	atomic_bool mapped;
	atomic_bool filled; /* eagerly */
	_Atomic uint64_t ahead; /* a chunk that somebody will ask for soon (source.c), or 0 */
	atomic_bool stop;
	atomic_uint busy; /* workers that are answering faults just now */

	int event_fd;
	pthread_mutex_t fail_lock;
	struct err failure;
	atomic_int state;
	_Atomic uint64_t first_mapping, first_fault, complete;
	_Atomic uint64_t last_asked; /* when somebody asked for a page the last time, ns */
};

/* Whether first touches are being recorded: nothing is given that nobody has asked for. */
static inline bool
recording(const struct server *s)
{
	return __builtin_expect(s->recorder != NULL, false) && recorder_is_on(s->recorder);
}

/* A page of an object was touched. */
static inline void
record(struct server *s, size_t object, uint64_t off, bool write)
{
	if (__builtin_expect(s->recorder != NULL, false))
		recorder_touch(s->recorder, object, off, s->objects[object].page_size, write);
}

/* Tells the owner that something has changed. */
void server_announce(struct server *s);

/* What was to be prefetched is there. */
void server_set_prefetched(struct server *s);

/* Everything is there, unless the server has failed; server_announce tells the owner. */
void server_complete(struct server *s);

/*
 * For answering faults, of a userfaultfd or (-1) of vCPUs; or for filling what nobody
 * has asked for.
 */
int filler_init(struct filler *f, struct server *s, bool faults, int uffd, struct err *e);

/*
 * Chunks that its reader decodes are written into guest memory from now on, and so locked.
 * Most fillers decode elsewhere, and of locked memory there is little.
 */
int filler_lock(struct filler *f, struct err *e);

/* Also of one that was never made ready, or only half.  What it did stays counted. */
void filler_fini(struct filler *f);

/* Brings what its reader has read into its statistics. */
void filler_account(struct filler *f);

/* The same of another reader, of which *counted was counted before. */
void filler_count(
    struct filler *f, const struct image_reader *r, struct image_reader_stats *counted);

/*
 * Answers a fault of a mapping at `off` in its object (a multiple of the
 * object's page size).
 */
int fill_fault(struct filler *f, const struct mapping *m, uint64_t off, struct err *e);

/* Answers a vCPU that has left the guest for the page at `off`: it is there on return. */
int fill_vcpu(struct filler *f, size_t object, uint64_t off, struct err *e);

/*
 * Gives the first page that the image stores of an object: whether write(2) can do
 * that is known then.
 */
int fill_first(struct filler *f, size_t object, struct err *e);

/*
 * Gives some of the rest of a chunk that a fault has loaded, if there is such a rest: 1, 0
 * if there is none, -1.  Between faults.
 */
int fill_pending(struct filler *f, struct err *e);

/*
 * Gives page `page` of a loaded chunk, which somebody has taken, and wakes who waits.  The
 * caller has the chunk.
 */
int fill_page(struct filler *f, struct loaded *l, uint32_t page, uint64_t began, struct err *e);

/* Gives what is not taken yet of chunk `chunk`, whose entry is *en. */
int fill_chunk(struct filler *f, size_t object, uint64_t chunk, const struct entry *en,
    stat_counter *pages, struct err *e);

/* Gives the huge page number `unit` if nobody took it. */
int fill_unit(
    struct filler *f, size_t object, uint64_t unit, stat_counter *pages, struct err *e);

/* All is there, and nobody is answering a fault: frees what was needed for that. */
void server_shed(struct server *s);

/* Frees what it decodes with; what it did stays counted. */
void filler_shed(struct filler *f);

/* The mapping of the process that holds the address, or NULL. */
const struct mapping *mapping_find(const struct server *s, unsigned process, uint64_t hva);

/* Gives all of an object with `nthreads` threads, and returns when that is done. */
int fill_eagerly(struct server *s, size_t object, unsigned nthreads, struct err *e);

/* The same with as many threads as the options say. */
int fill_now(struct server *s, size_t object, struct err *e);

/* With asked_lock: makes the filler ready, if it is not. */
int asked_filler_init(struct server *s, struct err *e);

/*
 * The page at `off` was taken by the caller, who has asked for it with words: gives it.
 * Where it is nobody's mapping but the VMM's own.
 */
int fill_taken(struct filler *f, size_t object, uint64_t off, struct err *e);

/* Until whoever has taken the page has given it. */
int await_given(struct server *s, const struct claims *c, uint64_t page, struct err *e);

/* ---- loaded.c: chunks that were decoded for faults ---- */

void loaded_init(struct loaded_set *set);
void loaded_fini(struct server *s);

/* Before the first fault of a filler: room for what it does; starts who gives rests.  */
int loaded_join(struct server *s, struct err *e);
void loaded_leave(struct server *s);

/* Nobody asks any more: gives the memory back, before the server is freed. */
void loaded_shed(struct server *s);

/*
 * Where the chunk is to be decoded to, or was (*again); the caller has it from then on.  NULL:
 * somebody is at it just now, and will give `page`, which the caller has taken since `began`.
 * *through: it was given up once, and should be gone through now.
 */
struct loaded *loaded_get(struct server *s, size_t object, uint64_t chunk, uint32_t page,
    uint64_t began, bool *again, bool *through);

/* A chunk with a rest, which the caller has from then on; or NULL. */
struct loaded *loaded_get_rest(struct server *s);

/* Gives what is wanted of it meanwhile, and lets go of it. */
int loaded_put(struct filler *f, struct loaded *l, struct err *e);

/* ---- map.c ---- */

/* Puts a page of zeros, which the caller has taken, into the object and into one mapping. */
int zero_at(struct filler *f, const struct mapping *m, uint64_t off, struct err *e);

/*
 * Maps [hva, hva + len) of one mapping.  Pages that were discarded after they
 * were given are left to the next access.
 */
int map_at(
    struct filler *f, const struct mapping *m, uint64_t hva, uint64_t len, struct err *e);

/* Maps [off, off + len) of an object wherever it is mapped, but for one mapping (or NULL). */
int map_everywhere(struct filler *f, size_t object, uint64_t off, uint64_t len,
    const struct mapping *but, struct err *e);

/*
 * The same of pages that nobody has asked for.  While touches are recorded they are not mapped:
 * they would be touched unseen.  Whoever came upon one that was taken asks again.
 */
int map_unasked(struct filler *f, size_t object, uint64_t off, uint64_t len, struct err *e);

/* Whoever waits for a page of [off, end) of an object asks again. */
int wake_everywhere(struct server *s, size_t object, uint64_t off, uint64_t end, struct err *e);

/* Maps a page that was given: again, or for the first time here. */
int map_given(struct filler *f, const struct mapping *m, uint64_t off, struct err *e);

/* ---- damage.c ---- */

/* Says of memory that is taken into use if its pages cannot be poisoned, and should be. */
void damage_announce(const struct server *s, const struct served_object *o);

/* The same of a kernel with these features of userfaultfd. */
void damage_features(struct server *s, uint64_t features);

/* Whether it is no reason to fail that what *e tells of cannot be had: *e is none then. */
bool damage_is_borne(const struct server *s, struct err *e);

/* 0: the same for pages of this object, which can be poisoned; -1: the error stands. */
int damage_bear(const struct server *s, size_t object, struct err *e);

/* The same of a chunk for which nobody waits: who does is to find out by himself. */
int damage_leave(struct server *s, size_t object, uint64_t chunk, struct err *e);

/*
 * The page at `off`, which the caller has taken, cannot be had, *e tells why: poisons it
 * wherever it is mapped; -1 if the error stands.
 */
int damage_poison(struct filler *f, size_t object, uint64_t off, struct err *e);

/* A page that is bad, in one mapping. */
int poison_at(struct filler *f, const struct mapping *m, uint64_t off, struct err *e);

/* ---- threads.c ---- */

/* Once, before the first thread. */
void threads_init(void);

/* A thread that takes no signal but the one by which it is stopped. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *arg, struct err *e);

/* Sleeps so many microseconds, below a second, or until it is kicked. */
void thread_nap(unsigned us);

/* Takes it out of a system call, if it is in one; 0: nobody. */
void thread_kick(pid_t tid);

/* The same until it has ended. */
void thread_stop(pthread_t thread);

/* ---- memory.c ---- */

/* With s->lock: every region has its memory, and nothing is being resumed. */
int server_begin(struct server *s, struct err *e);

/* ---- faults.c, processes.c ---- */

/* The thread of a struct worker. */
void *worker_main(void *arg);

/* Whether more faults wait by now; where that can be told they are in the queue then. */
bool more_faults(struct filler *f);

/* With s->lock: starts the workers of the process. */
int process_start(struct server *s, struct served_process *p, struct err *e);

/* With s->lock, or when nobody else is left: ends the workers of the process. */
void process_stop(struct served_process *p);

/* ---- readers.c: which workers read a userfaultfd ---- */

void readers_init(struct served_process *p);
void readers_fini(struct served_process *p);

/* Until the worker is to read, or to stop. */
void readers_await(struct worker *w);

/* It has read faults, while others were answering some or not. */
void readers_note(struct worker *w, bool others);

/* ---- copy.c: memory of the VMM's own ---- */

/* Copies [off, off + len) of an object, pages that the filler's thread has taken. */
int copy_pages(struct filler *f, size_t object, uint64_t off, const uint8_t *from, uint64_t len,
    struct err *e);

/* A page of zeros for a fault, unless there is a page. */
int copy_zeros(struct filler *f, const struct mapping *m, uint64_t off, struct err *e);

/* Pages of zeros that the caller has taken; what cannot be put there now is asked for then. */
int copy_zero_pages(struct filler *f, size_t object, uint64_t off, uint64_t len, struct err *e);

/* More of them around a page of 4 KiB that was given just now. */
int copy_zeros_around(struct filler *f, const struct mapping *m, uint64_t off, struct err *e);

/* ---- events.c: userfaultfds that were adopted ---- */

/* fd: as server_adopt_process says. */
int events_new(struct served_process *p, int fd, struct err *e);
void events_free(struct served_process *p);

/* Applies what a dead server had read; before anything is copied, when all is mapped. */
int events_recover(struct served_process *p, struct err *e);

/* Its workers look again, whether they are to stop too. */
void events_kick(struct served_process *p);

/* Between these nothing is discarded that was not marked before. */
void events_begin_copy(struct served_process *p);
void events_end_copy(struct served_process *p);

/*
 * Somebody's mappings are changing: lets that go on (a worker of the process sees to it
 * itself), for a while that grows with the number of tries.  Fails if the server has stopped.
 */
int events_yield(
    const struct filler *f, struct served_process *p, unsigned *tries, struct err *e);

/* Waits for a fault, until the worker is to stop: 1 with it in the queue of its filler, 0, -1.
 */
int events_wait(struct filler *f, struct err *e);

/* Whether faults have been read that nobody is at yet. */
bool events_waiting(struct served_process *p);

/* ---- mappings.c ---- */

/* Whether memory of VMMs' own was added until now. */
bool has_foreign(const struct server *s);

/* With s->lock: whether all memory of VMMs' own is mapped, if there is any. */
bool foreign_mapped(const struct server *s);

/* With s->lock: it is served from now on. */
int begin_copying(struct server *s, struct err *e);

/* Eagerly: with the mapping that was the last to come. */
int fill_foreign(struct server *s, struct err *e);

/* ---- source.c ---- */

/* Gives the chunk that is likely to be asked for next, if there is one. */
int source_ahead(struct server *s, struct filler *f, struct err *e);

/* ---- background.c ---- */

/* Gives all of a chunk that is not taken, of whatever pages the object is. */
int fill_one(
    struct filler *f, size_t object, uint64_t chunk, const struct entry *en, struct err *e);

/* Starts to give the rest behind the faults; background_free also after a failure. */
int background_start(struct server *s, struct err *e);
void background_free(struct server *s);

#endif
