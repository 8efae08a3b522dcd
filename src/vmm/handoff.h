/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_HANDOFF_H
#define GMEM_VMM_HANDOFF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "serve/pager.h"

/*
 * The server's side of the gmem hand-off (gmem-handoff.h): listens on a socket
 * that only processes of this user reach, answers them, and passes what they
 * hand over to the page server.  A thread does the work.
 */
struct handoff;

/* RLIMIT_NOFILE has to be at least that: poll(2) takes no more. */
#define HANDOFF_POLLED 258u

#define HANDOFF_NO_ADDRESS UINT64_MAX

/* What clients are told of region i of the image. */
struct handoff_region {
	const char *name;
	int fd; /* memory that they get, borrowed; -1: they bring their own */
	int number; /* the descriptor number that clients put it at */
	uint64_t size, page_size;
	uint64_t stored; /* bytes of it that the image has: its file needs room for them */
	uint64_t guest_address; /* guest physical, or HANDOFF_NO_ADDRESS: in pieces, unknown */
};

/*
 * Starts to listen.  The server is borrowed and told of every failure.  end: for a VMM that
 * cannot reach the path, its end of a conversation that is open already, which the
 * caller closes; or NULL.
 */
int handoff_new(struct handoff **out, struct pager *server,
    const struct handoff_region *regions, size_t n, int *end, struct err *e);

/*
 * The same, as another supervisor has left it in the server's ledger: all conversations go
 * on, and requests that were not answered are.
 */
int handoff_inherit(struct handoff **out, struct pager *server, struct err *e);

/* The path for the environment of the VMM. */
const char *handoff_path(const struct handoff *h);

/*
 * When a VMM last gave a region its memory, CLOCK_MONOTONIC ns; 0: never; UINT64_MAX: it is
 * being taken just now.
 */
uint64_t handoff_last_memory(const struct handoff *h);

/* How many processes have said hello, ever; 0: the shim was never loaded. */
unsigned handoff_hellos(const struct handoff *h);

/* The processes that have handed over memory and are still alive; at most max, their number. */
size_t handoff_processes(struct handoff *h, pid_t *pids, size_t max);

/*
 * Looks whether a process shows the memory in a mapping that was not handed over,
 * where it would read zeros.  ERR_FAILED names it.
 */
int handoff_check(struct handoff *h, struct err *e);

/*
 * Kills (SIGKILL) every process that has handed over memory; the server may
 * be freed when they are gone.
 */
void handoff_kill(struct handoff *h);

/* Stops listening. */
void handoff_free(struct handoff *h);

#endif
