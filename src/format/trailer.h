/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_TRAILER_H
#define GMEM_FORMAT_TRAILER_H

#include <stdint.h>

#include "base/err.h"
#include "codec/hash.h"
#include "format/header.h"

#define TRAILER_SIZE 128

struct trailer {
	uint64_t file_size;
	uint64_t manifest_offset; /* of its frame */
	uint64_t manifest_length; /* of the CBOR in it */
	uint8_t manifest_digest[DIGEST_SIZE];
	uint8_t root[DIGEST_SIZE];
};

void trailer_encode(uint8_t buf[TRAILER_SIZE], const struct trailer *t);

/* ERR_CORRUPT when damaged, or not what a file of file_size bytes can have. */
int trailer_decode(
    struct trailer *t, const uint8_t buf[TRAILER_SIZE], uint64_t file_size, struct err *e);

/* Whether the bytes look like a trailer at all. */
bool trailer_present(const uint8_t buf[TRAILER_SIZE]);

/* The root hash: of the header without its state, and the manifest's digest. */
void root_digest(uint8_t root[DIGEST_SIZE], const uint8_t header[HEADER_SIZE],
    const uint8_t manifest_digest[DIGEST_SIZE]);

#endif
