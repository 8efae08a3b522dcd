/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_RESEAL_H
#define GMEM_TESTS_RESEAL_H

#include <stddef.h>
#include <stdint.h>

/*
 * Makes the checksums of a damaged image right again, so that what is behind
 * them is reached: what somebody does who makes a bad image on purpose.
 */
enum reseal {
	RESEAL_NOTHING,
	RESEAL_ENDS, /* header, trailer, the manifest's digest */
	RESEAL_INDEX, /* also the digests in the index and the checksums of page sums */
	RESEAL_COUNTS, /* also the counts in the index */
	RESEAL_LEVELS, /* (the number of these) */
};

void reseal(uint8_t *image, size_t len, enum reseal how);

#endif
