/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QMP_H
#define GMEM_VMM_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * A client of the QEMU Machine Protocol over a UNIX socket (the protocol:
 * QEMU's docs/interop/qmp-spec).  One command at a time, from one thread.
 *
 * Every wait has a time limit, ends when the stop descriptor becomes readable
 * (ERR_INTERRUPTED; sysno is SIGINT, who knows better sets it) and ends when the
 * VMM exits.  The peer is not trusted: messages longer than 16 MiB, nested
 * deeper than 64 or of the wrong type are ERR_CORRUPT.  Each command carries
 * an id and every reply with another id is skipped, as are events: after a time
 * limit or an interruption the connection can still be used.
 */
struct qmp;

struct qmp_version {
	unsigned major, minor, micro;
	char package[96]; /* what the distributor adds, or "" */
};

/* How to connect, and how long to wait; QMP_DIAL_INIT waits for nobody. */
struct qmp_dial {
	int timeout_ms; /* for the socket, the greeting and each command */
	bool retry; /* wait until the socket is there: the VMM is just starting */
	int stop_fd; /* borrowed; readable when the user wants out, or -1 */
	int vmm_pidfd; /* borrowed; the VMM, so that waiting ends with it, or -1 */
};

#define QMP_DIAL_INIT                                                                          \
	{                                                                                      \
		.timeout_ms = 30000, .stop_fd = -1, .vmm_pidfd = -1                            \
	}

/* Connects, reads the greeting and negotiates the capabilities (none). */
int qmp_connect(struct qmp **out, const char *path, const struct qmp_dial *how, struct err *e);

/* The same over a connected socket, which it takes (also when it fails). */
int qmp_connect_fd(struct qmp **out, int fd, const struct qmp_dial *how, struct err *e);

/* NULL is fine. */
void qmp_close(struct qmp *q);

/* Borrowed. */
const struct qmp_version *qmp_version(const struct qmp *q);
bool qmp_at_least(const struct qmp *q, unsigned major, unsigned minor);

/* The process at the other end (SO_PEERCRED), 0 if it is in a PID namespace we can't see. */
pid_t qmp_peer_pid(const struct qmp *q);

/*
 * How often the VM was said to run on or to be reset, by whomever (events RESUME, RESET), as
 * far as messages were read: all that came before the reply to the last command.
 */
uint64_t qmp_moves(const struct qmp *q);

/* The socket, borrowed: for a process that carries on with it (vmm/guard.h). */
int qmp_fd(const struct qmp *q);

/* Replace what qmp_connect was given; both return what was set before. */
int qmp_set_timeout(struct qmp *q, int timeout_ms);
int qmp_set_stop(struct qmp *q, int stop_fd);

/*
 * Sends a command and waits for its reply.  args is taken, also on failure;
 * NULL is none.  *ret (if ret is not NULL) is the caller's.  An error reply
 * is ERR_FAILED: QEMU refused "migrate": what it said.
 */
int qmp_command(struct qmp *q, const char *name, json_t *args, json_t **ret, struct err *e);

/* Text from the VMM as it may stand in a message: one line, no control characters; size > 0. */
void qmp_one_line(char *to, size_t size, const char *text);

/* A command of the human monitor; *text is malloc'd. */
int qmp_hmp(struct qmp *q, const char *line, char **text, struct err *e);

/* Gives the VMM a copy of fd under a name (getfd), for "fd:NAME". */
int qmp_send_fd(struct qmp *q, int fd, const char *name, struct err *e);

/*
 * A descriptor to be served during every wait, such as a pipe that must be
 * drained while QEMU works on an answer.  ready runs when poll reports
 * anything on fd; it sets fd to -1 when it is through.  An error from it ends the wait.
 */
struct qmp_watch {
	int fd;
	short events;
	int (*ready)(void *arg, struct err *e);
	void *arg;
};

/* Borrowed until replaced; NULL is none. */
void qmp_watch(struct qmp *q, struct qmp_watch *watch);

/* Waits for ms, or less if the watch was served; messages that come are skipped. */
int qmp_wait(struct qmp *q, int ms, struct err *e);

/*
 * Carries on with a connection that another process (which has died) used until
 * anywhere: resets the VMM's parser with a byte 0xFF, forgets what was half
 * read, and skips what can't be understood until the first reply to this process.
 */
int qmp_resync(struct qmp *q, struct err *e);

#endif
