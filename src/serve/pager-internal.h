/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PAGER_INTERNAL_H
#define GMEM_SERVE_PAGER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve/pager-wire.h"
#include "serve/pager.h"

/*
 * What the files of the pager share.
 *
 * pager.c and pager-memory.c ask, from any thread, by pager-ask.c; pager-keep.c has the thread
 * that starts a page server, hears by pager-hear.c what it tells and sees it die, and starts
 * the next, whom pager-replay.c tells what its predecessor knew, from pager-journal.c;
 * pager-child.c is one process.
 */
#define PAGER_CHANNELS 16u
#define PAGER_PROCESSES 256u

/* A socket on which one request at a time is asked. */
struct pager_channel {
	int sock; /* -1: none */
	bool busy; /* somebody has it, and closes it if it is of no use any more */
	uint64_t since; /* serve_now(), if it is busy */
};

/*
 * What a page server has to know of before it goes on where another one has died, even if that
 * one did not answer: then the next one does.
 */
struct pager_answer {
	bool told, answered;
	struct pager_reply reply;
};

struct pager_memory {
	enum {
		PAGER_NOTHING,
		PAGER_OBJECT,
		PAGER_FOREIGN,
	} kind;
	struct served_memory memory; /* descriptors owned */
	uint64_t npages; /* of its claims */
	struct pager_answer answer;
	bool left; /* by another supervisor, whose answer nobody has got */
	_Atomic(enum serve_engine) engine;
	atomic_bool complete;
};

struct pager_process {
	int uffd; /* owned */
	int events; /* owned; of one that was adopted, else -1 */
	bool alive;
	struct pager_answer answer; /* .reply.value: what the page server calls it */
};

struct pager_mapping {
	unsigned process;
	uint64_t hva, len;
	size_t object;
	uint64_t offset;
};

/* What the page server was told. */
struct pager_journal {
	size_t nmemories;
	struct pager_memory *memories; /* one for each region */
	struct pager_process processes[PAGER_PROCESSES];
	unsigned nprocesses;
	struct pager_mapping *mappings;
	size_t nmappings;
	bool begun; /* START */
};

/* A process. */
struct pager_child {
	pid_t pid; /* 0: there is none */
	int pidfd;
	int control;
};

struct pager {
	const char *program;
	enum log_level level;
	const struct image *img; /* NULL: not opened yet */
	struct server_options options;
	struct ledger *ledger; /* NULL: there is no keeper */
	size_t nnoted; /* entries of mappings in there */
	int event_fd;
	int wake_fd; /* the thread has something to do */
	int stop_fd; /* the same, and nothing else any more: nobody reads it */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* guards what follows, but for what is atomic */
	pthread_cond_t changed; /* any of it */
	bool wanted; /* pager_open was called */
	bool up; /* it answers requests */
	bool replace; /* by a new process, as soon as may be */
	bool stopping;
	bool over; /* there is none, nor will there be; failure tells why */
	struct pager_child child, next; /* next: about to take its place */
	unsigned long generation; /* counts those that were up */
	struct pager_channel channels[PAGER_CHANNELS];
	struct pager_journal journal;
	struct err failure;
	struct pager_stats *told; /* the last that it has told */
	struct pager_stats *past; /* the sum of those that are no more */
	uint64_t restarts;

	atomic_int state; /* enum server_state */
	atomic_bool prefetched, mapped;
	_Atomic uint64_t provided; /* answers to who asks for pages in words */
	atomic_size_t nready;
};

/* ---- pager-ask.c ---- */

/* A request and what comes of it. */
struct pager_call {
	struct pager_request request;
	const int *fds; /* borrowed */
	unsigned nfds;
	struct pager_answer *answer; /* or NULL */
	const struct pager_process *process; /* that it is about; or NULL */
	struct pager_reply reply;
	void *tail; /* what follows the reply, of just this length */
	size_t tail_len;
	int *fd; /* a descriptor that comes with it, or NULL: none may */
	bool hurry; /* not to be waited for as long as it may take */
	/* Returns when there is something to be read; or -1: it won't be.  Or NULL. */
	int (*await)(struct pager *p, int sock, struct err *e);
	struct pager *pager; /* of await */
};

/*
 * Asks, and waits for the answer, be it of another page server than there is now.  -1: it says
 * no, or there is none any more.
 */
int pager_ask(struct pager *p, struct pager_call *c, struct err *e);

/* With the lock: why there is none any more. */
int pager_over(struct pager *p, struct err *e);

