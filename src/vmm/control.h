/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CONTROL_H
#define GMEM_VMM_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "serve/protect.h"
#include "memory/kind.h"

/*
 * The control messages of the hand-off (gmem-handoff.h), from the side of gmem-snap:
 * connects to a VMM, which gives its memory and is paused, asked for its state and resumed.
 *
 * Every wait has a time limit and ends when the stop descriptor becomes readable
 * (ERR_INTERRUPTED; sysno is SIGINT, who knows better sets it).  The peer is not trusted:
 * what makes no sense is ERR_CORRUPT.  When the connection ends, however that
 * comes, the VMM resumes by itself.  One thread at a time.
 */
struct control;

/* A piece of the guest's memory. */
struct control_region {
	char name[256]; /* good for an image; all names differ */
	enum memory_kind kind; /* this and page_size as the descriptor itself tells */
	uint64_t page_size; /* bytes */
	dev_t dev;
	ino_t ino;
	int fd; /* readable; owned by struct control */
	uint64_t offset, size; /* its part of the descriptor; bytes, multiples of 4 KiB */
	bool placed; /* … */
	uint64_t guest_address; /* … at this guest physical address */
};

struct control_dial {
	int timeout_ms; /* for the connection and for each answer */
	int stop_fd; /* borrowed; readable when the user wants out, or -1 */
};

#define CONTROL_DIAL_INIT                                                                      \
	{                                                                                      \
		.timeout_ms = 30000, .stop_fd = -1                                             \
	}

/* Connects, says hello, and checks what is answered. */
int control_open(
    struct control **out, const char *path, const struct control_dial *how, struct err *e);

/* The same over a connected socket, which it takes (also when it fails). */
int control_open_fd(
    struct control **out, int sock, const struct control_dial *how, struct err *e);

/* Ends the conversation, and with it a pause.  NULL is fine. */
void control_close(struct control *c);

/* The process at the other end (SO_PEERCRED); 0 if it is in a PID namespace we can't see. */
pid_t control_pid(const struct control *c);

/* What the VMM calls itself, "minivmm 1"; "" if it does not say.  Printable ASCII. */
const char *control_vmm(const struct control *c);

/* Its memory, n pieces; borrowed. */
const struct control_region *control_regions(const struct control *c, size_t *n);

/* Until the VM stands still. */
int control_pause(struct control *c, struct err *e);

/* Whether it stood still before that, as far as the VMM has answered. */
bool control_was_paused(const struct control *c);

/*
 * Whether the VM may have been paused by us: false before control_pause, and when that was
 * refused.
 */
bool control_may_be_paused(const struct control *c);

/*
 * The VMM's state: a file whose bytes from 0 to its end are wanted, *fd, which is
 * the caller's, *size bytes, and its name, "" if the VMM gives none that is valid.
 */
int control_state(struct control *c, int *fd, uint64_t *size, char name[256], struct err *e);

/* Whether the VMM says that it knows control_protect. */
bool control_can_protect(const struct control *c);

/*
 * Asks for what it takes to write-protect the memory of a VM that is not paused yet: a new
 * userfaultfd of the VMM, *uffd, and all its mappings.  Both are the caller's (close, free).
 * The protection is in place as long as the conversation, at most.
 */
int control_protect(
    struct control *c, int *uffd, struct protect_mapping **list, size_t *n, struct err *e);

/*
 * Undoes control_pause, also one that was given up on.  Does not look at the stop
 * descriptor.  *refused: the VMM is there, and says no.
 */
int control_resume(struct control *c, bool *refused, struct err *e);

#endif
