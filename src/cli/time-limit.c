/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cli/time-limit.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/thread.h"

#define SECONDS_MAX 1000000u /* that poll(2) takes, in ms */

struct time_limit {
	const char *path;
	unsigned seconds;
	int done; /* an eventfd */
	pthread_t thread;
};

/* Signals are blocked here, and what the others do does not end the waiting. */
static void *
limit_main(void *arg)
{
	const struct time_limit *l = arg;
	struct pollfd done = { .fd = l->done, .events = POLLIN };

	if (poll(&done, 1, (int)(l->seconds * 1000)) != 0)
		return NULL;
	log_error("%s could not be opened and read within %u s (--io-timeout): the file system "
		  "hangs, or nobody writes to it",
	    l->path, l->seconds);
	_exit(STATUS_FAILED);
}

int
time_limit_start(struct time_limit **out, const char *path, unsigned seconds, struct err *e)
{
	struct time_limit *l;

	*out = NULL;
	if (seconds == 0)
		return 0;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return err_sys(e, "%s", path);
	l->path = path;
	l->seconds = MIN(seconds, SECONDS_MAX);
	l->done = eventfd(0, EFD_CLOEXEC);
	if (l->done != -1 && quiet_thread(&l->thread, limit_main, l, NULL) == 0) {
		*out = l;
		return 0;
	}
	err_sys(e, "time limit");
	fd_close(&l->done);
	free(l);
	return -1;
}

void
time_limit_stop(struct time_limit *l)
{
	if (l == NULL)
		return;
	fd_poke(l->done);
	pthread_join(l->thread, NULL);
	fd_close(&l->done);
	free(l);
}
