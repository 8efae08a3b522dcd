/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_SERVER_H
#define GMEM_SERVE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/trace.h"
#include "image/image.h"
#include "serve/damage.h"
#include "serve/engine.h"
#include "serve/object.h"
#include "serve/pace.h"
#include "serve/place.h"
#include "serve/prefetch.h"
#include "serve/stats.h"

/*
 * The page server: gives an image's pages to whoever faults on them.
 *
 * It serves memory objects (one for each region of the image) that processes map.  A process
 * hands over its userfaultfd, then each mapping. Worker threads answer faults; behind them a
 * background thread gives the rest.  When every stored page is given, the mappings are
 * unregistered: what is left then are zeros, which the kernel makes itself.
 *
 * After a failure nothing is answered any more, so that nobody runs on with a
 * page that is not there: the owner must end the processes.  With ON_ERROR_POISON a page of the
 * image that cannot be had is none, where it can be poisoned: then the server never completes.
 */
struct server;

struct server_options {
	unsigned nworkers; /* fault threads for each userfaultfd; 0: as many as CPUs, up to 4 */
	unsigned nfillers; /* threads of the eager engine; 0: as many as CPUs */
	enum background background; /* fill behind the faults */
	uint64_t background_rate; /* at most so many bytes per second; 0: no limit */
	enum serve_engine engine; /* SERVE_AUTO, or the one to use or to fail */
	bool record; /* first touches, until server_record_end: nothing else is given meanwhile
		      */
	struct prefetch_options prefetch; /* zero: none */
	struct serve_place place; /* of the fault threads; zero: anywhere */
	bool resume; /* goes on where another server has died: see server_resume */
	enum on_error on_error; /* where a page of the image cannot be had */
	unsigned
	    io_timeout; /* s: for a read that somebody waits for; 0: it may take for ever */
};

enum server_state {
	SERVER_FILLING, /* pages are missing; for ever, if some of the image cannot be had */
	SERVER_COMPLETE, /* every page is there, nothing is registered any more */
	SERVER_FAILED,
};

/* The image is borrowed. */
int server_new(struct server **out, const struct image *img,
    const struct server_options *options, struct err *e);

/*
 * Bytes that `nworkers` fault threads of one process are certain to lock, for the check of
 * RLIMIT_MEMLOCK; the background and a prefetch lock a few more.
 */
uint64_t server_locked_least(const struct image *img, unsigned nworkers);

/*
 * Adds the memory of region `index`, which must be empty, and chooses the engine by
 * trying what works with it.  With the eager engine all of it is there on return.
 * ERR_UNSUPPORTED if the engine that was asked for does not work.  One thread at
 * a time; every region gets its memory before the first process comes.
 */
int server_add_memory(
    struct server *s, size_t index, const struct served_memory *memory, struct err *e);

/*
 * Region `index` is memory of the VMM's own that no descriptor names: engine copy, of which
 * options.engine may be AUTO, COPY, or EAGER.  One process has it, page_size is that of the
 * pages behind it.  claims: as in struct served_memory.
 */
int server_add_foreign(
    struct server *s, size_t index, uint64_t page_size, int claims, struct err *e);

/*
 * Engine source (served_memory.source): when it returns 0, [offset, offset + len) of region
 * `object` are in its memory object, zeros included.  Any thread; also when all is complete.
 * A page that somebody has discarded meanwhile is there too, of zeros.
 */
int server_provide(
    struct server *s, size_t object, uint64_t offset, uint64_t len, struct err *e);

/* Whether every region has its memory, or (of one region) all of it is there. */
bool server_has_memory(const struct server *s);
bool server_is_complete(const struct server *s, size_t index);

/* How region `index` is served; SERVE_AUTO while it has no memory. */
enum serve_engine server_engine(const struct server *s, size_t index);

/*
 * Takes the userfaultfd of another process (also on failure), makes the
 * handshake and starts to answer.  *id names it from then on.
 */
int server_add_process(struct server *s, int uffd, unsigned *id, struct err *e);

/*
 * The same for a userfaultfd that had its handshake, and whose ranges its owner registers for
 * missing pages: the way to memory of the VMM's own, and to no other.  O_NONBLOCK stays, and
 * is set if it was not.  Its events (UFFD_FEATURE_EVENT_*) are served: what the VMM discards
 * or unmaps is zeros from then on; if it moves its memory or forks, the server fails.
 * events: of server_events_create, which is duplicated, or 0 or less: what was read and not
 * applied yet is lost with this process.
 */
int server_adopt_process(struct server *s, int uffd, int events, unsigned *id, struct err *e);

/* A memfd for the messages of one adopted process. */
int server_events_create(int *fd, struct err *e);

/*
 * Serves [hva, hva + len) of that process, which shows the object from
 * `offset` on.  When it returns 0 accesses there wait for their pages.
 *
 * Of an adopted process nothing is registered, and no part may be mapped twice.  It is served
 * as soon as all foreign memory is mapped, from end to end; with options.engine EAGER all of
 * it is filled before the call that adds the last mapping returns.
 */
