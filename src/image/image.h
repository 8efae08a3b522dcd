/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_IMAGE_H
#define GMEM_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "format/manifest.h"
#include "format/node.h"

/*
 * An open image.  Opening reads the header, the trailer and the manifest and
 * nothing else, whatever the size of the guest.  Every byte is checked before
 * it is believed; after opening an image is read-only and shared by threads.
 */
struct image {
	char *path; /* for messages */
	int fd;
	int direct; /* the same file with O_DIRECT, for who can't open it later; or -1 */
	uint64_t size; /* of the file, bytes */
	struct geometry g;
	uint64_t incompat, compat; /* features */
	bool streamed; /* written to a pipe */
	struct manifest manifest;
	uint8_t root[DIGEST_SIZE];
	uint64_t manifest_length;
	struct image_reads *reads; /* image/watch.h */
	struct hot_cache *hot; /* of image_hot; NULL: there is no hot section */
};

/*
 * ERR_CORRUPT: damaged, cut short, or no image.  ERR_INCOMPLETE: its writer did
 * not finish.  ERR_UNSUPPORTED: a version or feature not known here.
 */
int image_open(struct image **out, const char *path, struct err *e);

/* The same from a descriptor, which the image takes (also on failure). */
int image_open_fd(struct image **out, int fd, const char *path, struct err *e);

/*
 * The same if its root hash is the one expected; NULL: any.  Another is refused before the
 * manifest, or anything else that the root covers, is looked into: ERR_MISMATCH.
 */
int image_open_expected(
    struct image **out, const char *path, const uint8_t *expected, struct err *e);
int image_open_fd_expected(
    struct image **out, int fd, const char *path, const uint8_t *expected, struct err *e);

void image_close(struct image *img);

/* How many chunks an object has. */
uint64_t image_chunks(const struct image *img, const struct object *o);

/* The bytes of chunk `chunk` that belong to the object (the last may be short). */
uint32_t image_chunk_size(const struct image *img, const struct object *o, uint64_t chunk);

#endif
