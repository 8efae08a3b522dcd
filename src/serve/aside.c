/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/aside.h"

#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/internal.h"

#define NICE 10

/* What takes so long is hardly ever let run: it is work of some milliseconds. */
#define STARVED_NS UINT64_C(200000000)

/* Of this thread only; it may fail without harm. */
static void
step_aside(bool idle)
{
	const struct sched_param none = { 0 };

	if (idle && sched_setscheduler(0, SCHED_IDLE, &none) == 0)
		return;
	(void)setpriority(PRIO_PROCESS, 0, NICE);
}

static void
await(sem_t *sem)
{
	while (sem_wait(sem) == -1 && errno == EINTR)
		;
}

static void *
aside_main(void *arg)
{
	struct aside *a = arg;

	step_aside(a->idle);
	for (await(&a->go); !a->stop; await(&a->go)) {
		a->rc = a->run(a->arg, a->e);
		sem_post(&a->done);
	}
	return NULL;
}

int
aside_init(struct aside *a, enum background how, struct err *e)
{
	*a = (struct aside){ .how = how, .idle = true };
	sem_init(&a->go, 0, 0);
	sem_init(&a->done, 0, 0);
	if (thread_start(&a->thread, aside_main, a, e) == -1)
		return -1;
	a->started = true;
	return 0;
}

static void
stop(struct aside *a)
{
	a->stop = true;
	sem_post(&a->go);
	pthread_join(a->thread, NULL);
	a->stop = a->started = false;
}

/* Who has chosen to be idle may not choose otherwise: another thread takes its place. */
static int
start_again(struct aside *a, struct err *e)
{
	stop(a);
	a->idle = false;
	if (thread_start(&a->thread, aside_main, a, e) == -1)
		return -1;
	a->started = true;
	log_info("in the background there is no idle CPU: it goes on at a low priority");
	return 0;
}

void
aside_fini(struct aside *a)
{
	if (!a->started)
		return;
	stop(a);
	sem_destroy(&a->go);
	sem_destroy(&a->done);
}

int
aside_run(struct aside *a, int (*run)(void *arg, struct err *e), void *arg, struct err *e)
{
	uint64_t began;

	a->run = run;
	a->arg = arg;
	a->e = e;
	began = serve_now();
	sem_post(&a->go);
	await(&a->done);
	if (a->rc == 0 && a->how == BACKGROUND_ON && a->idle &&
	    serve_now() - began > STARVED_NS)
		return start_again(a, e);
	return a->rc;
}
