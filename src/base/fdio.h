/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_FDIO_H
#define GMEM_BASE_FDIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Whole reads and writes: EINTR is retried, a short result is continued. */

/* Reads up to len bytes until end of file; the count, or -1. */
ssize_t fd_read(int fd, void *buf, size_t len, struct err *e);

/* Reads exactly len bytes at off; less is ERR_CORRUPT ("ends at …"). */
int fd_pread_full(int fd, void *buf, size_t len, uint64_t off, struct err *e);

/* Writes everything. */
int fd_write_full(int fd, const void *buf, size_t len, struct err *e);
int fd_pwrite_full(int fd, const void *buf, size_t len, uint64_t off, struct err *e);

/*
 * fd_poke: makes an eventfd readable, as it may be already.
 *
 * fd_poked: whether that was done, once or often, since it was last asked; it waits for it
 * if the eventfd blocks.
 */
void fd_poke(int eventfd);
bool fd_poked(int eventfd);

/* Closes *fd if it is not -1 and sets it to -1; errno is kept. */
void fd_close(int *fd);

/* The whole of a small file (/proc, /sys), NUL-terminated, malloc'd; at most max bytes. */
int fd_slurp(const char *path, size_t max, char **text, size_t *len, struct err *e);

/*
 * What is left of an open file or pipe, in the same form.  1, and nothing, if that is more than
 * max bytes.  Never has more than three times of what it has read.
 */
int fd_slurp_fd(int fd, size_t max, char **text, size_t *len, struct err *e);

/* Makes sure descriptors 0, 1 and 2 are open, so that no file of ours lands on them. */
void fd_sanitize_std(void);

#endif
