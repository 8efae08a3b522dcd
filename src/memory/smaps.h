/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_SMAPS_H
#define GMEM_MEMORY_SMAPS_H

#include <stdio.h>

#include "memory/maps.h"

/* Reading /proc/PID/smaps, one mapping after the other, as it comes. */
struct smaps {
	FILE *file; /* owned */
	char *head, *line; /* owned; of the mapping, and about it */
	size_t head_room, line_room;
};

struct smaps_entry {
	struct maps_entry map; /* also without a file; its path is borrowed */
	const char *flags; /* "VmFlags: rd wr … um"; borrowed, until the next */
};

/* ERR_SYS if the process is gone or not ours to see. */
int smaps_open(struct smaps *s, pid_t pid, struct err *e);

/* The same of an open file, which it takes. */
void smaps_take(struct smaps *s, FILE *file);
void smaps_close(struct smaps *s);

/* The next mapping whose flags are told: 1, 0 at the end, -1. */
int smaps_next(struct smaps *s, struct smaps_entry *out, struct err *e);

/* Of two letters: "um", "ui": missing pages, minor faults go to a userfaultfd. */
bool smaps_has(const struct smaps_entry *entry, const char *flag);

#endif
