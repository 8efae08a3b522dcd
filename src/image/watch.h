/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_WATCH_H
#define GMEM_IMAGE_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/*
 * Reads of an image's file that take too long: a file system that hangs tells nobody, and
 * whoever waits for it can't be interrupted.  Each reader marks its reads, and a thread looks
 * at them.
 */
struct read_mark {
	_Atomic uint64_t since; /* CLOCK_MONOTONIC, ns; 0: it reads nothing */
	_Atomic uint64_t off, len; /* what */
	atomic_bool urgent; /* somebody waits for what it reads */
	struct read_mark *next;
};

/* From the first to the last the mark must not go away. */
void image_reads_add(const struct image *img, struct read_mark *m);
void image_reads_remove(const struct image *img, struct read_mark *m);

void read_mark_begin(struct read_mark *m, uint64_t off, uint64_t len);
void read_mark_end(struct read_mark *m);

/* Of image_open and image_close. */
struct image_reads *image_reads_new(void);
void image_reads_free(struct image_reads *reads);

/* A read that has taken longer than the limit, and is not done. */
struct image_stall {
	uint64_t off, len; /* bytes of the file */
	bool urgent;
};

struct image_watch;

/*
 * Starts a thread that calls `stalled` again and again while there is such a read, with an
 * urgent one if there is any.  limit: seconds.
 */
int image_watch_start(struct image_watch **out, const struct image *img, unsigned limit,
    void (*stalled)(void *arg, const struct image_stall *stall), void *arg, struct err *e);

/* Ends the thread.  NULL is fine. */
void image_watch_stop(struct image_watch *w);

#endif
