/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_OPTIONS_H
#define GMEM_SNAP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/log.h"
#include "codec/hash.h"
#include "format/manifest.h"
#include "memory/pause.h"
#include "vmm/driver.h"

/* Where the memory comes from. */
enum snap_mode {
	SNAP_NONE,
	SNAP_QEMU, /* --qmp */
	SNAP_HANDOFF, /* --handoff */
	SNAP_VMM, /* the name of a driver */
	SNAP_PROCESS, /* --pid */
	SNAP_LIST, /* --list --pid */
	SNAP_FILE, /* --file */
	SNAP_MAPPED, /* --mapped-ram */
	SNAP_IMAGE, /* --from */
};

/* A list of arguments; the strings are those of argv. */
struct arg_list {
	const char **v;
	size_t n;
};

/* A diff snapshot over a --file. */
struct diff {
	size_t file; /* number of the --file */
	const char *path;
};

struct options {
	enum snap_mode mode;
	const char *output;
	const char *qmp;
	const char *handoff;
	const struct vmm_driver *driver; /* of SNAP_VMM */
	const char *api; /* its socket */
	pid_t pid; /* 0: not given */
	const char *mapped_ram; /* the file */
	const char *from; /* the image */
	const uint8_t *expect_root; /* of it: `expected`, or NULL for any */
	uint8_t expected[DIGEST_SIZE];
	struct arg_list hot; /* --hot: traces */
	struct arg_list regions; /* --region: names or numbers */
	struct pairs files; /* --file: key is the name, or NULL */
	struct diff *diffs; /* in their order */
	size_t ndiffs;
	struct pairs states; /* --state: name and file */
	struct pairs annotations;
	enum pause_method pause;
	enum vmm_leave leave;
	uint32_t chunk_size;
	int level;
	bool chunk_size_given, level_given;
	unsigned nthreads;
	int progress_fd; /* or -1 */
	bool pause_less; /* the VM runs while its memory is saved */
	bool digest; /* of the content of all objects */
	bool force, timestamp, json;
	enum log_level log_level;
};

/* Prints and exits on --help, --version and wrong usage. */
void options_parse(struct options *o, int argc, char **argv);

void options_fini(struct options *o);

#endif
