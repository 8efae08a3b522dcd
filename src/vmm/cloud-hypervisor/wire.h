/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CLOUD_HYPERVISOR_WIRE_H
#define GMEM_VMM_CLOUD_HYPERVISOR_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Cloud Hypervisor's migration protocol, which is also how it gives its state to
 * somebody else on the same machine and takes it back: requests with a payload, each answered
 * before the next, over a UNIX socket.  Integers are little-endian.
 */

enum ch_command {
	CH_START = 1,
	CH_CONFIG = 2,
	CH_STATE = 3,
	CH_MEMORY = 4,
	CH_COMPLETE = 5, /* and run */
	CH_ABANDON = 6,
	CH_MEMORY_FD = 7,
	CH_COMPLETE_PAUSED = 8,
	CH_PAGE_FAULT = 9,
};

#define CH_PROTOCOL 0 /* the version that Start tells */

#define CH_HEADER_SIZE 16
#define CH_RANGE_SIZE 16
#define CH_SLOT_SIZE 4
#define CH_ROLE_SIZE 2
#define CH_ROLE_FAULT 2 /* of a further connection: it asks us for pages */

#define CH_PAYLOAD_MAX (64u << 20) /* of Config, State, and the table of Memory; bytes */
#define CH_PAGE_MAX (1u << 30)

/* What the header of a request says. */
struct ch_request {
	enum ch_command command;
	uint16_t protocol; /* of Start */
	uint64_t length; /* of the payload, bytes */
};

struct ch_range {
	uint64_t gpa, length; /* bytes */
};

/* "MemoryFd" */
const char *ch_command_name(enum ch_command command);

/* ERR_CORRUPT for a command that there is not, or a length that it cannot have. */
int ch_request_parse(struct ch_request *r, const uint8_t bytes[CH_HEADER_SIZE], struct err *e);
void ch_request_format(uint8_t bytes[CH_HEADER_SIZE], enum ch_command command, uint64_t length);

/* *ok: the status; ERR_CORRUPT for one that there is not. */
int ch_response_parse(
    bool *ok, uint64_t *length, const uint8_t bytes[CH_HEADER_SIZE], struct err *e);
void ch_response_format(uint8_t bytes[CH_HEADER_SIZE], bool ok, uint64_t length);

void ch_range_parse(struct ch_range *r, const uint8_t bytes[CH_RANGE_SIZE]);
void ch_range_format(uint8_t bytes[CH_RANGE_SIZE], const struct ch_range *r);

/* Whether this may be one JSON object and nothing else: what is open is closed. */
bool ch_json_is_whole(const void *text, size_t len);

/* ---- a connection ---- */

/* Descriptors are borrowed.  Each read and each write has a limit of its own. */
struct ch_link {
	int fd;
	int timeout_ms; /* -1 for ever */
	int stop_fd; /* readable: somebody wants out; or -1 */
};

/*
 * Exactly len bytes; descriptors that come with them are closed.  what: what
 * we wait for, in messages.  *eof (if not NULL, and the peer hangs up before the first byte)
 * is set and is no error.
 */
int ch_link_read(
    const struct ch_link *l, void *buf, size_t len, bool *eof, const char *what, struct err *e);

/*
 * The same into memory that is the caller's then, or NULL: as long as it has not come, it costs
 * no more than three times of what has.
 */
void *ch_link_read_new(const struct ch_link *l, uint64_t len, const char *what, struct err *e);

/* As ch_link_read, with exactly one descriptor, which is the caller's. */
int ch_link_read_fd(
    const struct ch_link *l, void *buf, size_t len, int *fd, const char *what, struct err *e);

/*
 * All of it; fd goes with the first byte unless it is -1.  The sysno of the error is EPIPE
 * when the peer has hung up.
 */
int ch_link_write(const struct ch_link *l, const void *buf, size_t len, int fd,
    const char *what, struct err *e);

/* Requests and responses over it. */
int ch_link_request(
    const struct ch_link *l, struct ch_request *r, bool *eof, const char *what, struct err *e);
int ch_link_respond(const struct ch_link *l, bool ok, uint64_t length, struct err *e);

/* A request with its payload, answered OK or else an error that names the step. */
int ch_link_command(const struct ch_link *l, enum ch_command command, const void *payload,
    size_t len, int fd, struct err *e);

/* The answer to what was sent already. */
int ch_link_expect_ok(const struct ch_link *l, enum ch_command command, struct err *e);

#endif
