/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_INSPECT_H
#define GMEM_INSPECT_INSPECT_H

#include "base/err.h"
#include "gmem-inspect/options.h"
#include "image/image.h"
#include "image/out.h"

/* What a verb works with. */
struct inspect {
	const struct options *opt; /* borrowed */
	struct image *img; /* owned; NULL: the verb takes none */
	struct out *out; /* owned: what --output or --svg named, else NULL */
};

/* The verbs.  They print on stdout; errors are for main to print. */
int verb_info(struct inspect *in, struct err *e);
int verb_verify(struct inspect *in, struct err *e);
int verb_map(struct inspect *in, struct err *e);
int verb_cat(struct inspect *in, struct err *e);
int verb_extract(struct inspect *in, struct err *e);
int verb_root(struct inspect *in, struct err *e);
int verb_host(struct inspect *in, struct err *e);
int verb_trace(struct inspect *in, struct err *e);
int verb_stats(struct inspect *in, struct err *e); /* and plot */

/*
 * Before the first byte of input is looked at, when all files are open.  Only the output's
 * folder stays in reach, and only if the output is to get a name there.  out may be NULL.
 */
int give_up_privileges(const char *output, const struct out *out, struct err *e);

#endif
