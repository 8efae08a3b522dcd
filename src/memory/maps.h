/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_MAPS_H
#define GMEM_MEMORY_MAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Reading /proc/PID/maps, one file mapping after the other. */
struct maps {
	pid_t pid;
	char *text; /* owned; lines end in NUL */
	const char *next, *end;
	struct {
		dev_t dev, shown; /* what maps_dev found where maps shows that … */
		ino_t ino; /* … for this file; 0: for none yet */
	} last;
};

struct maps_entry {
	uint64_t start, end, offset; /* bytes; addresses in the process */
	bool shared, writable;
	dev_t dev;
	ino_t ino;
	const char *path; /* as the kernel prints it; borrowed from struct maps */
};

/* Takes a copy of the list as it is now.  ERR_SYS if the process is gone or not ours to see. */
int maps_open(struct maps *m, pid_t pid, struct err *e);
void maps_close(struct maps *m);

/* The same of such a text, malloc'd and NUL-terminated behind its len bytes, which it takes. */
void maps_take(struct maps *m, pid_t pid, char *text, size_t len);

/*
 * A line, without its end: start-end perms offset major:minor inode, then blanks and the path,
 * which is borrowed from it.  False if it is none.
 */
bool maps_parse(const char *line, struct maps_entry *out);

/* Begins again at the first mapping of the same copy. */
void maps_rewind(struct maps *m);

/* The next mapping that has a file behind it: 1, 0 at the end, -1. */
int maps_next(struct maps *m, struct maps_entry *out, struct err *e);

/*
 * The device that stat(2) would tell for the file.  Some file systems (btrfs)
 * print another one in maps; then the file's path is asked.
 */
dev_t maps_dev(struct maps *m, const struct maps_entry *entry);

/* Whether the entry maps the file that stat(2) calls dev:ino. */
bool maps_is(struct maps *m, const struct maps_entry *entry, dev_t dev, ino_t ino);

#endif
