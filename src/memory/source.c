/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/source.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "memory/filling.h"
#include "memory/guest-memfd.h"
#include "memory/source-layers.h"

struct memory_source {
	int fd; /* owned */
	enum memory_kind kind;
	uint64_t size;
	bool seeks; /* SEEK_DATA is of use */
	uint64_t base; /* of its first byte in the file; 0 unless there is a bitmap */
	uint8_t *bitmap; /* owned; the pages that are in the file, or NULL: all are */
	uint32_t page_size; /* of the bitmap */
	struct guest_memfd_scratch scratch;
	struct source_layers layers; /* on top */
};

/* How long the object is at this moment. */
static int
length(int fd, struct stat *st, uint64_t *len, struct err *e)
{
	if (fstat(fd, st) == -1)
		return err_sys(e, "stat of memory");
	if (S_ISREG(st->st_mode)) {
		*len = (uint64_t)st->st_size;
		return 0;
	}
	if (!S_ISBLK(st->st_mode))
		return err_set(e, ERR_FAILED, "neither a file nor a block device");
	if (ioctl(fd, BLKGETSIZE64, len) == -1)
		return err_sys(e, "size of block device");
	return 0;
}

/* That nothing of what we serve has gone; else its reading as zeros would be a lie. */
static int
check_length(const struct memory_source *src, struct err *e)
{
	struct stat st;
	uint64_t len;

	if (length(src->fd, &st, &len, e) == -1)
		return -1;
	if (len < src->base + src->size)
		return err_set(e, ERR_FAILED,
		    "the memory shrank from %llu to %llu bytes while it was read",
		    (unsigned long long)(src->base + src->size), (unsigned long long)len);
	return 0;
}

/*
 * Whether lseek(2) tells holes from data, and can be trusted to: elsewhere (FUSE, ZFS, NFS)
 * pages that were written through a mapping have been seen to count as a hole.
 */
static bool
has_seek(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) == -1)
		return false;
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != EXT4_SUPER_MAGIC &&
	    fs.f_type != XFS_SUPER_MAGIC && fs.f_type != BTRFS_SUPER_MAGIC)
		return false;
	return lseek(fd, 0, SEEK_DATA) != -1 || errno == ENXIO;
}

static int
prepare(struct memory_source *src, uint64_t size, struct err *e)
{
	struct stat st;
	uint64_t len;

	if (length(src->fd, &st, &len, e) == -1)
		return -1;
	if (size > len)
		return err_set(e, ERR_FAILED, "%llu bytes wanted, the memory has %llu",
		    (unsigned long long)size, (unsigned long long)len);
	src->size = size != 0 ? size : len;
	if (src->kind == MEMORY_GUEST_MEMFD)
		return guest_memfd_check(src->fd, e);
	src->seeks = S_ISREG(st.st_mode) && has_seek(src->fd);
	return 0;
}

int
memory_source_open(
    struct memory_source **out, int fd, enum memory_kind kind, uint64_t size, struct err *e)
{
	struct memory_source *src;

	src = calloc(1, sizeof(*src));
	if (src == NULL) {
		err_sys(e, "memory source");
		fd_close(&fd);
		return -1;
	}
	src->fd = fd;
	src->kind = kind;
	guest_memfd_scratch_init(&src->scratch);
	if (prepare(src, size, e) == -1) {
		memory_source_free(src);
		return -1;
	}
	*out = src;
	return 0;
}

int
memory_source_open_pages(struct memory_source **out, int fd, uint64_t base, uint64_t size,
    uint8_t *bitmap, uint32_t page_size, struct err *e)
{
	struct memory_source *src;
	struct stat st;
	uint64_t len, end;

	if (memory_source_open(&src, fd, MEMORY_FILE, 0, e) == -1) {
		free(bitmap);
		return -1;
	}
	src->base = base;
	src->size = size;
	src->bitmap = bitmap;
	src->page_size = page_size;
	if (length(src->fd, &st, &len, e) == 0 && (ckd_add(&end, base, size) || end > len))
		err_set(e, ERR_CORRUPT, "%llu bytes at %llu: the file has %llu",
		    (unsigned long long)size, (unsigned long long)base,
		    (unsigned long long)len);
	if (e->kind != ERR_NONE) {
		memory_source_free(src);
		return -1;
	}
	*out = src;
	return 0;
}

