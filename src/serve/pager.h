/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PAGER_H
#define GMEM_SERVE_PAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/log.h"
#include "image/image.h"
#include "serve/ledger.h"
#include "serve/server.h"

/*
 * A page server (server.h) in a process of its own, and what its owner knows of it.
 *
 * The functions do what those of server.h do that are called the same, and any thread may call
 * any of them; each waits for the answer.  All descriptors that the page server works with are
 * the owner's too: when it dies the userfaultfds stay open, and whoever waits for a page goes
 * on waiting, instead of reading zeros.  Another one is started then, which goes on; whoever
 * asks something meanwhile waits for it.  If PAGER_DEATHS of them die in a row, each within a
 * second and without having given a page, there is no other one: the state is SERVER_FAILED.
 */
struct pager;

#define PAGER_DEATHS 10u

/*
 * Starts the program, without waiting for it: so early, since that takes a moment.  A thread
 * of the pager's own is its parent: whoever waits for children of other threads
 * (__WNOTHREAD) does not meet it.
 */
int pager_new(struct pager **out, const char *program, enum log_level level, struct err *e);

/*
 * Before pager_open: what the page servers are told is noted there, too, and they end with
 * this process, since the userfaultfds are kept open by the keeper.  What another supervisor
 * has left there is gone on with.  Borrowed; NULL: there is none.
 */
void pager_set_ledger(struct pager *p, struct ledger *l);
struct ledger *pager_ledger(const struct pager *p);

/* server_new: image and options are borrowed until pager_free. */
int pager_open(struct pager *p, const struct image *img, const struct server_options *options,
    struct err *e);

/* Whether that is the process of a page server of ours. */
bool pager_is_process(struct pager *p, pid_t pid);

/* ---- the same as in server.h ---- */

int pager_add_memory(
    struct pager *p, size_t index, const struct served_memory *memory, struct err *e);
int pager_add_foreign(struct pager *p, size_t index, uint64_t page_size, struct err *e);
int pager_provide(struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e);
bool pager_has_memory(const struct pager *p);
bool pager_is_complete(const struct pager *p, size_t index);
enum serve_engine pager_engine(const struct pager *p, size_t index);

int pager_add_process(struct pager *p, int uffd, unsigned *id, struct err *e);
int pager_adopt_process(struct pager *p, int uffd, unsigned *id, struct err *e);
int pager_add_mapping(struct pager *p, unsigned process, uint64_t hva, uint64_t len,
    size_t object, uint64_t offset, struct err *e);
void pager_remove_mapping(struct pager *p, unsigned process, uint64_t hva, uint64_t len);
void pager_remove_process(struct pager *p, unsigned process);
int pager_discard(struct pager *p, size_t object, uint64_t offset, uint64_t len, struct err *e);
int pager_fault(struct pager *p, size_t object, uint64_t offset, struct err *e);
int pager_fault_rest(struct pager *p, struct err *e);
int pager_start(struct pager *p, struct err *e);

/* False, and nothing, while there is no page server that could tell. */
bool pager_record_look(struct pager *p, uint64_t *pages, bool *full);
void pager_record_ask(struct pager *p, size_t object, uint64_t offset, uint64_t len);
int pager_record_end(struct pager *p, struct err *e);
int pager_record_take(struct pager *p, struct trace *t, struct err *e);

int pager_event_fd(const struct pager *p);
bool pager_is_prefetched(const struct pager *p);
enum server_state pager_state(struct pager *p, struct err *e);
void pager_fail(struct pager *p, const struct err *e);
bool pager_has_mappings(const struct pager *p);
bool pager_covers(struct pager *p, unsigned process, uint64_t hva, uint64_t len);

/* What the page servers have taken of CPU, us; the process of the present one, or 0; and how
 * many had to take the place of another. */
struct pager_self {
	uint64_t user_us, system_us;
	pid_t pid;
	uint64_t restarts;
};

/* Of all page servers, as far as they have told. */
void pager_stats(struct pager *p, struct serve_stats *stats, struct server_times *times,
    struct pager_self *self);
void pager_counts(struct pager *p, struct serve_stats *stats);
bool pager_prefetch_hits(struct pager *p, uint64_t *hits, uint64_t *touched);

/*
 * Begins to replace the page server by the program as it is now: nothing of what it serves is
 * lost.  If the new one does not start, the old one goes on, which is logged.
 */
void pager_replace(struct pager *p);

/* The processes that were served are dead: whoever waits for pages gives up. */
void pager_stop(struct pager *p);

/* Ends the page server, and closes the userfaultfds.  NULL is fine. */
void pager_free(struct pager *p);

#endif
