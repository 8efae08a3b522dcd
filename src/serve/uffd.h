/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_UFFD_H
#define GMEM_SERVE_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * userfaultfd, one call each.  A descriptor belongs to the address space of the
 * process that created it; the calls work from any process.  Addresses are
 * those of that process (hva), page-aligned; lengths are bytes.
 */

/* What a fault told. */
struct uffd_fault {
	uint64_t hva; /* as reported: not aligned */
	bool write; /* the access was a write */
	bool minor; /* the page is in the page cache and only has to be mapped */
};

/*
 * Opens /dev/userfaultfd for the uffd_create of a process that can open nothing later, before
 * there are threads.  False: there is none, or not for us; uffd_create calls userfaultfd(2).
 */
bool uffd_keep_device(void);

/* A new descriptor of this process: /dev/userfaultfd first, then userfaultfd(2). */
int uffd_create(int *fd, struct err *e);

/* The handshake; must be done once for each descriptor.  ERR_UNSUPPORTED without MINOR_SHMEM.
 */
int uffd_handshake(int fd, uint64_t *features, struct err *e);

/* Whether it is a userfaultfd that had its handshake. */
bool uffd_is_ready(int fd, struct err *e);

/* It is read waiting, as after uffd_handshake. */
int uffd_block(int fd, struct err *e);

/*
 * Takes a descriptor that had its handshake, whose owner has registered ranges: fails if it is
 * none.  It is read without waiting from then on, which most owners have asked for anyway; of
 * a blocking one poll(2) tells nothing.
 */
int uffd_adopt(int fd, struct err *e);

/* The same once more: its owner shares the flag, and may have taken it away. */
int uffd_unblock(int fd, struct err *e);

/* MISSING and MINOR events for [hva, hva + len). */
int uffd_register(int fd, uint64_t hva, uint64_t len, struct err *e);
int uffd_register_missing(int fd, uint64_t hva, uint64_t len, struct err *e); /* these only */
int uffd_unregister(int fd, uint64_t hva, uint64_t len, struct err *e);

/*
 * Reads up to max events, waiting for the first.  Faults go to list; their
 * number, 0 when interrupted by a signal, -1.
 */
int uffd_read(int fd, struct uffd_fault *list, size_t max, struct err *e);

/*
 * The same without waiting: 0 when there is nothing, or when this kernel (before
 * 6.10) cannot tell without waiting.
 */
int uffd_peek(int fd, struct uffd_fault *list, size_t max, struct err *e);

/* What a message of an adopted descriptor tells. */
struct uffd_event {
	enum {
		UFFD_EV_FAULT,
		UFFD_EV_REMOVE, /* [start, end) is about to be discarded */
		UFFD_EV_UNMAP, /* [start, end) is about to be unmapped */
		UFFD_EV_OTHER, /* what nobody can serve: name */
	} kind;
	struct uffd_fault fault;
	uint64_t start, end;
	const char *name;
};

#define UFFD_EVENTS_MAX 16
#define UFFD_EVENTS_BYTES (UFFD_EVENTS_MAX * 32u) /* of their messages */

/*
 * Reads up to UFFD_EVENTS_MAX messages of an adopted descriptor without waiting; their
 * number, -1.  Faults come first, then the rest in their order.  Whoever discards or unmaps
 * goes on as soon as it was read.
 *
 * slot: UFFD_EVENTS_BYTES that the messages are read into, and stay in until the next call
 * begins; or NULL.  If this process dies meanwhile, uffd_slot_events has what it has read.
 */
int uffd_read_events(
    int fd, void *slot, struct uffd_event list[UFFD_EVENTS_MAX], struct err *e);

/* What is in the slot: so many messages. */
int uffd_slot_events(const void *slot, struct uffd_event list[UFFD_EVENTS_MAX]);

/* What became of a range. */
enum uffd_result {
	UFFD_DONE, /* every page is mapped, and whoever waited is awake */
	UFFD_HOLE, /* *done bytes on there is a page that is not in the page cache */
	UFFD_PRESENT, /* there is a page already; it was left alone, and nobody woken */
	UFFD_BUSY, /* mappings are changing: events have to be read, then it may be tried again
		    */
	UFFD_GONE, /* the range is not registered any more, or not mapped */
	UFFD_DEAD, /* the process has no address space any more */
	UFFD_FAILED, /* *e tells */
};

/*
 * Maps pages that are in the page cache and wakes whoever waits for them.
 * Pages that are mapped already are woken too (the kernel does not).
 * page_size is that of the memory behind.
 */
enum uffd_result uffd_continue(
    int fd, uint64_t hva, uint64_t len, uint64_t page_size, uint64_t *done, struct err *e);

/*
 * Gives pages of zeros, of 4 KiB, where there are none, and wakes whoever waits for them.  One
 * call: with UFFD_PRESENT there may be some, whose number nobody knows, and the rest is as it
 * was.  UFFD_HOLE does not happen.
 */
enum uffd_result uffd_zeropage(int fd, uint64_t hva, uint64_t len, struct err *e);

/*
 * Gives copies of whole pages where there are none, and wakes whoever waits for them.  One
 * call: with UFFD_DONE *done bytes are there, maybe not all; else none.  UFFD_HOLE does not
 * happen.  A lack of memory is an error with sysno ENOMEM.
 */
enum uffd_result uffd_copy(
    int fd, uint64_t hva, const void *from, uint64_t len, uint64_t *done, struct err *e);

/*
 * Poisons pages of 4 KiB that are not mapped: whoever touches them gets SIGBUS (a guest: a
 * memory error), and who waits for them is woken for that.  One call, results as of
 * uffd_zeropage; a page that is mapped stays, and a copied or continued one takes the place of
 * a poisoned one. UFFD_FAILED with ERR_UNSUPPORTED: this kernel, or this kind of memory, knows
 * no such thing.
 */
enum uffd_result uffd_poison(int fd, uint64_t hva, uint64_t len, struct err *e);

/* Whether these features, of a handshake, have that (Linux 6.6). */
bool uffd_can_poison(uint64_t features);

/* Wakes whoever waits in the range; a fault that is not resolved comes again. */
enum uffd_result uffd_wake(int fd, uint64_t hva, uint64_t len, struct err *e);

/* How to get the permission, for messages. */
#define UFFD_PERMISSION_HELP                                                                   \
	"allow access to /dev/userfaultfd (chmod or setfacl), or set sysctl "                  \
	"vm.unprivileged_userfaultfd=1, or give it CAP_SYS_PTRACE"

#endif
