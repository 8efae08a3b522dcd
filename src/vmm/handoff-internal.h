/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_HANDOFF_INTERNAL_H
#define GMEM_VMM_HANDOFF_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "gmem-handoff.h"
#include "vmm/handoff.h"
#include "vmm/peer.h"

/* What the files of the server's side of the hand-off share. */

#define CLIENTS_MAX (HANDOFF_POLLED - 2)
#define NOBODY ((struct client){ .sock = -1, .pidfd = -1, .lifeline = -1 })

/* A process that has connected, until it is dead. */
struct client {
	bool used;
	bool peeked; /* its request is to be taken off its socket with the reply */
	int sock; /* -1: it has left the conversation … */
	uint64_t left; /* … at this time */
	bool stays; /* and is alive, with nothing of ours: its lifeline stays too */
	int pidfd;
	pid_t pid;
	int lifeline; /* our end of its lifeline; -1 before its hello */
	bool holds; /* it has guest memory … */
	bool owns; /* … that it made itself */
	bool mapped; /* … and has handed over a mapping */
	bool served; /* it has handed over a userfaultfd … */
	unsigned id; /* … and is this process of the server */
};

struct handoff {
	struct pager *server;
	struct ledger *ledger; /* the server's; NULL: there is no keeper */
	char path[64];
	int listener;
	int wake_fd; /* its clients have changed, or it is to stop */
	atomic_bool stop;
	int place; /* the socket's file, which has no name any more */
	pthread_t thread;
	bool started;
	atomic_uint hellos;
	/* When a region got its memory, ns; UINT64_MAX: it is getting it just now. */
	_Atomic uint64_t last_memory;
	struct gmem_region regions[GMEM_REGIONS_MAX];
	int fds[GMEM_REGIONS_MAX]; /* -1: the client brings its memory */
	int own_fds[GMEM_REGIONS_MAX]; /* those of them that are to be closed; else -1 */
	uint64_t stored[GMEM_REGIONS_MAX]; /* bytes that it will need room for */
	uint32_t nregions;
	pthread_mutex_t lock; /* guards clients and regions, which only the thread changes */
	struct client clients[CLIENTS_MAX];
};

/* ---- handoff-message.c ---- */

#define REQUEST_FDS 2u

struct request {
	struct gmem_message m;
	int fds[REQUEST_FDS]; /* -1: none; owned */
};

/* One request.  1, 0 at the end of the conversation, -1. */
int handoff_receive(struct handoff *h, struct client *c, struct request *r, struct err *e);

void handoff_request_fini(struct request *r);

/* The reply, without waiting; whoever is gone need not get it.  fds: borrowed. */
int handoff_reply(struct handoff *h, struct client *c, const struct iovec *iov, size_t niov,
    const int *fds, size_t nfds, struct err *e);

/* ---- handoff-answer.c ---- */

/* One request and its reply; a failure is told to the server.  False: it is over. */
bool handoff_converse(struct handoff *h, struct client *c);

/* ---- handoff-ledger.c: for another supervisor; only the thread calls them ---- */

/* All that there is before the thread starts, and the path that outlives us. */
int handoff_note_all(struct handoff *h, struct err *e);

/* From the next reply on; from now on. */
int handoff_note_region(struct handoff *h, uint32_t i, struct err *e);
void handoff_note_client(struct handoff *h, const struct client *c);
void handoff_note_failure(struct handoff *h);

/* With a ledger: ledger_accept for this place, and handoff_reply. */
int handoff_accept(struct handoff *h, const struct client *c, int *sock, struct err *e);
int handoff_reply_noted(struct handoff *h, struct client *c, const struct iovec *iov,
    size_t niov, const int *fds, size_t nfds, struct err *e);

/* As another supervisor has left it. */
int handoff_inherit_all(struct handoff *h, struct err *e);

#endif
