/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_OPTIONS_H
#define GMEM_RESTORE_OPTIONS_H

#include <stdbool.h>

#include "base/log.h"

struct options {
	const char *image;
	char **command; /* the VMM and its arguments, NULL-terminated */
	bool eager;
	bool background;
	const char *qmp; /* path of the VMM's QMP socket, or NULL */
	bool paused; /* with --qmp: load, do not resume */
	const char *state; /* with --qmp: which state to load */
	const char *stats; /* file, "-" for stdout, or NULL */
	unsigned threads; /* 0: as many as CPUs */
	enum log_level level;
};

/* Prints and exits by itself for --help, --version and wrong usage. */
void options_parse(struct options *o, int argc, char **argv);

#endif