int server_add_mapping(struct server *s, unsigned process, uint64_t hva, uint64_t len,
    size_t object, uint64_t offset, struct err *e);

/* The process is about to unmap the range: no fault will come from it. */
void server_remove_mapping(struct server *s, unsigned process, uint64_t hva, uint64_t len);

/* The process is no more. */
void server_remove_process(struct server *s, unsigned process);

/*
 * The pages [offset, offset + len) of an object are about to be discarded by
 * their owner: when this returns nobody writes them any more, and whoever asks
 * for them from now on gets zeros.
 */
int server_discard(
    struct server *s, size_t object, uint64_t offset, uint64_t len, struct err *e);

/*
 * A vCPU has left the guest for the page at `offset` (KVM userfault): when this
 * returns it is there, and its bit is cleared.  server_fault_rest gives the
 * rest of what was decoded for it.
 */
int server_fault(struct server *s, size_t object, uint64_t offset, struct err *e);
int server_fault_rest(struct server *s, struct err *e);

/* Starts the background fill, if there is to be one, as soon as all regions have memory. */
int server_start(struct server *s, struct err *e);

/* ---- recording (server_options.record) ---- */

/* Pages that were touched until now. */
uint64_t server_record_pages(const struct server *s);

/* Whether there is no room for more. */
bool server_record_full(const struct server *s);

/* For VMMs that ask for all pages one after the other, and out of turn for those they touch. */
void server_record_ask(struct server *s, size_t object, uint64_t offset, uint64_t len);

/* Ends it, if it goes on: from now on everything is as without it. */
int server_record_end(struct server *s, struct err *e);

/*
 * What was recorded, in the order of the first touches; ->end is the caller's to set.  If it
 * still goes on it ends, and nothing else happens: the VMM is over.  t is to be freed also
 * after an error.
 */
int server_record_take(struct server *s, struct trace *t, struct err *e);

/* ---- going on where another server has died ---- */

/*
 * A server whose memory came with claims of the caller's, and whose adopted processes with
 * buffers of the caller's, may die (SIGKILL) at any moment.  When its process is gone (waited
 * for: till then its threads may be in the middle of a call) another one goes on:
 *
 * 1. server_new with options.resume, and the same image.  options.record is lost: what was
 *    recorded cannot be had any more (server_record_take says so), and all is given from now
 *    on.
 * 2. server_add_memory or server_add_foreign for each region that the dead one was told of,
 *    with the same claims: also for the one whose call it has not answered.
 * 3. server_add_process and server_adopt_process, in any order, also those unanswered; the ids
 *    are new.  A userfaultfd that had its handshake is known by that.
 * 4. server_add_mapping for what is mapped now and was answered, in any order; nothing is
 *    registered anew.
 * 5. server_start, if the dead one was started.
 * 6. server_resume.  Only from now on anything is given; whoever waits asks again.
 * 7. Everything else that was not answered is asked for once more: server_add_mapping,
 *    server_discard, server_provide, server_fault may be done twice.
 *
 * Whoever lets the memory's owner discard pages (server_discard) or unmap them must not answer
 * him before the server has answered.
 */
int server_resume(struct server *s, struct err *e);

/* Becomes readable when the state changes (eventfd, borrowed): read it, then ask. */
int server_event_fd(const struct server *s);

/*
 * Whether all that was to be prefetched is in the memory, and mapped where the memory was
 * mapped by then; at once where that is nothing.  False before all memory is there.
 */
bool server_is_prefetched(const struct server *s);

/* With SERVER_FAILED *e tells why. */
enum server_state server_state(struct server *s, struct err *e);

/* Declares the server failed (the first reason counts): it answers nothing more. */
void server_fail(struct server *s, const struct err *e);

/* Monotonic times in ns, 0: not yet. */
struct server_times {
	uint64_t first_mapping, first_fault, prefetched, complete;
};

void server_stats(struct server *s, struct serve_stats *stats, struct server_times *times);

/* The counters alone, without histograms: for looking often. */
void server_counts(struct server *s, struct serve_stats *stats);

/*
 * Of pages that were to be prefetched from a list: how many the recorded touches have hit, and
 * how many pages were touched at all.  False: there is no list, or nothing was recorded.
 */
bool server_prefetch_hits(struct server *s, uint64_t *hits, uint64_t *touched);

/*
 * Whether a thread hangs in a read of the image that nobody can interrupt: then the server has
 * failed, and server_free would hang too.  The process is to end without it.
 */
bool server_is_stuck(const struct server *s);

/* Nothing more is filled: whoever waits for that gives up.  The server can only be freed. */
void server_stop(struct server *s);

/* Stops all threads.  Userfaultfds are closed: end their processes before. */
void server_free(struct server *s);

#endif