static bool
is_tmpfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* A small write to a huge page of tmpfs makes all of it data, zeros that nobody wrote. */
static int
check_layer(const struct memory_source *src, int fd, struct err *e)
{
	struct stat st;
	uint64_t len;

	if (length(fd, &st, &len, e) == -1)
		return -1;
	if (len != src->size)
		return err_set(e, ERR_FAILED,
		    "it has %llu bytes, what it is a diff to has %llu", (unsigned long long)len,
		    (unsigned long long)src->size);
	if (!S_ISREG(st.st_mode) || !has_seek(fd))
		return err_set(e, ERR_UNSUPPORTED,
		    "its file system does not tell holes from data (tmpfs, ext4, XFS and btrfs "
		    "do), so it is not known what it replaces");
	if (is_tmpfs(fd) && st.st_blksize > sysconf(_SC_PAGESIZE))
		return err_set(e, ERR_UNSUPPORTED,
		    "its tmpfs takes huge pages (huge=), %ld bytes at once, so it is not known "
		    "what it replaces: write the diff to a file system without them",
		    (long)st.st_blksize);
	return 0;
}

int
memory_source_add_layer(struct memory_source *src, int fd, uint64_t *holes, struct err *e)
{
	if (check_layer(src, fd, e) == -1) {
		fd_close(&fd);
		return -1;
	}
	return source_layers_add(&src->layers, fd, src->size, holes, e);
}

void
memory_source_free(struct memory_source *src)
{
	if (src == NULL)
		return;
	source_layers_fini(&src->layers);
	guest_memfd_scratch_fini(&src->scratch);
	fd_close(&src->fd);
	free(src->bitmap);
	free(src);
}

uint64_t
memory_source_size(const struct memory_source *src)
{
	return src->size;
}

/* By SEEK_DATA and SEEK_HOLE. */
static int
next_seek(const struct memory_source *src, uint64_t from, uint64_t *start, uint64_t *end,
    struct err *e)
{
	off_t data, hole = -1;

	data = lseek(src->fd, (off_t)from, SEEK_DATA);
	if (data != -1)
		hole = lseek(src->fd, data, SEEK_HOLE);
	if (hole == -1 && errno != ENXIO)
		return err_sys(e, "look for data at %llu", (unsigned long long)from);
	/* ENXIO is said of holes up to the end, and of a file that became too short. */
	if (check_length(src, e) == -1)
		return -1;
	if (hole == -1 || (uint64_t)data >= src->size)
		return 0;
	*start = (uint64_t)data;
	*end = (uint64_t)hole;
	return 1;
}

/* Everything, unless nothing was ever allocated. */
static int
next_all(
    struct memory_source *src, uint64_t from, uint64_t *start, uint64_t *end, struct err *e)
{
	uint64_t bytes;

	if (memory_source_resident(src, &bytes, e) == -1 || check_length(src, e) == -1)
		return -1;
	if (src->kind == MEMORY_HUGETLB && bytes == 0)
		return 0;
	*start = from;
	*end = src->size;
	return 1;
}

/* Whether the page that holds the byte is in the file. */
static bool
is_present(const struct memory_source *src, uint64_t at)
{
	uint64_t page = at / src->page_size;

	return (src->bitmap[page / 8] >> page % 8 & 1) != 0;
}

/* The end of the run of pages that are in the file, or are not, from a byte in it on. */
static uint64_t
run_end(const struct memory_source *src, uint64_t at, uint64_t limit)
{
	bool present = is_present(src, at);

	do
		at = align_down(at, src->page_size) + src->page_size;
	while (at < limit && is_present(src, at) == present);
	return MIN(at, limit);
}

/* By the bitmap. */
static int
next_present(const struct memory_source *src, uint64_t from, uint64_t *start, uint64_t *end)
{
	if (!is_present(src, from))
		from = run_end(src, from, src->size);
	if (from >= src->size)
		return 0;
	*start = from;
	*end = run_end(src, from, src->size);
	return 1;
}

/* Without layers. */
static int
next_below(
    struct memory_source *src, uint64_t from, uint64_t *start, uint64_t *end, struct err *e)
{
	if (src->bitmap != NULL)
		return next_present(src, from, start, end);
	if (src->kind == MEMORY_GUEST_MEMFD)
		return guest_memfd_next(src->fd, src->size, from, start, end, e);
	if (src->seeks)
		return next_seek(src, from, start, end, e);
	return next_all(src, from, start, end, e);
}

