/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/filling.h"

#include <fcntl.h>
#include <unistd.h>

static struct flock
part(short type, uint64_t off, uint64_t len)
{
	return (struct flock){ .l_type = type,
		.l_whence = SEEK_SET,
		.l_start = FILLING_BASE + (off_t)off,
		.l_len = (off_t)len };
}

int
filling_begin(int fd, uint64_t off, uint64_t len, struct err *e)
{
	struct flock lock = part(F_RDLCK, off, len);

	return fcntl(fd, F_OFD_SETLK, &lock) == -1 ? err_sys(e, "mark of memory") : 0;
}

void
filling_end(int fd, uint64_t off, uint64_t len)
{
	struct flock lock = part(F_UNLCK, off, len);

	(void)fcntl(fd, F_OFD_SETLK, &lock);
}

/* F_GETLK asks for a lock of this process, which that of a descriptor it shares would bar. */
bool
filling_is(int fd, uint64_t off, uint64_t len)
{
	struct flock lock = part(F_WRLCK, off, len);

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
