/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/driven.h"

int
driven_open(struct driven *d, struct err *e)
{
	return d->driver->open(&d->session, &d->how, e);
}

int
driven_load(void *arg, struct vmm_load_times *times, struct err *e)
{
	struct driven *d = arg;

	return d->driver->load(d->session, d->vmm, times, e);
}

size_t
driven_processes(const struct driven *d, pid_t *pids, size_t max)
{
	return d->session != NULL ? d->driver->processes(d->session, pids, max) : 0;
}

void
driven_close(struct driven *d)
{
	if (d->session != NULL)
		d->driver->close(d->session);
	d->session = NULL;
}
