/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SNAP_SNAPSHOT_H
#define GMEM_SNAP_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/progress.h"
#include "gmem-snap/capture.h"
#include "gmem-snap/hot-pack.h"
#include "gmem-snap/options.h"
#include "gmem-snap/region.h"
#include "gmem-snap/stream.h"
#include "image/hot-write.h"
#include "image/writer.h"
#include "vmm/driver.h"

/* An image in the making; every mode goes through these steps. */
struct snapshot {
	const struct options *o; /* borrowed */
	struct image *from; /* of --from, or NULL */
	uint32_t chunk_size; /* of the new image, */
	int level; /* and its compression */
	struct hot_traces traces; /* of --hot */
	struct hot_choice hot;
	struct hot_set *hot_set; /* those that are not zero, or NULL */
	struct image_writer *writer;
	struct stream *stream;
	struct regions
	    regions; /* filled by the mode; its workers may read them until the end */
	struct capture *capture;
	struct progress progress;
	uint64_t done, total; /* bytes of memory */
	uint64_t start_ns, pause_ns, resume_ns; /* CLOCK_MONOTONIC; pause_ns 0: none */
	uint64_t pages_written, stalls; /* of --pause-less: pages saved because they were
					 * written, and writes that waited longer */
	enum vmm_outcome vm; /* the last word of a message */
	struct err resume; /* why the VM could not be resumed */
	bool committed;
	uint64_t image_size;
	uint8_t root[DIGEST_SIZE];
};

/* The same: opens the image, which has no name yet, with notes and state files. */
int snapshot_open(struct snapshot *s, const struct options *o, struct err *e);
void snapshot_fini(struct snapshot *s);

struct manifest *snapshot_manifest(struct snapshot *s);
struct arena *snapshot_arena(struct snapshot *s);

/* Starts worker threads: not before the guardian. */
int snapshot_start(struct snapshot *s, struct err *e);

/* Waits for them, also after a failure. */
void snapshot_stop(struct snapshot *s);

/* Copies the regions. */
int snapshot_memory(struct snapshot *s, struct err *e);

/* Completes and publishes the image. */
int snapshot_commit(struct snapshot *s, struct err *e);

/* Writes the hot section of s->hot: before all regions. */
int snapshot_pack_hot(struct snapshot *s, const struct hot_input *input, struct err *e);

/* Between two jobs of a pool (arg: the snapshot); -1 once somebody wants out. */
int snapshot_step(void *arg, uint64_t done, struct err *e);

/* A fact about the VMM, copied; empty ones are left out. */
int snapshot_fact(struct snapshot *s, const char *key, const char *value, struct err *e);

/* The VMM's command line, copied; one that an image cannot hold is left out. */
int snapshot_command(struct snapshot *s, char *const *argv, size_t argc, struct err *e);

/* Copies size bytes of a file, from its beginning, into the state that was begun. */
int snapshot_state(struct snapshot *s, int fd, uint64_t size, struct err *e);

/* The clock of the *_ns fields. */
uint64_t snapshot_now(void);

/* The modes, one a file. */
int snap_qemu(struct snapshot *s, struct err *e);
int snap_handoff(struct snapshot *s, struct err *e);
int snap_vmm(struct snapshot *s, struct err *e);
int snap_process(struct snapshot *s, struct err *e);
int snap_files(struct snapshot *s, struct err *e);
int snap_mapped(struct snapshot *s, struct err *e);
int snap_image(struct snapshot *s, struct err *e);

/* Opens the image of --from, which tells what is not given. */
int snapshot_open_image(struct snapshot *s, struct err *e);

/* Chooses the hot pages of the memory that is being saved, and writes their section. */
int snapshot_hot_memory(struct snapshot *s, struct err *e);

#endif
