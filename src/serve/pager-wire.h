/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PAGER_WIRE_H
#define GMEM_SERVE_PAGER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/err.h"
#include "format/layout.h"
#include "serve/server.h"

/*
 * What gmem-restore and its page server say to each other: whole messages on
 * SOCK_SEQPACKET sockets, as the two lie in memory.  Both are of one machine; of one build they
 * need not be (a page server is replaced by a newer one): the number of the version is.
 *
 * The conversation begins with HELLO and OPEN on the control socket; then it carries channels
 * and, the other way, events.  Each channel carries a request and its reply at a time.
 *
 * The page server reads images that nobody has checked, so what it says is not believed: each
 * side looks at every field before it uses it.
 */
#define PAGER_VERSION 2u
#define PAGER_FD 3 /* the control socket of the page server */

enum pager_type {
	/* To the page server, on the control socket. */
	PAGER_OPEN = 1, /* struct pager_open follows; image, list, lifeline: a reply comes */
	PAGER_CHANNEL, /* a socket for requests */
	PAGER_BYE, /* no process is served any more: it may close everything */
	/* From it. */
	PAGER_HELLO, /* struct pager_event: it runs, and speaks this version */
	PAGER_EVENT, /* struct pager_event: something has changed */
	/* On a channel, each with a reply of the same type. */
	PAGER_ADD_MEMORY, /* the memory, its claims */
	PAGER_ADD_FOREIGN, /* its claims */
	PAGER_ADD_PROCESS, /* the userfaultfd */
	PAGER_ADOPT_PROCESS, /* the userfaultfd, the buffer of its events */
	PAGER_REMOVE_PROCESS,
	PAGER_ADD_MAPPING,
	PAGER_REMOVE_MAPPING,
	PAGER_DISCARD,
	PAGER_PROVIDE,
	PAGER_FAULT,
	PAGER_FAULT_REST,
	PAGER_START,
	PAGER_RESUME,
	PAGER_FAIL,
	PAGER_COUNTS, /* struct pager_stats follows, without histograms */
	PAGER_STATS, /* the same, with them */
	PAGER_RECORD_LOOK, /* value: full; number: pages */
	PAGER_RECORD_ASK,
	PAGER_RECORD_END,
	PAGER_RECORD_TAKE, /* a descriptor: the trace, without its end */
	PAGER_HITS, /* value: there are any; number, number2 */
	PAGER_TYPES
};

#define PAGER_FDS_MAX 4u

/* Flags of requests. */
#define PAGER_SLOTS 1u /* ADD_MEMORY: served_memory.slots */
#define PAGER_SOURCE 2u /* served_memory.source */
#define PAGER_BITMAP 4u /* a descriptor more: served_memory.bitmap */

struct pager_error {
	uint32_t kind;
	int32_t sysno;
	char msg[512];
};

struct pager_request {
	uint32_t version;
	uint32_t type;
	uint32_t flags;
	uint32_t process; /* as ADD_PROCESS has named it */
	uint64_t object;
	uint64_t hva, len, offset;
	uint64_t page_size;
	struct pager_error error; /* FAIL */
};

#define PAGER_COMPLETE 1u /* in reply to ADD_*: all of it is there */

struct pager_reply {
	uint32_t version;
	uint32_t type;
	uint32_t failed; /* with an error */
	uint32_t value; /* the process; the engine; … */
	uint32_t flags;
	uint32_t reserved;
	uint64_t number, number2;
	struct pager_error error;
};

/* Behind a request of type OPEN. */
struct pager_open {
	uint32_t nworkers, nfillers;
	uint32_t background, engine, record, on_error;
	uint32_t resume; /* server_options.resume */
	uint32_t kept; /* the last descriptor is held to the end, and who hangs up ends us */
	uint32_t reserved;
	uint32_t prefetch_kind, prefetch_nthreads, prefetch_io;
	uint64_t background_rate;
	uint64_t nlist; /* pages in the second descriptor, if not 0 */
	uint32_t place_how, place_urgency;
	uint32_t io_timeout;
	cpu_set_t place_cpus;
	uint32_t log_level;
	uint8_t root[DIGEST_SIZE]; /* of the image: it may have been overwritten meanwhile */
	char path[512]; /* the image's name, for messages */
};

struct pager_event {
	uint32_t version;
	uint32_t type;
	uint32_t state; /* enum server_state */
	uint32_t prefetched;
	struct pager_error error; /* SERVER_FAILED */
};

/* Behind a reply to COUNTS and STATS. */
struct pager_stats {
	struct server_times times;
	uint64_t user_us, system_us; /* of the page server's CPU */
	struct serve_stats stats; /* COUNTS: up to .latency */
};

#define PAGER_COUNTS_SIZE                                                                      \
	(offsetof(struct pager_stats, stats) + offsetof(struct serve_stats, latency))

#define PAGER_MESSAGE_MAX (sizeof(struct pager_reply) + sizeof(struct pager_stats))

/* A message as it goes or comes: head, tail, descriptors. */
struct pager_message {
	const void *head, *tail;
	size_t head_len, tail_len;
	const int *fds;
	unsigned nfds;
	bool now; /* not waiting for room: sysno EAGAIN then */
};

int pager_send(int sock, const struct pager_message *m, struct err *e);

/*
 * The next message: its length, 0 when the other side has hung up, -1.  Descriptors are the
 * caller's to close (-1: none); more than PAGER_FDS_MAX are an error.  Waits.
 */
ssize_t pager_receive(int sock, void *buf, size_t size, int fds[PAGER_FDS_MAX], struct err *e);

void pager_close_fds(int fds[PAGER_FDS_MAX]);

void pager_error_set(struct pager_error *to, const struct err *from);

/* What is no error of ours becomes ERR_FAILED, what can't be printed '?'; no message is one. */
void pager_error_get(struct err *to, const struct pager_error *from);

#endif
