/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_ENGINE_H
#define GMEM_SERVE_ENGINE_H

#include "base/err.h"

/* How pages of some memory get to a guest. */
enum serve_engine {
	SERVE_AUTO, /* the first of these that works, found by trying */
	SERVE_CONTINUE, /* lazily: write(2), UFFDIO_CONTINUE */
	SERVE_MAP_CONTINUE, /* lazily: through a mapping of ours, UFFDIO_CONTINUE */
	SERVE_USERFAULT, /* the same, and vCPUs, which no mapping stops, wait for bits */
	SERVE_EAGER, /* all of it before the VM runs */
	/* These belong to the kind of VMM; no other memory can be served by them. */
	SERVE_COPY, /* lazily: UFFDIO_COPY into memory of the VMM's own */
	SERVE_SOURCE, /* lazily: the VMM maps our memory object itself, and asks for pages */
};

/* "auto", "continue", "map-continue", "userfault", "eager", "copy", "source" */
const char *serve_engine_name(enum serve_engine engine);

/* ERR_USAGE if there is no such engine. */
int serve_engine_parse(const char *name, enum serve_engine *engine, struct err *e);

#endif
