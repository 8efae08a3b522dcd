/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_FIRECRACKER_MESSAGE_H
#define GMEM_VMM_FIRECRACKER_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The message by which Firecracker says where its guest's memory is: a JSON array with an
 * object for each piece, and nothing around it, no length, no terminator.  Pure.
 *
 *	[{"base_host_virt_addr":…,"size":…,"offset":…,"page_size":…,"page_size_kib":…}, …]
 *
 * page_size came with 1.12; page_size_kib, with 1.7, is in bytes too; before that pages have 4
 * KiB.  Other fields are of versions and forks to come, and of no interest.
 */

#define FC_MESSAGE_MAX (256u << 10) /* bytes */
#define FC_REGIONS_MAX 1024u

/* Bytes, all of them; multiples of page_size. */
struct fc_region {
	uint64_t hva; /* in the address space of the VMM */
	uint64_t size;
	uint64_t offset; /* in the memory file */
};

struct fc_regions {
	struct fc_region v[FC_REGIONS_MAX]; /* by offset */
	size_t n; /* at least 1 */
	uint64_t page_size; /* of all of them: 4 KiB, 16 KiB, 64 KiB or 2 MiB */
	uint64_t size; /* of all of them */
};

/*
 * Whether the array closes within these bytes: 1, with the bytes up to there in *end; 0 if
 * more has to come.  -1: what has come is no such message, whatever comes.
 */
int fc_message_end(const char *buf, size_t len, size_t *end, struct err *e);

/*
 * Takes a whole message apart.  ERR_CORRUPT unless every piece is aligned, and the pieces have
 * different addresses and are together one memory file from its first byte to its last.
 */
int fc_message_parse(const char *buf, size_t len, struct fc_regions *out, struct err *e);

#endif
