/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/cold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"

int
cold_io_parse(const char *name, enum cold_io *how, struct err *e)
{
	static const char *const names[] = {
		[COLD_AUTO] = "auto", [COLD_DIRECT] = "direct", [COLD_CACHED] = "cached"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0) {
			*how = (enum cold_io)i;
			return 0;
		}
	return err_set(
	    e, ERR_USAGE, "there is no way \"%s\" of reading: auto, direct or cached", name);
}

int
cold_reopen(int fd)
{
	char path[32];

	/* The very file that was opened and checked, whatever its name means by now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

void
cold_open(struct cold *c, const struct image *img, enum cold_io how)
{
	*c = (struct cold){ .img = img, .how = how, .fd = -1 };
	if (how == COLD_CACHED)
		return;
	c->fd =
	    img->direct != -1 ? fcntl(img->direct, F_DUPFD_CLOEXEC, 0) : cold_reopen(img->fd);
}

void
cold_close(struct cold *c)
{
	fd_close(&c->fd);
}

static bool
is_cached(const struct cold *c)
{
	return c->fd == -1 || atomic_load(&c->refused);
}

/* Whether all of it was in the page cache, from which it was read. */
static bool
read_cached(struct cold *c, uint8_t *buf, uint64_t off, size_t len)
{
	struct iovec iov = { buf, len };
	ssize_t n;

	if (atomic_load(&c->unknown))
		return false;
	n = preadv2(c->img->fd, &iov, 1, (off_t)off, RWF_NOWAIT);
	if (n == -1 && errno == EOPNOTSUPP)
		atomic_store(&c->unknown, true);
	return n == (ssize_t)len;
}

static bool
byte_cached(const struct cold *c, uint64_t off)
{
	char byte;
	struct iovec iov = { &byte, 1 };

	return preadv2(c->img->fd, &iov, 1, (off_t)off, RWF_NOWAIT) == 1;
}

bool
cold_at_hand(struct cold *c, uint64_t off, size_t len)
{
	return c->how != COLD_DIRECT && len > 0 && byte_cached(c, off) &&
	       byte_cached(c, off + len - 1);
}

/* How many bytes of the file are in the buffer from the aligned offset on; 0: it can't. */
static size_t
read_direct(const struct cold *c, uint8_t *buf, uint64_t from, size_t want)
{
	size_t len = (size_t)align_up(want, COLD_ALIGN), at = 0;

	while (at < want) {
		ssize_t n = pread(c->fd, buf + at, len - at, (off_t)(from + at));

		if (n == -1 && errno == EINTR)
			continue;
		/* Only the end of a file is not aligned. */
		if (n <= 0 || (at + (size_t)n < want && n % COLD_ALIGN != 0))
			return 0;
		at += (size_t)n;
	}
	return at;
}

int
cold_read(
    struct cold *c, uint8_t *buf, uint64_t off, size_t len, const uint8_t **at, struct err *e)
{
	uint64_t from = align_down(off, COLD_ALIGN);
	size_t before = (size_t)(off - from);

	if (off > c->img->size || c->img->size - off < len)
		return err_set(e, ERR_CORRUPT, "%zu bytes do not fit the file of %llu", len,
		    (unsigned long long)c->img->size);
	*at = buf;
	if (is_cached(c))
		return fd_pread_full(c->img->fd, buf, len, off, e);
	if (c->how == COLD_AUTO && read_cached(c, buf, off, len))
		return 0;
	if (read_direct(c, buf, from, before + len) != 0) {
		*at = buf + before;
		return 0;
	}
	/* What is wrong with the file is told by the usual way; else it is O_DIRECT. */
	if (fd_pread_full(c->img->fd, buf, len, off, e) == -1)
		return -1;
	atomic_store(&c->refused, true);
	return 0;
}
