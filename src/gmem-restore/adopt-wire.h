/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_ADOPT_WIRE_H
#define GMEM_RESTORE_ADOPT_WIRE_H

#include <stdint.h>

/*
 * What gmem-restore --adopt and a keeper say to each other, in whole structures on a stream
 * socket.  The two may be of different versions of gmem.
 */
#define ADOPT_VERSION 1u

enum adopt_type {
	ADOPT_PLEASE = 1, /* to the keeper, with two descriptors: stdout and stderr */
	ADOPT_SIGNAL, /* to the keeper: number, for the supervisor */
	ADOPT_REFUSED, /* text */
	ADOPT_TAKEN, /* supervisor, vmm: their processes */
	ADOPT_ENDED, /* number: how the supervisor has ended, as wait(2) tells */
	ADOPT_LOST, /* the supervisor was killed, and the VM waits again */
};

struct adopt_message {
	uint32_t version;
	uint32_t type;
	int32_t number;
	int32_t supervisor, vmm;
	char text[256];
};

#endif
