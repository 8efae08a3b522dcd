/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_PACK_H
#define GMEM_IMAGE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/node.h"

/*
 * Turns chunks of memory into records: classifies pages, packs those that are
 * not zero, compresses them.  A packer belongs to one thread.
 */
struct packer;

int packer_new(struct packer **out, const struct geometry *g, int level, struct err *e);
void packer_free(struct packer *p);

/*
 * Packs one chunk of len bytes, 1 … chunk size (an object's last chunk may be
 * short; its last page counts as filled up with zeros).  Sets the entry but
 * for its offset; the record of entry->length bytes goes to `record`, which
 * has room for packer_bound(g) bytes.  A chunk of zeros has length 0.
 */
int packer_pack(struct packer *p, const void *chunk, size_t len, struct entry *en, void *record,
    struct err *e);

/*
 * The same without the pages that are hot (CHUNK_PAGES_MAX bits, those of the chunk and
 * none that is zero): the entry says so, and their bytes are left to the hot section.
 */
int packer_pack_cold(struct packer *p, const void *chunk, size_t len, const uint64_t *hot,
    struct entry *en, void *record, struct err *e);

size_t packer_bound(const struct geometry *g);

/* Whether len bytes are zero. */
bool memory_is_zero(const void *p, size_t len);

#endif
