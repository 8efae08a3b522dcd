/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_KEEPER_INTERNAL_H
#define GMEM_RESTORE_KEEPER_INTERNAL_H

#include "gmem-restore/keeper.h"
#include "gmem-restore/listen-socket.h"
#include "serve/ledger-wire.h"

/*
 * keeper.c: the process; keeper-ledger.c: what it is told; keeper-vmm.c: the VMM's processes;
 * keeper-place.c: the socket where it is found; keeper-ask.c: the supervisor's side.
 */

#define KEEPER_WAITING 8u

struct keeper {
	const struct options *o;
	keeper_supervisor *next;
	struct listen_socket place;
	char path[108];

	/* Of the supervisor. */
	pid_t supervisor;
	bool is_child; /* it is ours: not the first one */
	bool serves; /* it talks to us still */
	bool gone; /* it and all of its page servers are dead */
	bool done; /* it has said that the VMM is over */
	int sock, events, life;
	bool reaped; /* it was a child, and has ended so: */
	int supervisor_status; /* as wait(2) tells */
	struct ledger_entries entries, pending; /* pending: data NULL, len 1: is dropped */
	struct ledger_message message;

	/* Of the VMM. */
	int signals; /* SIGCHLD */
	bool launched;
	pid_t vmm; /* 0: it has ended */
	int status;

	/* Who wants to adopt it: has connected; has been heard. */
	struct keeper_caller {
		int sock; /* -1: none */
		bool asks;
		uint64_t since; /* ns */
		int out[2]; /* stdout and stderr, owned */
	} waiting[KEEPER_WAITING], adopter;
};

/* ---- keeper-ledger.c ---- */

/* One message of the supervisor's; false: it has hung up. */
bool keeper_hear(struct keeper *k);

/* What it has not committed was never said. */
void keeper_forget_pending(struct keeper *k);

/* ---- keeper-vmm.c ---- */

void keeper_do_launch(struct keeper *k, struct ledger_answer *a, int *pidfd);

/* The supervisor is told that something has changed. */
void keeper_reap(struct keeper *k);

/* Children of the VMM's that are left, or whoever else has the memory. */
bool keeper_has_vmm(struct keeper *k);
bool keeper_has_children(struct keeper *k);
void keeper_kill_vmm(struct keeper *k);

/* ---- keeper-place.c ---- */

int keeper_open_place(struct keeper *k, struct err *e);

struct pollfd;
#define KEEPER_PLACE_POLLS (KEEPER_WAITING + 2)
void keeper_place_polls(const struct keeper *k, struct pollfd *polls);

/* Milliseconds until somebody is to be looked at again, or -1. */
int keeper_place_wait(const struct keeper *k);

/* Whoever has connected, asked, or gone. */
void keeper_place_look(struct keeper *k, const struct pollfd *polls);

/* The first who asks is the adopter: true. */
bool keeper_take_adopter(struct keeper *k);

/* Tells him how it has ended, or that nobody serves any more, and forgets him. */
void keeper_dismiss(struct keeper *k, bool ended, int status);

/* Tells him that it is his. */
void keeper_welcome(struct keeper *k);

#endif
