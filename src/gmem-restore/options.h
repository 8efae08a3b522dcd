/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_OPTIONS_H
#define GMEM_RESTORE_OPTIONS_H

#include <stdbool.h>

#include "base/log.h"
#include "codec/hash.h"
#include "gmem-restore/listen.h"
#include "gmem-restore/prefetch.h"
#include "gmem-restore/record.h"
#include "serve/damage.h"
#include "serve/engine.h"
#include "serve/pace.h"
#include "serve/place.h"
#include "vmm/driver.h"

/* How the VMM comes by its memory. */
enum vmm_kind {
	VMM_AUTO, /* as the image tells: like the VMM that it was taken from */
	VMM_ANY, /* from us: its arguments name {mem} */
	VMM_HANDOFF, /* its own, which it hands over: gmem-handoff(7) */
	VMM_DRIVEN, /* its own, by the API of its kind: vmm/driver.h */
};

/* What is to become of the VMM if we are killed. */
enum orphan {
	ORPHAN_KILL,
	ORPHAN_WAIT, /* it waits until somebody adopts it */
};

struct options {
	const char *adopt; /* where such a VM waits, or NULL: no other option counts then */
	enum orphan orphan;
	const char *orphan_path; /* where it is to wait, or NULL: $XDG_RUNTIME_DIR/gmem/PID */
	const char *image;
	const uint8_t *expect_root; /* of the image: `expected`, or NULL for any */
	uint8_t expected[DIGEST_SIZE];
	char **command; /* the VMM and its arguments, NULL-terminated */
	enum serve_engine engine;
	enum background background;
	uint64_t background_rate; /* bytes per second; 0: no limit */
	enum vmm_kind vmm;
	const struct vmm_driver *driver; /* of VMM_DRIVEN */
	const char *api; /* path of the VMM's API socket, or NULL: its arguments tell */
	bool handoff_fd; /* the hand-off is a descriptor of the VMM's, not a path */
	unsigned handoff_timeout; /* seconds for the VMM to hand over its memory; 0: no limit */
	unsigned io_timeout; /* seconds for a read of the image; 0: no limit */
	enum on_error on_error; /* where a page cannot be had */
	const char *qmp; /* path of the VMM's QMP socket, or NULL */
	bool paused; /* load the state, do not resume */
	const char *state; /* which state to load */
	struct listen_settings listen; /* .path NULL: there is a VMM to start */
	struct prefetch_settings prefetch;
	struct record_settings record; /* .path NULL: nothing is recorded */
	const char *stats; /* file, "-" for stdout, or NULL */
	unsigned threads; /* 0: as many as CPUs */
	struct serve_place place; /* of the threads that answer faults */
	enum log_level level;
};

/* Prints and exits by itself for --help, --version and wrong usage. */
void options_parse(struct options *o, int argc, char **argv);

#endif
