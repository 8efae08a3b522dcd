/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/loader.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/fdio.h"
#include "base/thread.h"

struct loader {
	struct loader_work work;
	int stop_fd, done_fd;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards what follows */
	struct vmm_load_times times;
	int rc;
	struct err err;
};

int
loader_new(struct loader **out, struct err *e)
{
	struct loader *l;

	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return err_sys(e, "state loader");
	pthread_mutex_init(&l->lock, NULL);
	l->stop_fd = eventfd(0, EFD_CLOEXEC);
	l->done_fd = eventfd(0, EFD_CLOEXEC);
	if (l->stop_fd == -1 || l->done_fd == -1) {
		err_sys(e, "state loader");
		loader_free(l);
		return -1;
	}
	*out = l;
	return 0;
}

int
loader_stop_fd(const struct loader *l)
{
	return l->stop_fd;
}

static void *
loader_main(void *arg)
{
	struct loader *l = arg;
	struct vmm_load_times times = { 0 };
	struct err e = ERR_INIT;
	int rc = l->work.load(l->work.arg, &times, &e);

	pthread_mutex_lock(&l->lock);
	l->times = times;
	l->rc = rc;
	l->err = e;
	pthread_mutex_unlock(&l->lock);
	fd_poke(l->done_fd);
	return NULL;
}

int
loader_start(struct loader *l, const struct loader_work *work, struct err *e)
{
	l->work = *work;
	if (quiet_thread(&l->thread, loader_main, l, NULL) == -1)
		return err_sys(e, "start a thread");
	l->started = true;
	return 0;
}

int
loader_event_fd(const struct loader *l)
{
	return l->done_fd;
}

int
loader_result(struct loader *l, struct err *e)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	l->started = false;
	if (l->rc == -1)
		*e = l->err;
	return l->rc;
}

void
loader_times(struct loader *l, struct vmm_load_times *times)
{
	pthread_mutex_lock(&l->lock);
	*times = l->times;
	pthread_mutex_unlock(&l->lock);
}

void
loader_stop(struct loader *l)
{
	if (l->started) {
		fd_poke(l->stop_fd);
		pthread_join(l->thread, NULL);
	}
	l->started = false;
}

void
loader_free(struct loader *l)
{
	if (l == NULL)
		return;
	loader_stop(l);
	fd_close(&l->stop_fd);
	fd_close(&l->done_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
