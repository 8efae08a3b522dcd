/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_BACKFILL_H
#define GMEM_SERVE_BACKFILL_H

#include "serve/aside.h"
#include "serve/batch.h"
#include "serve/pace.h"

/* The thread behind the faults: backfill.c is what it gives, and when; background.c the rest.
 */
struct backfill {
	struct server *server;
	pthread_t thread;
	bool started;
	struct cold cold;
	struct aside aside; /* decodes; its priority is low */
	struct batch batch;
	struct pace pace;
	bool early; /* only what costs nobody anything, until START_NS after `began` */
	uint64_t began;
	bool waits; /* something was left for later */
	unsigned missed; /* batches that were not at hand, one after the other */
	uint64_t left; /* pages that cannot be had, or may be such */
};

/* 1: all is given or being given, but for what cannot be had; 0: stopped, or it has failed; -1
 */
int backfill_all(struct backfill *b, struct err *e);

#endif
