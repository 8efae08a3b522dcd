/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_OPTIONS_H
#define GMEM_INSPECT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "codec/hash.h"

struct inspect;

/* Options that only some verbs take. */
enum option_bit {
	TAKES_JSON = 1 << 0,
	TAKES_REGION = 1 << 1,
	TAKES_STATE = 1 << 2,
	TAKES_OUTPUT = 1 << 3,
	TAKES_FORCE = 1 << 4,
	TAKES_THREADS = 1 << 5,
	TAKES_PROGRESS = 1 << 6,
	TAKES_LIST = 1 << 7,
	TAKES_SVG = 1 << 8,
	TAKES_WIDTH = 1 << 9,
	TAKES_RAW = 1 << 10,
	TAKES_IMAGE = 1 << 11,
	TAKES_MERGE = 1 << 12,
	TAKES_ROOT = 1 << 13,
	TAKES_DEEP = 1 << 14,
	MAY_OUTPUT = 1 << 15, /* --output is standard output if it is not given */
};

struct verb {
	const char *name;
	int (*run)(struct inspect *in, struct err *e);
	unsigned takes; /* option_bit */
	const char *operands; /* what follows the verb, for messages */
	int noperands; /* ANY_FILES: one or more, to options.files */
};

#define ANY_FILES (-1)

/* What trace makes of several. */
enum merge { MERGE_NONE, MERGE_UNION, MERGE_INTERSECTION };

struct options {
	const struct verb *verb;
	const uint8_t *expect_root; /* of the image: `expected`, or NULL for any */
	uint8_t expected[DIGEST_SIZE];
	const char *image; /* NULL for verbs of other files */
	char **files; /* of trace, stats and plot */
	size_t nfiles;
	const char *with_image; /* of trace, or NULL */
	enum merge merge;
	const char *range; /* of cat */
	const char *region, *state;
	const char *output; /* "-" is stdout */
	const char *svg; /* of map */
	bool json, quiet, raw, list, force, deep;
	unsigned threads;
	unsigned width; /* cells in a row, 0: choose */
	int progress_fd;
};

/* Reads the command line and sets the log level; wrong usage, --help and --version do not
 * return. */
void options_parse(struct options *opt, int argc, char **argv);

#endif
