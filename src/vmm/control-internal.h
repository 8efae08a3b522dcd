/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_CONTROL_INTERNAL_H
#define GMEM_VMM_CONTROL_INTERNAL_H

#include <stdbool.h>

#include "gmem-handoff-client.h"
#include "vmm/control.h"

/* What the files of the control conversation share. */

struct control {
	int sock;
	int timeout_ms;
	int stop_fd; /* borrowed, or -1 */
	pid_t pid;
	char vmm[sizeof(((struct gmem_message *)0)->text)];
	struct control_region regions[GMEM_REGIONS_MAX];
	size_t nregions;
	uint32_t asked; /* the last request … */
	bool pending; /* … which was not answered yet */
	bool broken; /* nothing that could come makes sense any more */
	bool may_be_paused, was_paused, can_protect;
};

/* A reply, with its descriptors. */
struct reply {
	struct gmem_message m;
	union {
		struct gmem_region regions[GMEM_REGIONS_MAX]; /* WELCOME */
		struct gmem_mapping mappings[GMEM_MAPPINGS_MAX]; /* MAPPINGS */
	};
	size_t more; /* bytes of them */
	int fds[GMEM_REGIONS_MAX];
	size_t nfds;
};

/* One request and its reply, of the type `want`. */
int control_request(struct control *c, uint32_t type, uint32_t want, const char *what,
    struct reply *r, struct err *e);

/* Closes the descriptors that are left in it. */
void control_reply_fini(struct reply *r);

#endif
