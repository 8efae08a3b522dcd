/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CLI_PROGRESS_H
#define GMEM_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How far a command is: a bar on stderr if that is a terminal and nobody said
 * -q, lines "DONE TOTAL WHAT" (bytes) on a descriptor for programs, and one
 * line on stderr whenever SIGUSR1 arrives.
 */
struct progress {
	const char *what;
	bool bar;
	int fd; /* --progress-fd, or -1 */
	uint64_t done, total;
	uint64_t last_ns; /* when something was last shown */
	bool shown;
};

/* Takes SIGUSR1.  fd is borrowed. */
void progress_start(struct progress *p, const char *what, bool quiet, int fd);

/* Cheap: shows something at most ten times a second.  `total` 0: not known. */
void progress_update(struct progress *p, uint64_t done, uint64_t total);

/* Clears the bar; the last line of --progress-fd says that everything is done. */
void progress_end(struct progress *p, bool success);

#endif
