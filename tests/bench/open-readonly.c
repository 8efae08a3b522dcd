/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * To be preloaded: a file that cannot be opened for writing since its file system is read-only
 * is opened for reading.  QEMU maps private what it will never write to, and opens it for
 * writing all the same.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

__attribute__((visibility("default"))) int
open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list ap;
	int fd;

	va_start(ap, flags);
	if ((flags & (O_CREAT | O_TMPFILE)) != 0)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (fd == -1 && errno == EROFS)
		fd = (int)syscall(
		    SYS_openat, AT_FDCWD, path, (flags & ~O_ACCMODE) | O_RDONLY, mode);
	return fd;
}

/* What <fcntl.h> makes of open(path, flags) when it is told to look for mistakes. */
int __open64_2(const char *path, int flags);

__attribute__((visibility("default"))) int
__open64_2(const char *path, int flags)
{
	return open(path, flags);
}

__attribute__((visibility("default"))) int open64(const char *path, int flags, ...)
    __attribute__((alias("open")));