/* Asks on a channel of one's own: 1; 0: nobody is there, or he talks nonsense; -1. */
int pager_exchange(int sock, struct pager_call *c, struct err *e);

/* Opens one to a page server. */
int pager_connect(int control, int *sock, struct err *e);

/* ---- pager-memory.c ---- */

/* The descriptors of a memory, and the rest of what is asked. */
void pager_memory_call(
    struct pager_call *c, const struct pager_memory *m, size_t index, int fds[3]);
void pager_process_call(struct pager_call *c, const struct pager_process *p, int fds[2]);
void pager_mapping_call(
    struct pager_call *c, const struct pager_journal *j, const struct pager_mapping *m);

/* Of an inherited journal: what is served, now that a page server has said so. */
int pager_admit_left(struct pager *p, struct err *e);

/* All of it is there: who saves the VM may read it. */
void pager_unmark_memory(const struct pager *p, const struct pager_memory *m);

/* ---- pager-keep.c ---- */

/* The thread. */
void *pager_main(void *arg);

/* With the lock.  Tells the owner that something has changed, and who waits in here. */
void pager_announce(struct pager *p);

/* ---- pager-hear.c ---- */

/* One message of the page server's; false: it has hung up, or talks nonsense. */
bool pager_hear(struct pager *p);

/* Listens until it is dead (true), or until there is something else to do. */
bool pager_watch(struct pager *p);

/* ---- pager-child.c ---- */

#define PAGER_CHILD_NONE ((struct pager_child){ .pidfd = -1, .control = -1 })

/* With p->lock: whoever asks whether a process is ours waits. */
int child_start(struct pager_child *c, const struct pager *p, struct err *e);

/* Until it says hello; -1 with sysno EPIPE: it has ended.  stop_fd readable: gives up. */
int child_await_hello(
    const struct pager_child *c, const char *program, int stop_fd, struct err *e);

/* OPEN and its reply; -1 with sysno EPIPE: it has ended, ETIMEDOUT: the file system hangs. */
int child_open(const struct pager_child *c, const struct pager *p, bool resume, struct err *e);

/*
 * What its first thread is, which never reads a file: one that is killed while others of it do
 * neither ends nor hangs up before they have read, if ever.
 */
enum child_life {
	CHILD_LIVES,
	CHILD_STANDS, /* SIGSTOP, or a debugger */
	CHILD_DIES,
};

enum child_life child_look(const struct pager_child *c);

/* Whether it is dead, or dying. */
bool child_has_ended(const struct pager_child *c);

void child_kill(const struct pager_child *c);

/* It is asked to end, and has END_MS for that. */
void child_dismiss(const struct pager_child *c);

/* Waits for its end: what it has taken of CPU, and how it has ended in words. */
struct pager_end {
	uint64_t user_us, system_us;
	struct err how;
};

void child_bury(const struct pager_child *c, const char *program, struct pager_end *end);

/* ---- pager-replay.c ---- */

/* The page server, which was opened to resume, learns what those before it knew, and begins. */
int pager_replay(struct pager *p, const struct pager_child *c, struct err *e);

/* ---- pager-ledger.c: what another supervisor would have to know ---- */

/* That the page server is about to be told of it: from now on. */
int pager_note_memory(struct pager *p, size_t index, struct err *e);

/* What it was told: from the next commit on.  The last two with p->lock. */
int pager_note_answer(struct pager *p, size_t index, struct err *e);
int pager_note_process(struct pager *p, unsigned process, struct err *e);
int pager_note_mappings(struct pager *p, struct err *e);

/* With p->lock: the journal as the other one has left it. */
int pager_inherit(struct pager *p, struct err *e);

/* ---- pager-journal.c; all with p->lock ---- */

int journal_init(struct pager_journal *j, size_t nregions, struct err *e);
void journal_fini(struct pager_journal *j);

/* Room for n more mappings, before the page server is told of them. */
int journal_reserve(struct pager_journal *j, size_t n, struct err *e);
void journal_add_mapping(struct pager_journal *j, const struct pager_mapping *m);
void journal_remove_mapping(
    struct pager_journal *j, unsigned process, uint64_t hva, uint64_t len);

/* Whether all of [hva, hva + len) is mapped. */
bool journal_covers(
    const struct pager_journal *j, unsigned process, uint64_t hva, uint64_t len);

/* The pages that are given, of all memories; 0 where they cannot be counted. */
uint64_t journal_given(const struct pager_journal *j);

#endif
