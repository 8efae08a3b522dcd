/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_LEDGER_H
#define GMEM_SERVE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * What a supervisor has noted with its keeper: a process that goes on if the supervisor is
 * killed, and that starts another one, which finds all of it.
 *
 * An entry is a key, some bytes and some descriptors.  What is put or dropped counts from
 * the next commit on, all at once: a supervisor that dies before has never said it.
 *
 * A ledger that is NULL takes everything and does nothing: nobody asked for a keeper.  Any
 * thread may call any of these; those that change entries in several steps are one thread.
 */
struct ledger;

#define LEDGER_FDS_MAX 3u
#define LEDGER_DATA_MAX ((size_t)64 << 10)

enum ledger_kind {
	LEDGER_IMAGE = 1, /* its name; the file */
	LEDGER_MEMORY, /* a region; its object, the bitmap, the claims */
	LEDGER_PROCESS, /* the userfaultfd, the buffer of its events */
	LEDGER_MAPPINGS, /* some of them */
	LEDGER_BEGUN, /* the page server was started */
	LEDGER_HANDOFF, /* the socket, and its place */
	LEDGER_REGION, /* what clients are told; the object */
	LEDGER_CLIENT, /* the socket, the lifeline, the pidfd: in this order */
	LEDGER_STOP, /* the VM can't go on with another one: an entry for each reason */
};

/* Reasons of LEDGER_STOP. */
#define LEDGER_STOP_FAILED 0
#define LEDGER_STOP_LOADING 1

#define LEDGER_KEY(kind, index) ((uint32_t)(kind) << 16 | (uint32_t)(index))

struct ledger_entry {
	uint32_t key;
	size_t len;
	void *data; /* owned */
	int fds[LEDGER_FDS_MAX]; /* owned; -1: none */
};

/* Descriptors are duplicated; -1: none. */
int ledger_put(struct ledger *l, uint32_t key, const void *data, size_t len, const int *fds,
    unsigned nfds, struct err *e);
int ledger_drop(struct ledger *l, uint32_t key, struct err *e);
int ledger_commit(struct ledger *l, struct err *e);

/*
 * The answer to a request that was only looked at (MSG_PEEK): commits, takes the request off
 * the client's socket and sends, which is one step, however the supervisor dies.  The error is
 * that of sendmsg(2), which does not wait; sysno tells.
 */
struct ledger_reply {
	uint32_t client; /* key of LEDGER_CLIENT */
	bool consume; /* there is a request to be taken off */
	const void *data;
	size_t len;
	const int *fds;
	unsigned nfds;
};

int ledger_reply(struct ledger *l, const struct ledger_reply *r, struct err *e);

/*
 * accept(2) on the listener of LEDGER_HANDOFF, as the new client `key`, at once: its
 * socket, which does not block; -1 with sysno EAGAIN: nobody is there.
 */
int ledger_accept(struct ledger *l, uint32_t key, int *sock, struct err *e);

/* A path by which descriptor i of an entry can be reached as long as there is a keeper. */
int ledger_path(
    struct ledger *l, uint32_t key, unsigned i, char *path, size_t size, struct err *e);

/* What another supervisor has left, or NULL.  Whoever takes a descriptor sets it to -1. */
struct ledger_entry *ledger_left(struct ledger *l, uint32_t key);

/* Whether there was another one. */
bool ledger_is_inherited(const struct ledger *l);

/*
 * A descriptor that page servers have until their end: when nobody has it any more the keeper
 * knows that they are gone.  -1: there is no keeper.
 */
int ledger_lifeline(const struct ledger *l);

#endif
