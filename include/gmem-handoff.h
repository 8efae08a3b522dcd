/* SPDX-License-Identifier: 0BSD */
#ifndef GMEM_HANDOFF_H
#define GMEM_HANDOFF_H

/*
 * The gmem hand-off, version 1: what goes over the socket between a VMM and
 * gmem-restore, or gmem-snap.  gmem-handoff(7) is the norm, gmem-handoff-client.h
 * speaks it for a VMM.
 *
 * A SOCK_SEQPACKET UNIX socket.  Each packet is a struct gmem_message, descriptors
 * ride along by SCM_RIGHTS.  The client sends a request and waits for its reply.
 */

#include <stdint.h>

#define GMEM_HANDOFF_ENV "GMEM_HANDOFF" /* the path of a socket, or "fd:N" */
#define GMEM_HANDOFF_VERSION 1u
#define GMEM_REGIONS_MAX 64u
#define GMEM_MAPPINGS_MAX 512u
#define GMEM_NO_ADDRESS UINT64_MAX
#define GMEM_NO_FD UINT32_MAX

enum gmem_message_type {
	/* to gmem-restore, from a VMM */
	GMEM_HELLO = 1, /* → WELCOME, with the descriptors that are offered, and a lifeline */
	GMEM_MEMORY = 2, /* region, offset; a descriptor, or two: memory, bitmap */
	GMEM_USERFAULTFD = 3, /* a descriptor, no handshake made */
	GMEM_MAP = 4, /* region, address, length, offset, guest_address */
	GMEM_UNMAP = 5, /* address, length; before munmap(2) */
	GMEM_DISCARD = 6, /* region, offset, length; before a hole is punched */
	GMEM_FAULT = 7, /* region, offset: a vCPU has left the guest for this page */
	GMEM_REFUSE = 8, /* text: why the client cannot go on */
	/* to a VMM, from gmem-snap; HELLO too */
	GMEM_PAUSE = 64,
	GMEM_STATE = 65, /* → OK with a descriptor of a file */
	GMEM_RESUME = 66,
	GMEM_PROTECT = 67, /* → MAPPINGS; only after a WELCOME with GMEM_CAN_PROTECT */
	/* replies */
	GMEM_WELCOME = 128,
	GMEM_OK = 129,
	GMEM_ERROR = 130, /* text */
	GMEM_MAPPINGS = 131, /* of a VMM: count; a descriptor, a new userfaultfd */
};

/* flags */
#define GMEM_SLOTS 1u /* MEMORY: vCPUs reach it past the mapping, by KVM_MEM_GUEST_MEMFD */
#define GMEM_COMPLETE 1u /* OK after MEMORY: all of it is there, nothing is left to serve */
#define GMEM_WAS_PAUSED 1u /* OK after PAUSE: the VM stood still before */
#define GMEM_CAN_PROTECT 1u /* WELCOME of a VMM: it answers PROTECT */

/*
 * One packet; WELCOME goes on with `count` regions, MAPPINGS with as many struct
 * gmem_mapping.  In the byte order of the machine.
 */
struct gmem_message {
	uint32_t version; /* GMEM_HANDOFF_VERSION */
	uint32_t type; /* enum gmem_message_type */
	uint32_t region;
	uint32_t count;
	uint64_t address; /* in the VMM, page-aligned */
	uint64_t length; /* bytes */
	uint64_t offset; /* bytes; in the region, but for MEMORY */
	uint64_t guest_address; /* guest physical, or GMEM_NO_ADDRESS */
	uint32_t flags;
	uint32_t reserved; /* 0 */
	char text[200]; /* NUL-terminated */
};

struct gmem_region {
	char name[256];
	uint64_t dev, ino; /* of the descriptor, as fstat(2) tells; 0 without one */
	uint64_t size; /* bytes */
	uint64_t page_size; /* of the memory behind it, bytes */
	uint64_t offset; /* where it begins in the descriptor */
	uint64_t guest_address; /* guest physical, or GMEM_NO_ADDRESS: unknown, or in pieces */
	uint32_t fd; /* the descriptor's place in the client, or GMEM_NO_FD: bring your own */
	uint32_t reserved;
};

/* A shared mapping of a region in the VMM: whole pages of it, bytes. */
struct gmem_mapping {
	uint64_t address, length;
	uint64_t offset; /* in the region */
	uint32_t region;
	uint32_t reserved; /* 0 */
};

#endif
