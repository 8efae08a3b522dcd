/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/place.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckd.h"

#define NICE (-20)
#define FIFO_PRIORITY 1

/* ---- what options say ---- */

/* A number of a list, which it moves behind. */
static bool
read_cpu(const char **text, unsigned *cpu)
{
	char *end;

	if (!isdigit((unsigned char)**text))
		return false;
	errno = 0;
	*cpu = (unsigned)MIN(strtoul(*text, &end, 10), CPU_SETSIZE);
	*text = end;
	return *cpu < CPU_SETSIZE;
}

static bool
read_range(const char **text, cpu_set_t *cpus)
{
	unsigned first, last;

	if (!read_cpu(text, &first))
		return false;
	last = first;
	if (**text == '-') {
		++*text;
		if (!read_cpu(text, &last) || last < first)
			return false;
	}
	for (; first <= last; first++)
		CPU_SET(first, cpus);
	return true;
}

int
place_parse(struct serve_place *p, const char *text, struct err *e)
{
	const char *at = text;

	CPU_ZERO(&p->cpus);
	p->how = PLACE_LIST;
	if (strcmp(text, "float") == 0 || strcmp(text, "same") == 0) {
		p->how = strcmp(text, "same") == 0 ? PLACE_SAME : PLACE_FLOAT;
		return 0;
	}
	while (read_range(&at, &p->cpus)) {
		if (*at == '\0')
			return 0;
		if (*at++ != ',')
			break;
	}
	return err_set(
	    e, ERR_USAGE, "\"%s\" is neither float, same, nor a list of CPUs (0-3,6)", text);
}

int
place_parse_urgency(struct serve_place *p, const char *text, struct err *e)
{
	if (strcmp(text, "other") == 0)
		p->urgency = URGENT_NOT;
	else if (strcmp(text, "nice") == 0)
		p->urgency = URGENT_NICE;
	else if (strcmp(text, "fifo") == 0)
		p->urgency = URGENT_FIFO;
	else
		return err_set(
		    e, ERR_USAGE, "there is no class \"%s\": other, nice or fifo", text);
	return 0;
}

/* ---- doing it ---- */

static int
be_urgent(const struct serve_place *p, struct err *e)
{
	const struct sched_param param = { .sched_priority = FIFO_PRIORITY };

	/* Of one thread, both. */
	if (p->urgency == URGENT_FIFO && sched_setscheduler(0, SCHED_FIFO, &param) == -1)
		return err_sys(e,
		    "SCHED_FIFO for who answers faults (it takes CAP_SYS_NICE, or "
		    "RLIMIT_RTPRIO of %d: ulimit -r)",
		    FIFO_PRIORITY);
	if (p->urgency == URGENT_NICE && setpriority(PRIO_PROCESS, 0, NICE) == -1)
		return err_sys(e,
		    "nice %d for who answers faults (it takes CAP_SYS_NICE, or RLIMIT_NICE of "
		    "%d: ulimit -e)",
		    NICE, 20 - NICE);
	return 0;
}

/* The CPUs there are for it. */
static int
choose_cpus(const struct serve_place *p, cpu_set_t *cpus, struct err *e)
{
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) == -1)
		return err_sys(e, "CPUs of this process");
	*cpus = allowed;
	if (p->how == PLACE_LIST)
		CPU_AND(cpus, &p->cpus, &allowed);
	if (CPU_COUNT(cpus) == 0 || (p->how == PLACE_LIST && !CPU_EQUAL(cpus, &p->cpus)))
		return err_set(e, ERR_FAILED,
		    "the CPUs for who answers faults are not all there, or not for this "
		    "process");
	return 0;
}

int
place_take(const struct serve_place *p, unsigned number, struct err *e)
{
	cpu_set_t cpus, one;
	int cpu = -1;

	if (p->how != PLACE_FLOAT) {
		if (choose_cpus(p, &cpus, e) == -1)
			return -1;
		for (unsigned i = 0; i <= number % (unsigned)CPU_COUNT(&cpus); i++)
			while (!CPU_ISSET(++cpu, &cpus))
				;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one) == -1)
			return err_sys(e, "who answers faults: CPU %d", cpu);
	}
	return be_urgent(p, e);
}

struct trial {
	const struct serve_place *p;
	struct err *e;
	int rc;
};

static void *
try_it(void *arg)
{
	struct trial *t = arg;

	t->rc = place_take(t->p, 0, t->e);
	return NULL;
}

int
place_check(const struct serve_place *p, unsigned *nthreads, struct err *e)
{
	struct trial t = { p, e, 0 };
	pthread_t thread;
	cpu_set_t cpus;

	*nthreads = 0;
	if (p->how == PLACE_FLOAT && p->urgency == URGENT_NOT)
		return 0;
	errno = pthread_create(&thread, NULL, try_it, &t);
	if (errno != 0)
		return err_sys(e, "start a thread");
	pthread_join(thread, NULL);
	if (t.rc == -1 || p->how == PLACE_FLOAT)
		return t.rc;
	if (choose_cpus(p, &cpus, e) == -1)
		return -1;
	*nthreads = (unsigned)CPU_COUNT(&cpus);
	return 0;
}
