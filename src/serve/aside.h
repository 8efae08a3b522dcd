/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_ASIDE_H
#define GMEM_SERVE_ASIDE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "base/err.h"
#include "serve/pace.h"

/*
 * A thread of a low priority for what takes CPU and holds nothing: who decodes there and
 * gives here has no vCPU wait for a page that was taken by somebody who is not let run.
 */
struct aside {
	pthread_t thread;
	bool started;
	enum background how;
	bool idle; /* it runs only where nobody else wants to */
	bool stop;
	int (*run)(void *arg, struct err *e);
	void *arg;
	struct err *e;
	int rc;
	sem_t go, done;
};

/* To be freed also on failure. */
int aside_init(struct aside *a, enum background how, struct err *e);
void aside_fini(struct aside *a);

/* Runs it there, and returns what it returns. */
int aside_run(struct aside *a, int (*run)(void *arg, struct err *e), void *arg, struct err *e);

#endif
