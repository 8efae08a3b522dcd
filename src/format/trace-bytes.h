/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_TRACE_BYTES_H
#define GMEM_FORMAT_TRACE_BYTES_H

#include <stddef.h>

/*
 * What the encoder and the decoder of traces share.
 *
 *	 0	"gmem-trc"
 *	 8 u32	version			12 u32	length of the description
 *	16 u64	number of runs		24 u64	incompatible features, none
 *	32	description, and zeros up to a multiple of 8
 *
 * A run:
 *	 0 u64	bits 0-47 page, 48-55 region, 56-57 access
 *	 8 u32	pages			12 u32	time
 */
static const char trace_magic[8] = { 'g', 'm', 'e', 'm', '-', 't', 'r', 'c' };

#define RUN_PAGE_BITS 48
#define RUN_REGION_SHIFT 48
#define RUN_ACCESS_SHIFT 56
#define RUN_RESERVED_SHIFT 58

/* Zeros behind a description of len bytes. */
static inline size_t
trace_padding(size_t len)
{
	return -len % 8;
}

#endif
