/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_IMAGE_COLD_H
#define GMEM_IMAGE_COLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/*
 * Reading much of an image at once, wherever it is: records that lie together, in one go.
 * What is read past the page cache leaves others' pages in it.
 */
enum cold_io {
	COLD_AUTO, /* from the page cache what is there, the rest past it if that works */
	COLD_DIRECT, /* past the page cache */
	COLD_CACHED, /* through it */
};

struct cold {
	const struct image *img;
	enum cold_io how;
	int fd; /* of O_DIRECT; -1: there is no such thing here */
	atomic_bool unknown; /* what is in the page cache cannot be told */
	atomic_bool refused; /* the file system takes O_DIRECT, and then does not do it */
};

/* Offsets, lengths and addresses that every O_DIRECT can do with. */
#define COLD_ALIGN 4096u

/* "auto", "direct", "cached"; ERR_USAGE if there is no such way. */
int cold_io_parse(const char *name, enum cold_io *how, struct err *e);

/* Its file opened once more, with O_DIRECT: the caller's, or -1. */
int cold_reopen(int fd);

/*
 * The image is borrowed.  Always works: where O_DIRECT does not, it is cached.
 */
void cold_open(struct cold *c, const struct image *img, enum cold_io how);
void cold_close(struct cold *c);

/* Bytes of a buffer, aligned to COLD_ALIGN, that is large enough to read len bytes into. */
static inline size_t
cold_room(size_t len)
{
	return len + 2 * (size_t)COLD_ALIGN;
}

/*
 * Reads [off, off + len), which must lie in the file; *at tells where in the buffer they are.
 * Many threads at once.
 */
int cold_read(
    struct cold *c, uint8_t *buf, uint64_t off, size_t len, const uint8_t **at, struct err *e);

/* Whether reading there takes the disk from nobody: its ends are in the page cache. */
bool cold_at_hand(struct cold *c, uint64_t off, size_t len);

#endif