int
memory_source_next(
    struct memory_source *src, uint64_t from, uint64_t *start, uint64_t *end, struct err *e)
{
	uint64_t limit = align_up(src->size, MEMORY_SOURCE_BLOCK);
	uint64_t first = 0, last = 0, above, above_end;
	int found;

	if (from >= src->size)
		return 0;
	found = next_below(src, from, &first, &last, e);
	if (found == -1)
		return -1;
	if (source_layers_next(&src->layers, from, &above, &above_end) == 1 &&
	    (found == 0 || above < first)) {
		first = above;
		last = above_end;
		found = 1;
	}
	if (found == 0)
		return 0;
	*start = MAX(align_down(first, MEMORY_SOURCE_BLOCK), from);
	*end = MIN(align_up(last, MEMORY_SOURCE_BLOCK), limit);
	return 1;
}

static int
read_file(const struct memory_source *src, void *buf, size_t len, uint64_t off, struct err *e)
{
	if (fd_pread_full(src->fd, buf, len, src->base + off, e) == 0)
		return 0;
	/* Not an image that is damaged, but a file that somebody is changing. */
	if (e->kind == ERR_CORRUPT && check_length(src, e) == 0)
		err_set(e, ERR_FAILED, "the memory ends before byte %llu of %llu",
		    (unsigned long long)(off + len), (unsigned long long)src->size);
	return -1;
}

/* What is not in the file is zero. */
static int
read_present(
    const struct memory_source *src, uint8_t *buf, size_t len, uint64_t off, struct err *e)
{
	for (uint64_t at = off, n; at < off + len; at += n, buf += n) {
		n = run_end(src, at, off + len) - at;
		if (!is_present(src, at))
			memset(buf, 0, (size_t)n);
		else if (read_file(src, buf, (size_t)n, at, e) == -1)
			return -1;
	}
	return 0;
}

int
memory_source_read(
    struct memory_source *src, void *buf, size_t len, uint64_t off, struct err *e)
{
	uint64_t limit = align_up(src->size, MEMORY_SOURCE_BLOCK);
	size_t have = off < src->size ? (size_t)MIN(len, src->size - off) : 0;
	int r = 0;

	if (off > limit || len > limit - off)
		return err_set(e, ERR_FAILED, "%zu bytes at %llu: the memory has %llu", len,
		    (unsigned long long)off, (unsigned long long)src->size);
	if (have > 0 && src->bitmap != NULL)
		r = read_present(src, buf, have, off, e);
	else if (have > 0 && src->kind == MEMORY_GUEST_MEMFD)
		r = guest_memfd_read(src->fd, &src->scratch, buf, have, off, e);
	else if (have > 0)
		r = read_file(src, buf, have, off, e);
	if (r == 0 && have > 0)
		r = source_layers_read(&src->layers, buf, have, off, e);
	if (r == 0 && have < len)
		memset((char *)buf + have, 0, len - have);
	return r;
}

static int
resident_guest_memfd(const struct memory_source *src, uint64_t *bytes, struct err *e)
{
	uint64_t start, end = 0, sum = 0;
	int more;

	while ((more = guest_memfd_next(src->fd, src->size, end, &start, &end, e)) == 1)
		sum += end - start;
	*bytes = sum;
	return more;
}

bool
memory_source_is_filling(const struct memory_source *src, uint64_t off, uint64_t len)
{
	return filling_is(src->fd, src->base + off, len);
}

int
memory_source_resident(struct memory_source *src, uint64_t *bytes, struct err *e)
{
	struct stat st;
	uint64_t len;

	if (src->kind == MEMORY_GUEST_MEMFD)
		return resident_guest_memfd(src, bytes, e);
	if (src->bitmap != NULL) {
		*bytes = 0;
		for (uint64_t at = 0, end; at < src->size; at = end) {
			end = run_end(src, at, src->size);
			*bytes += is_present(src, at) ? end - at : 0;
		}
		return 0;
	}
	if (length(src->fd, &st, &len, e) == -1)
		return -1;
	*bytes = S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : src->size;
	return 0;
}
