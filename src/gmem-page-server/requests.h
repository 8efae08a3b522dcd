/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_PAGE_SERVER_REQUESTS_H
#define GMEM_PAGE_SERVER_REQUESTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "image/image.h"
#include "serve/pager-wire.h"
#include "serve/server.h"

#define PROCESSES_SEEN 1024u

/* What the requests are about. */
struct page_server {
	struct image *img;
	struct server *server;
	bool records; /* touches are recorded, from the start */
	atomic_bool ending; /* what cannot be done any more is asked of another one */
	pthread_mutex_t lock; /* guards what follows */
	unsigned nprocesses; /* so many have got a number */
	int uffds[PROCESSES_SEEN]; /* of them, ours to close: for page_server_is_alone */
	unsigned nuffds;
};

/* Answers the requests of a channel until the other side hangs up.  Borrowed. */
void requests_serve(struct page_server *s, int sock);

/* Whether every process whose memory was served is dead. */
bool page_server_is_alone(struct page_server *s);

#endif
