/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_REPORT_H
#define GMEM_RESTORE_REPORT_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"
#include "gmem-restore/self.h"
#include "gmem-restore/series.h"
#include "image/image.h"
#include "serve/pager.h"
#include "vmm/driver.h"

/* When things happened; CLOCK_MONOTONIC, ns, 0: not (yet). */
struct timeline {
	uint64_t started; /* gmem-restore */
	uint64_t launched; /* the VMM */
	struct server_times server;
	struct vmm_load_times load;
	uint64_t ended; /* the VMM */
};

struct report {
	const struct image *img;
	const char *engine;
	struct timeline times;
	struct serve_stats stats;
	bool recorded; /* touches were, while a list was prefetched: */
	uint64_t hits, touched; /* pages of the list that were touched, and all that were */
	struct self self;
	struct pager_self pager;
	size_t nsamples;
	struct sample samples[SERIES_MAX];
};

/* gmem-stats(5), a new object. */
json_t *report_json(const struct report *r);

/* JSON to a file (replaced as a whole) or "-". */
int report_write(const struct report *r, const char *path, struct err *e);

/* Some lines for people, at -v. */
void report_log(const struct report *r);

#endif
