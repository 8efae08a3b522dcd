/* SPDX-License-Identifier: 0BSD */
#ifndef GMEM_HANDOFF_H
#define GMEM_HANDOFF_H

/*
 * The gmem hand-off, version 1: how a VMM asks gmem-restore to serve its memory.
 *
 * A SOCK_SEQPACKET UNIX socket, whose path is in the environment variable
 * GMEM_HANDOFF.  Each packet is a struct gmem_message in the byte order of the
 * machine, descriptors ride along by SCM_RIGHTS.  The client sends a request
 * and waits for the one reply; an error reply says why in `text`.
 *
 *	HELLO	     → WELCOME with `count` objects, and a descriptor for each,
 *		       then one more: the lifeline, a pipe that hangs up when
 *		       gmem-restore dies.  Who has mapped memory must not outlive it.
 *	USERFAULTFD  with a new userfaultfd of the client, no handshake made → OK.
 *	MAP	     `address`, `length`, `object`, `offset`: a shared mapping of an
 *		     object that nobody has touched yet → OK: it is registered.
 *	UNMAP	     `address`, `length`, before munmap(2) → OK.
 *	DISCARD	     `object`, `offset`, `length`, before a hole is punched → OK:
 *		     nobody will write these pages any more, they are zeros now.
 *	REFUSE	     the client cannot go on; `text` says why → OK.
 */

#include <stdint.h>

#define GMEM_HANDOFF_ENV "GMEM_HANDOFF"
#define GMEM_HANDOFF_VERSION 1u
#define GMEM_HANDOFF_OBJECTS_MAX 64u

enum gmem_message_type {
	GMEM_HELLO = 1,
	GMEM_USERFAULTFD = 2,
	GMEM_MAP = 3,
	GMEM_UNMAP = 4,
	GMEM_DISCARD = 5,
	GMEM_REFUSE = 6,
	/* replies */
	GMEM_WELCOME = 128,
	GMEM_OK = 129,
	GMEM_ERROR = 130,
};

struct gmem_message {
	uint32_t version; /* GMEM_HANDOFF_VERSION */
	uint32_t type; /* enum gmem_message_type */
	uint32_t object;
	uint32_t count; /* WELCOME: objects */
	uint64_t address; /* in the client, page-aligned */
	uint64_t length; /* bytes */
	uint64_t offset; /* bytes, in the object */
	uint64_t reserved; /* 0 */
	char text[208]; /* NUL-terminated */
};

/*
 * What follows the message in a WELCOME, `count` times.  The client puts the
 * descriptor at the number `fd`, which is the one in the paths that replace
 * {mem} in its arguments.
 */
struct gmem_object {
	char name[256];
	uint64_t dev, ino; /* as fstat(2) tells */
	uint64_t size; /* bytes */
	uint64_t page_size;
	uint32_t fd;
	uint32_t reserved;
};

#endif
