/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_TRACE_H
#define GMEM_FORMAT_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "codec/hash.h"
#include "format/cbor.h"
#include "format/manifest.h"

/*
 * Traces: which pages a virtual machine has touched after a restore, in the order of
 * the first touches; gmem-trace(5) is the normative text.
 *
 *	header		32 bytes
 *	description	CBOR, padded with zeros to a multiple of 8
 *	runs		16 bytes each
 *	checksum	XXH3-64 of all before
 */
#define TRACE_VERSION 1u
#define TRACE_HEADER_SIZE 32u
#define TRACE_RUN_SIZE 16u

/* Limits, kept by writer and reader alike. */
#define TRACE_PAGES_MAX (1u << 22) /* of all runs: 16 GiB of guest memory */
#define TRACE_RUNS_MAX TRACE_PAGES_MAX
#define TRACE_DESCRIPTION_MAX MANIFEST_SIZE_MAX
#define TRACE_SIZE_MAX                                                                         \
	(TRACE_HEADER_SIZE + TRACE_DESCRIPTION_MAX +                                           \
	    (uint64_t)TRACE_RUNS_MAX * TRACE_RUN_SIZE + 8)

/* What the touch was; a trace that was merged may have both. */
#define TRACE_READ 1u
#define TRACE_WRITE 2u

/* Pages that were touched one after the other, and lie so. */
struct trace_run {
	uint64_t page; /* the first, counted in its region in pages of 4 KiB */
	uint32_t npages; /* at least 1 */
	uint32_t region; /* index into the trace's regions */
	uint32_t time_ms; /* since recording began; grows from run to run, or stays */
	uint8_t access; /* TRACE_READ, TRACE_WRITE */
};

/* How recording ended; other words are kept and shown. */
#define TRACE_END_READY "ready" /* somebody said that the workload is */
#define TRACE_END_TIME "time" /* the time that was asked for was over */
#define TRACE_END_SETTLED "settled" /* nothing new was touched for a while */
#define TRACE_END_EXIT "exit" /* the VMM has ended */
#define TRACE_END_FULL "full" /* more was touched than a trace can have */
#define TRACE_END_FAILED "failed" /* the restore was given up; what was touched until then */
#define TRACE_END_MERGED "merged" /* made of several traces */

/* Strings and arrays live in the arena; trace_free gives everything back. */
struct trace {
	struct arena arena;
	const char *tool; /* "gmem 0.1.0" */
	const char *end; /* TRACE_END_… */
	uint8_t root[DIGEST_SIZE]; /* of the image that was restored */
	struct object *regions; /* of these only name, size, page_size, segments, unknown */
	size_t nregions;
	struct trace_run *runs; /* in the order of the first touches; no page is in two */
	size_t nruns;
	uint64_t duration_ms; /* how long was recorded */
	uint64_t lost; /* touches for which there was no room */
	struct unknown *unknown;
};

/*
 * A trace without runs, of these regions.  They are copied, without what is not known.  `end`
 * is to be set before trace_encode.
 */
int trace_init(struct trace *t, const struct object *regions, size_t nregions,
    const uint8_t root[DIGEST_SIZE], struct err *e);

void trace_free(struct trace *t);

/* Pages of all runs. */
uint64_t trace_pages(const struct trace *t);

/*
 * Every limit: that runs lie in their regions and do not overlap, that times do not fall,
 * that names differ.  ERR_CORRUPT.
 */
int trace_check(const struct trace *t, struct err *e);

/*
 * The bytes belong to the caller (cbor_out_free), and are the same for equal traces.  What
 * trace_decode would refuse is ERR_FAILED.
 */
int trace_encode(struct cbor_out *out, const struct trace *t, struct err *e);

/*
 * t is zeroed first and is to be freed also after an error.  Everything is checked, and what
 * is taken encodes to the same bytes.  Copied: buf may go.
 */
int trace_decode(struct trace *t, const void *buf, size_t len, struct err *e);

/* ---- where its pages are in another image ---- */

struct page_ref {
	uint32_t region; /* index into the manifest's regions */
	uint64_t page;
};

/*
 * The pages of a trace in the regions of an image, in the order of the first touches, each
 * once.  If root is the trace's own, they are the same pages.  Else a page is where the image
 * has its guest-physical address; and if it has no such address, or the image knows of none,
 * at the same place of the region of the same name.  *dropped: pages that have no place there.
 * The list belongs to the caller (free), and is NULL if *n is 0.
 */
int trace_resolve(const struct trace *t, const struct manifest *m,
    const uint8_t root[DIGEST_SIZE], struct page_ref **list, size_t *n, uint64_t *dropped,
    struct err *e);

/* The same for any regions, as runs of one page each. */
int trace_touches(const struct trace *t, const struct object *regions, size_t nregions,
    const uint8_t root[DIGEST_SIZE], struct trace_run **list, size_t *n, uint64_t *dropped,
    struct err *e);

/*
 * Gives a trace its runs, copied into its arena.  Those that one could be are made one: they
 * follow each other in memory too, and have the same time and access.
 */
int trace_set_runs(struct trace *t, const struct trace_run *list, size_t n, struct err *e);

#endif
