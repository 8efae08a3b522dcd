/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_LAYOUT_H
#define GMEM_FORMAT_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The constants of image format 1; gmem-image(5) is the normative text.
 *
 *	header		skippable frame of 128 bytes
 *	records		per stored chunk: skippable frame of page sums, zstd frame
 *	nodes		index, each a skippable frame of 8 + 4096 bytes
 *	manifest	skippable frame: CBOR
 *	trailer		skippable frame of 128 bytes, at the very end
 */
#define FORMAT_MAJOR 1u
#define FORMAT_MINOR 0u

/* zstd's skippable frames are 0x184D2A50…5F; gmem's are told apart by the low digit. */
#define SKIP_HEADER 0x184D2A50u
#define SKIP_SUMS 0x184D2A51u
#define SKIP_NODE 0x184D2A52u
#define SKIP_MANIFEST 0x184D2A53u
#define SKIP_TRAILER 0x184D2A54u
#define SKIP_SIZE 8 /* magic and length in front of the payload */

#define PAGE_GRANULE 4096u /* pages have classes at this granularity */
#define CHUNK_SIZE_MIN 4096u
#define CHUNK_SIZE_MAX (2u << 20)
#define CHUNK_SIZE_DEFAULT (64u << 10)
#define CHUNK_PAGES_MAX (CHUNK_SIZE_MAX / PAGE_GRANULE)

/* Limits, kept by writer and reader alike. */
#define OBJECT_SIZE_MAX (UINT64_C(1) << 46) /* 64 TiB */
#define IMAGE_SIZE_MAX (UINT64_C(1) << 48)
#define MANIFEST_SIZE_MAX (4u << 20)
#define MANIFEST_DEPTH_MAX 8u
#define OBJECTS_MAX 256u /* regions, and states */
#define SEGMENTS_MAX 256u /* guest physical segments of a region */
#define PAIRS_MAX 1024u /* annotations, facts of a VMM */
#define NAME_LENGTH_MAX 255u /* bytes of a name or key */
#define TEXT_LENGTH_MAX 65535u
#define ARGUMENTS_MAX 65535u /* of a VMM's command line */
#define OBJECT_PAGE_SIZE_MAX (1u << 30)
#define LEVEL_MAX 1000000u /* a level and its negative lie within */
#define HOT_PAGES_MAX (1u << 22) /* entries of the hot table: 16 GiB, 32 MiB of table */

/* Incompatible features: a reader that does not know one refuses the image. */
#define INCOMPAT_PARENT (UINT64_C(1) << 0) /* reserved: pages inherited from a parent image */
#define INCOMPAT_HOT (UINT64_C(1) << 1) /* a packed section of hot pages */
#define INCOMPAT_DEDUP (UINT64_C(1) << 2) /* reserved: pages stored once, used many times */
#define INCOMPAT_DICTIONARY (UINT64_C(1) << 3) /* reserved: frames need a zstd dictionary */
#define INCOMPAT_KNOWN INCOMPAT_HOT

/* What follows from the chunk size. */
struct geometry {
	uint32_t chunk_size; /* bytes, a power of two */
	uint32_t pages; /* granules of a chunk */
	uint32_t mask_size; /* bytes of a page mask in an index entry */
	uint32_t entry_size; /* bytes of an index entry, a power of two */
	uint32_t leaf_fanout; /* entries of a leaf node */
};

/* -1 with ERR_UNSUPPORTED for a chunk size outside the limits. */
int geometry_init(struct geometry *g, uint32_t chunk_size, struct err *e);

static inline uint64_t
geometry_chunks(const struct geometry *g, uint64_t size)
{
	return size / g->chunk_size + (size % g->chunk_size != 0);
}

#endif
