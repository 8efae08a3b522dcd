/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_LISTEN_H
#define GMEM_RESTORE_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gmem-restore/prefetch.h"
#include "gmem-restore/record.h"
#include "serve/damage.h"
#include "serve/engine.h"
#include "serve/pace.h"
#include "serve/place.h"

/*
 * The page server of an orchestrator (--listen): VMMs that somebody else has started connect
 * to a socket, in the manner of Firecracker's userfaultfd backend, and are given the pages of
 * one image, each by a process of its own.
 */

#define LISTEN_NOBODY ((uid_t)-1)
#define LISTEN_NO_GROUP ((gid_t)-1)

struct listen_settings {
	const char *path; /* of the socket */
	bool once; /* one VMM, and it is over */
	bool many; /* any number: the default, said aloud */
	bool has_mode; /* it was given */
	mode_t mode; /* of the socket */
	uid_t owner; /* of the socket, who may connect too; or LISTEN_NOBODY: we */
	gid_t group; /* or LISTEN_NO_GROUP */
	const char *image;
	const uint8_t *expect_root; /* of it, or NULL: any */
	enum serve_engine engine;
	enum background background;
	uint64_t background_rate;
	struct prefetch_settings prefetch;
	unsigned threads;
	struct serve_place place;
	enum on_error on_error;
	unsigned io_timeout; /* seconds */
	struct record_settings record; /* with once; .path NULL: nothing is recorded */
};

/* The exit status. */
int listen_run(const struct listen_settings *settings);

#endif
