/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/fdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

ssize_t
fd_read(int fd, void *buf, size_t len, struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n == 0)
			break;
		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return err_sys(e, "read");
	}
	return (ssize_t)done;
}

int
fd_pread_full(int fd, void *buf, size_t len, uint64_t off, struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n == 0)
			return err_set(e, ERR_CORRUPT,
			    "ends at byte %llu%s, %zu bytes wanted at %llu",
			    (unsigned long long)(off + done), done == 0 ? " or before" : "",
			    len, (unsigned long long)off);
		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return err_sys(
			    e, "read %zu bytes at %llu", len, (unsigned long long)off);
	}
	return 0;
}

int
fd_write_full(int fd, const void *buf, size_t len, struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return err_sys(e, "write");
	}
	return 0;
}

int
fd_pwrite_full(int fd, const void *buf, size_t len, uint64_t off, struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n =
		    pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return err_sys(
			    e, "write %zu bytes at %llu", len, (unsigned long long)off);
	}
	return 0;
}

void
fd_poke(int eventfd)
{
	const uint64_t one = 1;

	/* One that is full is readable already. */
	while (write(eventfd, &one, sizeof(one)) == -1 && errno == EINTR)
		;
}

bool
fd_poked(int eventfd)
{
	uint64_t pokes;

	return read(eventfd, &pokes, sizeof(pokes)) == sizeof(pokes);
}

void
fd_close(int *fd)
{
	int saved = errno;

	if (*fd != -1)
		close(*fd);
	*fd = -1;
	errno = saved;
}

int
fd_slurp_fd(int fd, size_t max, char **text, size_t *len, struct err *e)
{
	size_t have = 0, size = 4096;
	char *buf = NULL, *bigger;
	ssize_t n = 0;

	do {
		bigger = realloc(buf, size + 1);
		if (bigger == NULL) {
			n = err_sys(e, "%zu bytes", size);
			break;
		}
		buf = bigger;
		n = fd_read(fd, buf + have, size - have, e);
		if (n == -1)
			break;
		have += (size_t)n;
		if (have < size && have <= max) {
			buf[have] = '\0';
			*text = buf;
			*len = have;
			return 0;
		}
		size *= 2;
	} while (have <= max);
	free(buf);
	return n == -1 ? -1 : 1;
}

int
fd_slurp(const char *path, size_t max, char **text, size_t *len, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	size_t have;

	if (fd == -1)
		return err_sys(e, "open %s", path);
	rc = fd_slurp_fd(fd, max, text, &have, e);
	close(fd);
	if (rc == 1)
		return err_set(e, ERR_FAILED, "%s: more than %zu bytes", path, max);
	if (rc == -1)
		return err_wrap(e, "%s", path);
	if (len != NULL)
		*len = have;
	return 0;
}

void
fd_sanitize_std(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}
