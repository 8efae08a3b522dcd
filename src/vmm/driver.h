/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_DRIVER_H
#define GMEM_VMM_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/image.h"
#include "memory/source.h"
#include "serve/pager.h"

/*
 * A kind of VMM that is driven from outside, over the API it has anyway: told to save itself
 * (gmem-snap --NAME SOCKET) and to load what was saved (gmem-restore --vmm NAME).
 * drivers.c lists them; nothing else knows one from the other.
 */

/* ---- saving ---- */

/* What a VM is to be when it was saved. */
enum vmm_leave {
	VMM_LEAVE_AS_BEFORE, /* run if it ran */
	VMM_LEAVE_PAUSED,
	VMM_LEAVE_RUNNING,
	VMM_LEAVE_QUIT, /* the VMM ends */
};

/* What has become of it. */
enum vmm_outcome {
	VMM_UNTOUCHED, /* it was not paused, or there is none */
	VMM_RUNS,
	VMM_PAUSED,
	VMM_ENDED,
	VMM_LET_GO, /* the connection ended, and with it the pause */
	VMM_UNKNOWN, /* resuming it failed */
};

struct vmm_save {
	const char *socket; /* of its API */
	pid_t pid; /* of the VMM; 0: the socket's peer is it */
	enum vmm_leave leave;
	int timeout_ms; /* for each answer; -1 for ever */
	int stop_fd; /* readable: somebody wants out; borrowed */
};

/*
 * Where a driver puts what it saves.  Each returns -1 with *e, also when somebody wants
 * out: then the VM is to be as it was before.  Texts are copied.
 */
struct vmm_sink {
	void *arg; /* for all of them */
	/* Facts about the VMM: "kind" first; and its command line. */
	int (*fact)(void *arg, const char *key, const char *value, struct err *e);
	int (*command)(void *arg, char *const *argv, size_t argc, struct err *e);
	/* Starts threads: behind guard_start, before the VM is paused; once. */
	int (*start)(void *arg, struct err *e);
	/*
	 * The VM is about to be paused; is about to be let go, which takes its time and is not
	 * to be hurried; and what has become of it, why: with VMM_UNKNOWN.
	 */
	void (*paused)(void *arg);
	void (*releasing)(void *arg);
	void (*released)(void *arg, enum vmm_outcome outcome, const struct err *why);
	/* A state, as its bytes come. */
	int (*state_begin)(void *arg, const char *name, const char *kind, struct err *e);
	int (*state_put)(void *arg, const void *buf, size_t len, struct err *e);
	int (*state_end)(void *arg, struct err *e);
	/*
	 * A region: [offset, offset + o->size) of a source, which is taken (also on failure)
	 * and lives until the image is complete.  Segments are copied.
	 */
	int (*region)(void *arg, const struct object *o, struct memory_source *source,
	    uint64_t offset, struct err *e);
	/* Copies all regions into the image. */
	int (*memory)(void *arg, struct err *e);
	/* Completes the image: it has its name, and is on the disk. */
	int (*commit)(void *arg, struct err *e);
};

/* ---- loading ---- */

struct vmm_load {
	const struct image *img;
	struct pager *server; /* new: the driver brings its memory */
	const char *api; /* the VMM's API socket as we reach it; NULL: its arguments tell */
	char *const *argv; /* of the VMM */
	const struct object *state; /* the one that was asked for, or NULL */
	bool eager; /* all memory is to be there before the VM runs, as with the engine eager */
	bool paused; /* leave it paused */
	int timeout_ms; /* for each step of the VMM; -1 for ever */
	int stop_fd; /* readable: give up; borrowed */
};

/* When each step was done; CLOCK_MONOTONIC, ns; 0: not (yet). */
struct vmm_load_times {
	uint64_t connected; /* the VMM answers */
	uint64_t ready; /* its memory is served */
	uint64_t loaded; /* the state is in */
	uint64_t running; /* 0 unless resumed */
};

struct vmm_driver {
	const char *name; /* "firecracker"; also the fact "kind" of images */
	const char *help; /* "a running Firecracker, by its API socket" */

	/*
	 * Saves a VM, from the first question to the last word: when it returns the VM
	 * is as it was asked for, or as it was before, and sink->released was told.
	 */
	int (*save)(const struct vmm_save *how, const struct vmm_sink *sink, struct err *e);

	/*
	 * Loading: open does all that can fail without the VMM, which is started then; load
	 * runs in a thread of its own until the VM runs, or is paused; the session
	 * serves it until close.  *how and what it points to live until then.
	 */
	int (*open)(void **session, const struct vmm_load *how, struct err *e);
	int (*load)(void *session, pid_t vmm, struct vmm_load_times *times, struct err *e);
	/* The processes that have the memory, or may get it; at most max, their number. */
	size_t (*processes)(void *session, pid_t *pids, size_t max);
	/* load was stopped by stop_fd or is over, and the processes are dead. */
	void (*close)(void *session);
};

/* All of them; the last is NULL. */
extern const struct vmm_driver *const vmm_drivers[];

/* NULL: there is none of that name. */
const struct vmm_driver *vmm_driver(const char *name);

#endif
