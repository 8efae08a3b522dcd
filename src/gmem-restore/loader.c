/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/loader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "image/reader.h"

#define CONNECT_MS 60000
#define INCOMING_MS 60000

struct loader {
	struct loader_options o;
	struct image_reader *reader;
	uint64_t offset; /* of the state, read so far */
	int stop_fd, done_fd;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards what follows */
	struct qemu_load_times times;
	int rc;
	struct err err;
};

static int
read_state(void *arg, void *buf, size_t size, size_t *len, struct err *e)
{
	struct loader *l = arg;

	*len = MIN(l->o.state->size - l->offset, size);
	if (image_reader_read(l->reader, l->o.state, l->offset, buf, *len, e) == -1)
		return -1;
	l->offset += *len;
	return 0;
}

/* Loading the state reads guest memory, and so does the guest then. */
static int
before_incoming(void *arg, struct err *e)
{
	struct loader *l = arg;

	if (l->o.handoff == NULL)
		return 0;
	if (!server_has_mappings(l->o.server))
		return err_set(e, ERR_FAILED,
		    "the VMM has not mapped the guest's memory: does it use {mem}?");
	return handoff_check(l->o.handoff, e);
}

static void *
loader_main(void *arg)
{
	struct loader *l = arg;
	const struct qemu_load how = {
		.socket = l->o.socket,
		.connect_ms = CONNECT_MS,
		.incoming_ms = INCOMING_MS,
		.stop_fd = l->stop_fd,
		.vmm_pidfd = l->o.vmm_pidfd,
		.resume = l->o.resume,
		.read = read_state,
		.before_incoming = before_incoming,
		.arg = l,
	};
	struct qemu_load_times times = { 0 };
	struct err e = ERR_INIT;
	uint64_t one = 1;
	int rc = qemu_load(&how, &times, &e);

	pthread_mutex_lock(&l->lock);
	l->times = times;
	l->rc = rc;
	l->err = e;
	pthread_mutex_unlock(&l->lock);
	if (write(l->done_fd, &one, sizeof(one)) == -1)
		return NULL;
	return NULL;
}

static int
start_thread(struct loader *l, struct err *e)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	errno = pthread_create(&l->thread, NULL, loader_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (errno != 0)
		return err_sys(e, "start a thread");
	l->started = true;
	return 0;
}

int
loader_start(
    struct loader **out, const struct image *img, const struct loader_options *o, struct err *e)
{
	struct loader *l;

	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return err_sys(e, "state loader");
	l->o = *o;
	pthread_mutex_init(&l->lock, NULL);
	l->stop_fd = eventfd(0, EFD_CLOEXEC);
	l->done_fd = eventfd(0, EFD_CLOEXEC);
	if (l->stop_fd == -1 || l->done_fd == -1) {
		err_sys(e, "state loader");
		loader_free(l);
		return -1;
	}
	if (image_reader_new(&l->reader, img, e) == -1 || start_thread(l, e) == -1) {
		loader_free(l);
		return -1;
	}
	*out = l;
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
	int rc;

	pthread_mutex_lock(&l->lock);
	rc = l->rc;
	if (rc == -1)
		*e = l->err;
	pthread_mutex_unlock(&l->lock);
	return rc;
}

void
loader_times(struct loader *l, struct qemu_load_times *times)
{
	pthread_mutex_lock(&l->lock);
	*times = l->times;
	pthread_mutex_unlock(&l->lock);
}

void
loader_free(struct loader *l)
{
	uint64_t one = 1;

	if (l == NULL)
		return;
	if (l->started && write(l->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(l->thread, NULL);
	image_reader_free(l->reader);
	fd_close(&l->stop_fd);
	fd_close(&l->done_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
