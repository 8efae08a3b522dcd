/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_READER_H
#define GMEM_IMAGE_READER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/*
 * Looks up and decodes chunks.  What cannot be had because a part of the file is damaged, gone
 * or cannot be read is an error with ->damage: what lies elsewhere may be had all the same.
 *
 * A reader belongs to one thread at a time; it
 * keeps its contexts, buffers and the index nodes it has verified, in bounded
 * memory, and allocates nothing after image_reader_new.
 */
struct image_reader;

struct image_reader_stats {
	uint64_t bytes_read; /* from the file: nodes and records */
	uint64_t bytes_decoded; /* of content */
	uint64_t chunks; /* loaded */
	uint64_t reads; /* system calls that read the file */
};

int image_reader_new(struct image_reader **out, const struct image *img, struct err *e);
void image_reader_free(struct image_reader *r);
const struct image *image_reader_image(const struct image_reader *r);

/*
 * Keeps the buffer of decoded pages in RAM: a write(2) from it into guest
 * memory is then atomic (kernel.md §2.4).  Fails when RLIMIT_MEMLOCK is short.
 */
int image_reader_lock(struct image_reader *r, struct err *e);

/* Somebody waits for what it reads from now on, or does not: image/watch.h. */
void image_reader_urgent(struct image_reader *r, bool urgent);

/* Around reads of the file that somebody else makes with it in mind (image/cold.h). */
void image_reader_reading(struct image_reader *r, uint64_t off, uint64_t len);
void image_reader_has_read(struct image_reader *r);

/* The index entry of a chunk in [0, image_chunks). */
int image_reader_entry(struct image_reader *r, const struct object *o, uint64_t chunk,
    struct entry *en, struct err *e);

/*
 * The first chunk at or after `from` that stores a page, in its record or in the hot
 * section: 1 with *chunk and *en set, 0 if there is none.  A chunk whose pages are all
 * hot has no record: its en->length is 0, and there is nothing to load.  Empty spans are
 * stepped over whole.
 */
int image_reader_next(struct image_reader *r, const struct object *o, uint64_t from,
    uint64_t *chunk, struct entry *en, struct err *e);

/*
 * After image_reader_next or image_reader_entry has failed with ->damage: the first chunk
 * behind those of which nothing is known, which may be behind the end.
 */
uint64_t image_reader_behind(const struct image_reader *r);

/* How many pages the record of an entry of this image has; hot ones are not among them. */
uint32_t image_reader_stored(const struct image_reader *r, const struct entry *en);

/* Is told where each node is. */
typedef void node_visit(void *arg, uint64_t offset);

/* Counts the index nodes of an object; the inner ones are verified.  visit may be NULL. */
int image_reader_nodes(struct image_reader *r, const struct object *o, node_visit *visit,
    void *arg, uint64_t *count, struct err *e);

/* Reads the record of a chunk that stores something and checks its page sums' checksum. */
int image_reader_load(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, struct err *e);

/* The same, unless that chunk is the one that is loaded. */
int image_reader_ensure(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, struct err *e);

/*
 * The same of a record that was read already (image/cold.h): its en->length bytes, and a place
 * for all of the chunk's stored pages.  Both are borrowed until the next load.
 */
int image_reader_load_from(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, const void *record, void *pages, struct err *e);

/*
 * The pages of the loaded chunk, packed: page `rank` of the stored ones lies at
 * rank * 4096.  Decodes no further than needed for the first `upto` pages; a
 * page that is given out was checked.  Borrowed until the next load.
 */
int image_reader_pages(
    struct image_reader *r, uint32_t upto, const uint8_t **pages, struct err *e);

/* The record of the loaded chunk, as long as its entry says.  Borrowed until the next load. */
const uint8_t *image_reader_record(const struct image_reader *r);

/* One page of the loaded chunk: decoded up to it, and checked, whatever is before it. */
int image_reader_page(
    struct image_reader *r, uint32_t rank, const uint8_t **page, struct err *e);

/* Where the bytes of a page are: page `rank` of the record of a chunk of `object`. */
struct place {
	const struct object *object; /* the page's own, or the hot pages */
	uint64_t chunk;
	struct entry entry; /* of that chunk */
	uint32_t rank;
};

/*
 * Looks up where page `page` (of 4096 bytes) of an object is stored, hot or not: 1;
 * 0 if it is zero.  image_reader_load(p->object, p->chunk, &p->entry) and
 * image_reader_page(p->rank) give its bytes.
 */
int image_reader_place(struct image_reader *r, const struct object *o, uint64_t page,
    struct place *p, struct err *e);

/* The bytes of a page that was looked up; its chunk is loaded unless it is already. */
int image_reader_get(
    struct image_reader *r, const struct place *p, const uint8_t **page, struct err *e);

/* The bytes [off, off + len) of an object, zeros included. */
int image_reader_read(struct image_reader *r, const struct object *o, uint64_t off, void *buf,
    size_t len, struct err *e);

void image_reader_stats(const struct image_reader *r, struct image_reader_stats *stats);

#endif
