/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/trace-file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "format/trace-bytes.h"

int
trace_read_fd(struct trace *t, int fd, const char *path, struct err *e)
{
	char *bytes = NULL;
	size_t len;
	int rc;

	*t = (struct trace){ .runs = NULL };
	rc = fd_slurp_fd(fd, TRACE_SIZE_MAX, &bytes, &len, e);
	if (rc == 1)
		rc = err_set(e, ERR_CORRUPT,
		    "has more than the %llu bytes that a trace can have",
		    (unsigned long long)TRACE_SIZE_MAX);
	else if (rc == 0)
		rc = trace_decode(t, bytes, len, e);
	free(bytes);
	return rc == -1 ? err_wrap(e, "%s", path) : 0;
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
