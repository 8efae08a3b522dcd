/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_RECORD_H
#define GMEM_SERVE_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/err.h"
#include "format/trace.h"
#include "image/image.h"

/*
 * Records which pages are touched first, and when.  While that goes on nothing is given that
 * nobody has asked for: each first touch is a fault then.  Whoever touches takes no lock, and
 * the memory is reserved at the start: what a trace can have at most, 64 MiB, and a bit for
 * each page; of both only what is used is ever there.
 */
struct recorder;

int recorder_new(struct recorder **out, const struct image *img, struct err *e);
void recorder_free(struct recorder *r);

/*
 * [off, off + len) of a region is touched: kept if it is for the first time.  Any thread, also
 * one that does not know yet that recording has ended.
 */
void recorder_touch(struct recorder *r, size_t region, uint64_t off, uint64_t len, bool write);

/*
 * The same for a VMM that asks in words for every page of its memory, one after the other, and
 * out of turn for what is touched: only the latter are kept.  One thread at a time.
 */
void recorder_ask(struct recorder *r, size_t region, uint64_t off, uint64_t len);

/* Whether it goes on. */
bool recorder_is_on(const struct recorder *r);

/* Pages until now. */
uint64_t recorder_pages(const struct recorder *r);

/* Pages of a region that were touched until now and are in the list, a bit for each page. */
uint64_t recorder_hits(const struct recorder *r, size_t region, const bitmap_word *list);

/* Whether there was no room for some. */
bool recorder_is_full(const struct recorder *r);

/* Nothing is kept from now on. */
void recorder_end(struct recorder *r);

/* What was kept, after recorder_end; t is to be freed also after an error.  t->end is not set.
 */
int recorder_take(struct recorder *r, struct trace *t, struct err *e);

#endif
