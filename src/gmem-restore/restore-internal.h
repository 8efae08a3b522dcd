/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_RESTORE_RESTORE_INTERNAL_H
#define GMEM_RESTORE_RESTORE_INTERNAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "gmem-restore/driven.h"
#include "gmem-restore/guest.h"
#include "gmem-restore/keeper.h"
#include "gmem-restore/load-qemu.h"
#include "gmem-restore/loader.h"
#include "gmem-restore/options.h"
#include "gmem-restore/prefetch.h"
#include "gmem-restore/record.h"
#include "gmem-restore/report.h"
#include "gmem-restore/series.h"
#include "image/image.h"
#include "image/watch.h"
#include "serve/pager.h"
#include "vmm/handoff.h"

/*
 * One restore, from opening the image to the VMM's exit status.
 *
 * This process opens everything, starts the VMM as its child, and from then on
 * only waits: the page server is a process of its own, which a thread keeps
 * (serve/pager.h); the hand-off and the loading of the VMM's state have theirs.  Whatever goes
 * wrong while the VMM runs ends the VMM.
 */
struct restore {
	const struct options *o;
	struct image *img;
	struct image_watch *watch; /* of what this process reads of it: states */
	struct guest guest;
	struct pager *server;
	struct handoff *handoff; /* NULL: the VMM gets memory that is complete */
	int handoff_end; /* the VMM's, with --handoff-fd; else -1 */
	struct driven driven; /* .driver NULL: it is no VMM that is driven over its API */
	struct load_qemu load_qemu; /* of --qmp */
	struct loader *loader; /* NULL: nothing to load */
	bool loading;
	int signals; /* signalfd */
	pid_t child; /* the VMM we started; 0: none, or reaped */
	int pidfd;
	struct ledger *ledger; /* --orphan wait: the VMM is the keeper's child; else NULL */
	bool children; /* the VMM has left some to the keeper */
	bool keeper_lost;
	bool served; /* memory is being served: look at the server's state */
	int status; /* of the VMM, as wait(2) tells */
	struct timeline times;
	struct prefetching prefetching;
	struct recording recording;
	bool file_failed; /* a trace or statistics could not be written */
	struct series *series; /* NULL: nobody wants statistics */
};

/* ---- prepare.c ---- */

/* All that can be done before the VMM runs.  On failure what is there already stays in *r. */
int restore_prepare(struct restore *r, struct err *e);

/* Steps of it: what the VMM's arguments tell, signals, the page server, --io-timeout. */
int restore_take_arguments(struct restore *r, struct err *e);
int restore_take_signals(struct restore *r, struct err *e);
int restore_new_server(struct restore *r, struct err *e);
int restore_watch_image(struct restore *r, struct err *e);

/* ---- inherit.c ---- */

/* With --orphan wait: the keeper; and, when the arguments are known, what it has to keep. */
int restore_begin_keeper(struct restore *r, struct err *e);
int restore_note_image(struct restore *r, struct err *e);
int restore_note_loaded(struct restore *r, struct err *e);

/* In place of restore_prepare, for a VM whose supervisor was killed: as the ledger tells. */
int restore_inherit(struct restore *r, struct err *e);

/* ---- supervise.c ---- */

/* Waits until the VMM is over (0), or something has gone wrong (-1). */
int restore_supervise(struct restore *r, struct err *e);

/* Ends the VMM, and waits for that. */
void restore_kill(struct restore *r);

/* ---- restore.c ---- */

/* The path of the shim. */
const char *restore_shim(void);

/* Some memory is ours to make, and the shim's to hand over. */
bool restore_gives_memory(const struct restore *r);

/* The VMM makes memory of its own, all or some of it. */
bool restore_brings_memory(const struct restore *r);

/* Whether the VMM has come by its memory, ours or its own. */
bool restore_has_memory(const struct restore *r);

/* The VMM is given its pages while it runs, or says hello at least. */
bool restore_serves(const struct restore *r);

/* --stats, if they are wanted; last: the VMM is over. */
void restore_write_report(struct restore *r, bool last);

#endif
