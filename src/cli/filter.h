/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_CLI_FILTER_H
#define GMEM_CLI_FILTER_H

#include "base/err.h"

/*
 * The system calls that a program may still make, for ever and in all its threads: any
 * other ends it with SIGSYS.  filter-*.def are the lists, which tests/cli/filter.sh
 * compares with what the programs do.
 */
enum filter {
	FILTER_INSPECT, /* filter-inspect.def */
	FILTER_PUBLISH, /* the same, and the calls that give an output its name */
	FILTER_PAGE_SERVER, /* filter-page-server.def */
};

/* -1 where there can be none: built without libseccomp, or a kernel without them. */
int filter_install(enum filter which, struct err *e);

#endif
