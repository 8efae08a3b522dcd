/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_RECORD_H
#define GMEM_RESTORE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "image/out.h"
#include "serve/pager.h"

/* --record: what the VM touches first goes into a trace, gmem-trace(5). */

enum record_until {
	RECORD_EXIT, /* the VMM ends */
	RECORD_READY, /* somebody sends SIGUSR2 */
	RECORD_TIME, /* the VM has run for some seconds */
	RECORD_SETTLED, /* it touches hardly anything new */
};

/*
 * Settled: so long fewer pages than these were touched for the first time.  A guest
 * that is idle still touches some: its timers, its clocks.
 */
#define RECORD_SETTLED_MS 2000
#define RECORD_SETTLED_PAGES 16
#define RECORD_LOOK_MS 100 /* how often that is looked at */

struct record_settings {
	const char *path; /* of the trace; NULL: nothing is recorded */
	enum record_until until;
	unsigned seconds; /* of RECORD_TIME */
};

/* "ready", "settled" or seconds. */
int record_until_parse(struct record_settings *r, const char *text, struct err *e);

struct recording {
	const struct record_settings *settings;
	struct out *out; /* NULL: nothing is recorded, or not any more */
	bool ready; /* SIGUSR2 came */
	uint64_t running; /* since when the VM runs, ns; 0: it does not yet */
	uint64_t since, pages; /* the stretch in which little was touched, ns */
};

/* Before the VMM is started: the file can be written.  Does nothing without a path. */
int record_open(struct recording *r, const struct record_settings *settings, struct err *e);

/* SIGUSR2; false: it is none of ours. */
bool record_signal(struct recording *r);

/* Milliseconds until record_look wants to be called, or -1. */
int record_timeout(const struct recording *r);

/*
 * Ends recording and writes the trace if it is time to; runs: the VM does.  Then everything
 * goes on, also after an error.
 */
int record_look(struct recording *r, struct pager *s, bool runs, struct err *e);

/* The VMM has ended, or was stopped: what was recorded until then is written, if anything. */
int record_finish(struct recording *r, struct pager *s, bool failed, struct err *e);

/* Without a trace, if none was written. */
void record_close(struct recording *r);

#endif
