/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/trace-file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/trace-bytes.h"

#define READ_STEP ((size_t)1 << 20)

/* As much as there is, up to one byte more than a trace can have. */
static int
slurp(int fd, struct cbor_out *buf, struct err *e)
{
	for (;;) {
		size_t room = MIN((size_t)TRACE_SIZE_MAX + 1 - buf->len, READ_STEP);
		ssize_t n;

		if (buf->cap - buf->len < room) {
			size_t cap =
			    MAX(buf->len + room, MIN(buf->cap * 2, TRACE_SIZE_MAX + 1));
			uint8_t *bigger = realloc(buf->buf, cap);

			if (bigger == NULL)
				return err_sys(e, "%zu bytes", cap);
			buf->buf = bigger;
			buf->cap = cap;
		}
		n = fd_read(fd, buf->buf + buf->len, room, e);
		if (n == -1)
			return -1;
		buf->len += (size_t)n;
		if (buf->len > TRACE_SIZE_MAX)
			return err_set(e, ERR_CORRUPT,
			    "has more than the %llu bytes that a trace can have",
			    (unsigned long long)TRACE_SIZE_MAX);
		if ((size_t)n < room)
			return 0;
	}
}

int
trace_read_fd(struct trace *t, int fd, const char *path, struct err *e)
{
	struct cbor_out buf = { 0 };
	int ret;

	*t = (struct trace){ .runs = NULL };
	ret = slurp(fd, &buf, e);
	if (ret == 0)
		ret = trace_decode(t, buf.buf, buf.len, e);
	cbor_out_free(&buf);
	return ret == -1 ? err_wrap(e, "%s", path) : 0;
}

int
trace_read_file(struct trace *t, const char *path, struct err *e)
{
	int fd, ret;

	*t = (struct trace){ .runs = NULL };
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return err_sys(e, "open %s", path);
	ret = trace_read_fd(t, fd, path, e);
	fd_close(&fd);
	return ret;
}

int
trace_check_replace(const char *path, struct err *e)
{
	char magic[sizeof(trace_magic)];
	struct stat st;
	ssize_t n;
	int fd;

	/* What can't be looked at is refused when it is opened for writing. */
	if (stat(path, &st) == -1 || !S_ISREG(st.st_mode) || st.st_size == 0)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return err_sys(e, "open %s", path);
	n = fd_read(fd, magic, sizeof(magic), e);
	fd_close(&fd);
	if (n == -1)
		return err_wrap(e, "%s", path);
	if (n != sizeof(magic) || memcmp(magic, trace_magic, sizeof(magic)) != 0)
		return err_set(
		    e, ERR_FAILED, "%s: is no trace, and is not overwritten by one", path);
	return 0;
}

int
trace_write(struct out *out, const struct trace *t, struct err *e)
{
	struct cbor_out bytes;
	int ret;

	if (trace_encode(&bytes, t, e) == -1)
		return -1;
	ret = out_write(out, bytes.buf, bytes.len, e);
	cbor_out_free(&bytes);
	return ret == -1 ? -1 : out_commit(out, e);
}
