/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_PREFETCH_H
#define GMEM_RESTORE_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "image/image.h"
#include "serve/pager.h"

/* --prefetch, --cold-io and --ready-fd: what is given before anybody asks for it. */
struct prefetch_settings {
	bool given; /* --prefetch was */
	enum prefetch_kind kind;
	const char *trace; /* of PREFETCH_LIST */
	enum cold_io io;
	int ready_fd; /* or -1 */
};

/* "hot", "none", "all" or "trace=FILE". */
int prefetch_parse(struct prefetch_settings *p, const char *text, struct err *e);

/* The descriptor of --ready-fd: it has to be open, and is kept from whoever we start. */
int prefetch_ready_fd(struct prefetch_settings *p, int fd, struct err *e);

/* One restore's. */
struct prefetching {
	const struct prefetch_settings *settings;
	struct page_ref *list; /* owned */
	int ready_fd; /* -1: told, or nobody wants to know */
};

/*
 * Sets options->prefetch, what the server is asked for; the list lives until prefetching_close.
 * With options->record: nothing, unless it was asked for.  options->io_timeout limits what is
 * read here.
 */
int prefetching_open(struct prefetching *p, const struct prefetch_settings *settings,
    const struct image *img, struct server_options *options, struct err *e);

/* Tells who waits for it, once, when all is there. */
void prefetching_look(struct prefetching *p, const struct pager *s);

/* Without having told: it closes the descriptor. */
void prefetching_close(struct prefetching *p);

#endif
