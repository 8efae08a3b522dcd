/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_WRITER_H
#define GMEM_IMAGE_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "format/manifest.h"
#include "format/node.h"

/*
 * Writes an image from its first byte to its last, in bounded memory, to
 * anything that can be written.  The bytes depend on what is given, not on
 * when: objects one after the other, chunks in ascending order.
 */
struct image_writer;

struct image_params {
	uint32_t chunk_size;
	int level; /* for the record; the packers compress */
	bool replace; /* an existing file of that name */
	bool digest; /* record a SHA-256 of each object's content, those of the hot section
			excepted */
	bool hot; /* there will be a hot section: image_writer_begin_hot */
};

enum image_hot_object {
	HOT_OBJECT_PAGES,
	HOT_OBJECT_TABLE,
};

int image_writer_new(
    struct image_writer **out, const char *path, const struct image_params *p, struct err *e);

const struct geometry *image_writer_geometry(const struct image_writer *w);

/* The manifest to fill in: VMM, annotations; what lives in its arena may be used in it. */
struct manifest *image_writer_manifest(struct image_writer *w);

/*
 * Starts a region (kind and page_size tell what memory it was) or a state
 * (page_size 0).  Segments are copied.  A state's size may be 0 when it is not
 * known yet: image_writer_end sets it.
 */
int image_writer_begin(
    struct image_writer *w, const struct object *o, bool state, struct err *e);

/*
 * Starts an object of the hot section: the hot pages, if any are stored, or the table, which
 * lists them.  They come before the regions, so that they lie first in the file; `size` is
 * in bytes.  What their regions' entries say of them is for the caller to keep right.
 */
int image_writer_begin_hot(
    struct image_writer *w, enum image_hot_object which, uint64_t size, struct err *e);

/*
 * Adds a chunk; those that are left out are zero.  The entry's offset is set here.  One
 * whose pages are all hot has length 0.
 */
int image_writer_chunk(struct image_writer *w, uint64_t chunk, const struct entry *en,
    const void *record, struct err *e);

/*
 * Whether the object that was begun wants its content digested, for image_writer_content: if
 * params.digest asks for that, and it did not begin with a digest, of an image that is written
 * anew say.  Of the hot section none does: the regions' digests cover it.
 */
bool image_writer_wants_content(const struct image_writer *w);

/* Adds items (image/content.h) of the object's pages, all of them, in ascending order. */
void image_writer_content(struct image_writer *w, const uint8_t *items, size_t len);

/* Ends the object; size 0 keeps the one it began with. */
int image_writer_end(struct image_writer *w, uint64_t size, struct err *e);

/* Writes what is missing and publishes the image.  root: its root hash. */
int image_writer_commit(struct image_writer *w, uint8_t root[DIGEST_SIZE], struct err *e);

/* There is a complete image of that name: image_writer_commit may have failed behind it. */
bool image_writer_published(const struct image_writer *w);

/* Bytes written so far. */
uint64_t image_writer_size(const struct image_writer *w);

/* Without image_writer_commit nothing is left behind.  NULL is fine. */
void image_writer_free(struct image_writer *w);

#endif
