/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_LEDGER_WIRE_H
#define GMEM_SERVE_LEDGER_WIRE_H

#include <pthread.h>

#include "serve/ledger.h"

/*
 * What a supervisor and its keeper say to each other, on a SOCK_SEQPACKET socket.  Both are
 * copies of one process, and trust each other.
 */
enum ledger_type {
	LEDGER_PUT = 1, /* no answer */
	LEDGER_DROP, /* no answer */
	LEDGER_COMMIT, /* with key: and reply */
	LEDGER_ACCEPT,
	LEDGER_NUMBER, /* of descriptor `flags` of an entry, in the keeper */
	LEDGER_LAUNCH, /* struct ledger_launch follows; what to run, then what it inherits */
	LEDGER_LOOK, /* what of the VMM there is */
	LEDGER_KILL, /* everything that is the VMM's */
	LEDGER_BYE, /* the VMM is over: the keeper may end.  No answer */
};

#define LEDGER_CONSUME 1u /* COMMIT */
#define LEDGER_SENT_MAX 250u /* descriptors in one message: unix(7) */

struct ledger_request {
	uint32_t type;
	uint32_t key;
	uint32_t flags;
	uint32_t mask; /* PUT: which descriptors of the entry come */
};

struct ledger_answer {
	int32_t failed; /* enum err_kind, with sysno and text */
	int32_t sysno;
	int32_t number;
	int32_t pid; /* LAUNCH: of the VMM; LOOK: 0 if it has ended */
	int32_t status; /* LAUNCH: for exit(2); LOOK: as wait(2) tells */
	int32_t children; /* LOOK: whether there are any */
	char msg[512];
};

/* In the order of the descriptors behind the first. */
struct ledger_launch {
	uint32_t nkeep;
	int32_t keep[LEDGER_SENT_MAX]; /* the numbers that they get */
};

/* Bytes and descriptors of one message. */
struct ledger_message {
	struct ledger_request r;
	uint8_t data[LEDGER_DATA_MAX];
	size_t len;
	int fds[LEDGER_SENT_MAX]; /* owned */
	unsigned nfds;
};

struct ledger_entries {
	struct ledger_entry *list;
	size_t n, room;
};

struct ledger {
	pthread_mutex_t lock; /* a request and its answer */
	int sock;
	int events; /* readable: look what of the VMM there is; hung up: no keeper */
	int lifeline;
	bool inherited;
	struct ledger_entries left;
};

/* To a socket: -1 with sysno EPIPE or ECONNRESET when nobody is there. */
int ledger_send(int sock, const void *head, size_t head_len, const void *data, size_t len,
    const int *fds, unsigned nfds, struct err *e);

/* 1; 0: the other side has gone. */
int ledger_receive(int sock, struct ledger_message *m, struct err *e);
void ledger_message_fini(struct ledger_message *m);

/* Asks, with data and descriptors behind, and waits.  *fd: what comes with the answer, or -1.
 */
int ledger_ask(struct ledger *l, const struct ledger_request *r, const void *data, size_t len,
    const int *fds, unsigned nfds, struct ledger_answer *a, int *fd, struct err *e);

void ledger_answer_set(struct ledger_answer *a, const struct err *e);

/* ---- entries ---- */

struct ledger_entry *ledger_find(const struct ledger_entries *t, uint32_t key);

/* Takes what `from` owns; an entry of the same key is replaced. */
int ledger_set(struct ledger_entries *t, struct ledger_entry *from, struct err *e);
void ledger_remove(struct ledger_entries *t, uint32_t key);
void ledger_entry_fini(struct ledger_entry *entry);
void ledger_entries_fini(struct ledger_entries *t);

#endif
