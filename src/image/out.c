/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/out.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"

struct out {
	char *path; /* the final name */
	char *temp; /* the name it has until then, or NULL: none */
	int fd, dir;
	bool stream; /* a pipe or device: no name to give, no going back */
	bool replace; /* an existing file may be replaced */
	bool published;
	bool hole; /* bytes were stepped over, maybe the last ones */
	uint64_t offset;
};

static int
open_stream(struct out *o, struct err *e)
{
	struct stat st;

	o->stream = true;
	if (strcmp(o->path, "-") == 0)
		o->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else
		o->fd = open(o->path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (o->fd == -1)
		return err_sys(e, "open %s", o->path);
	/* It was none: what is written over in place of it is somebody's. */
	if (strcmp(o->path, "-") != 0 && (fstat(o->fd, &st) == -1 || S_ISREG(st.st_mode)))
		return err_set(e, ERR_FAILED, "%s: has become a file meanwhile", o->path);
	return 0;
}

/* A name beside the final one that nobody else uses. */
static char *
temp_name(const struct out *o)
{
	uint64_t random;
	char *copy, *name = NULL;

	copy = strdup(o->path);
	if (copy == NULL)
		return NULL;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = (uint64_t)getpid();
	if (asprintf(&name, ".%.200s.%016llx.part", basename(copy),
		(unsigned long long)random) == -1)
		name = NULL;
	free(copy);
	return name;
}

static int
open_dir(struct out *o, struct err *e)
{
	char *copy, *dir;

	copy = strdup(o->path);
	if (copy == NULL)
		return err_sys(e, "%s", o->path);
	dir = dirname(copy);
	o->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->dir == -1)
		err_sys(e, "open folder %s", dir);
	free(copy);
	return o->dir == -1 ? -1 : 0;
}

static int
open_file(struct out *o, struct err *e)
{
	if (open_dir(o, e) == -1)
		return -1;
	o->fd = openat(o->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (o->fd != -1)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
		return err_sys(e, "create %s", o->path);
	/* The file system has no O_TMPFILE. */
	o->temp = temp_name(o);
	if (o->temp == NULL)
		return err_sys(e, "create %s", o->path);
	o->fd =
	    openat(o->dir, o->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (o->fd == -1) {
		err_sys(e, "create %s", o->path);
		free(o->temp);
		o->temp = NULL;
		return -1;
	}
	return 0;
}

static int
open_any(struct out *o, struct err *e)
{
	struct stat st;

	if (strcmp(o->path, "-") == 0)
		return open_stream(o, e);
	if (stat(o->path, &st) == -1)
		return errno == ENOENT ? open_file(o, e) : err_sys(e, "%s", o->path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, ERR_FAILED, "%s: is a folder", o->path);
	if (!S_ISREG(st.st_mode))
		return open_stream(o, e);
	if (!o->replace)
		return err_set(e, ERR_FAILED, "%s: exists; --force replaces it", o->path);
	return open_file(o, e);
}

int
out_open(struct out **out, const char *path, bool replace, struct err *e)
{
	struct out *o;

	o = calloc(1, sizeof(*o));
	if (o == NULL)
		return err_sys(e, "%s", path);
	o->fd = o->dir = -1;
	o->replace = replace;
	o->path = strdup(path);
	if (o->path == NULL) {
		err_sys(e, "%s", path);
		out_free(o);
		return -1;
	}
	if (open_any(o, e) == -1) {
		out_free(o);
		return -1;
	}
	*out = o;
	return 0;
}

int
out_write(struct out *o, const void *buf, size_t len, struct err *e)
{
	if (fd_write_full(o->fd, buf, len, e) == -1)
		return err_wrap(e, "%s", o->path);
	o->offset += len;
	return 0;
}

static int
write_zeros(struct out *o, uint64_t len, struct err *e)
{
	static const unsigned char zeros[65536];

	while (len > 0) {
		size_t n = MIN(len, sizeof(zeros));

		if (out_write(o, zeros, n, e) == -1)
			return -1;
		len -= n;
	}
	return 0;
}

int
out_skip(struct out *o, uint64_t len, struct err *e)
{
	if (o->stream)
		return write_zeros(o, len, e);
	if (len == 0)
		return 0;
	/* The file grows to its full size in out_commit. */
	if (lseek(o->fd, (off_t)len, SEEK_CUR) == -1)
		return err_sys(e, "%s: step over %llu bytes", o->path, (unsigned long long)len);
	o->offset += len;
	o->hole = true;
	return 0;
}

uint64_t
out_offset(const struct out *o)
{
	return o->offset;
}

bool
out_seekable(const struct out *o)
{
	return !o->stream;
}

int
out_patch(struct out *o, const void *buf, size_t len, uint64_t off, struct err *e)
{
	if (fdatasync(o->fd) == -1)
		return err_sys(e, "sync %s", o->path);
	if (fd_pwrite_full(o->fd, buf, len, off, e) == -1)
		return err_wrap(e, "%s", o->path);
	return 0;
}

static int
link_nameless(const struct out *o, const char *name)
{
	char self[64];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	return linkat(AT_FDCWD, self, o->dir, name, AT_SYMLINK_FOLLOW);
}

/* The temporary name becomes the final one, which nobody may have yet. */
static int
rename_new(const struct out *o, const char *name)
{
	if (renameat2(o->dir, o->temp, o->dir, name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* The file system (NFS…) has no such rename. */
	if (linkat(o->dir, o->temp, o->dir, name, 0) == -1)
		return -1;
	unlinkat(o->dir, o->temp, 0);
	return 0;
}

/* What a signal has interrupted is tried again. */
static int
sync_file(int fd)
{
	int rc;

	do
		rc = fsync(fd);
	while (rc == -1 && errno == EINTR);
	return rc;
}

/* Gives the file its final name; without `replace` it takes nobody else's. */
static int
publish(struct out *o, const char *name, struct err *e)
{
	if (o->temp == NULL && !o->replace) {
		if (link_nameless(o, name) == -1)
			return err_sys(e, "create %s", o->path);
		return 0;
	}
	if (o->temp == NULL) {
		o->temp = temp_name(o);
		if (o->temp == NULL || link_nameless(o, o->temp) == -1) {
			err_sys(e, "create %s", o->path);
			free(o->temp);
			o->temp = NULL;
			return -1;
		}
	}
	if ((o->replace ? renameat(o->dir, o->temp, o->dir, name) : rename_new(o, name)) == -1)
		return err_sys(e, "rename to %s", o->path);
	return 0;
}

/*
 * The name survives a crash of the machine.  If it may not, a new file is gone again; one that
 * has replaced another stays, for the other can't be brought back.
 */
static int
sync_name(struct out *o, const char *name, struct err *e)
{
	o->published = true;
	if (sync_file(o->dir) == 0)
		return 0;
	err_sys(e, "sync the folder of %s", o->path);
	if (!o->replace && unlinkat(o->dir, name, 0) == 0)
		o->published = false;
	return -1;
}

int
out_commit(struct out *o, struct err *e)
{
	char *copy;
	int rc;

	if (o->stream) {
		/* Pipes cannot be synced and say so. */
		if (sync_file(o->fd) == -1 && errno != EINVAL && errno != EROFS &&
		    errno != ENOTSUP)
			return err_sys(e, "sync %s", o->path);
		o->published = true;
		return 0;
	}
	if (o->hole && ftruncate(o->fd, (off_t)o->offset) == -1)
		return err_sys(
		    e, "%s: grow to %llu bytes", o->path, (unsigned long long)o->offset);
	if (sync_file(o->fd) == -1)
		return err_sys(e, "sync %s", o->path);
	copy = strdup(o->path);
	if (copy == NULL)
		return err_sys(e, "%s", o->path);
	rc = publish(o, basename(copy), e);
	if (rc == 0)
		rc = sync_name(o, basename(copy), e);
	free(copy);
	return rc;
}

bool
out_published(const struct out *o)
{
	return o->published;
}

void
out_free(struct out *o)
{
	if (o == NULL)
		return;
	if (o->temp != NULL && !o->published)
		unlinkat(o->dir, o->temp, 0);
	fd_close(&o->fd);
	fd_close(&o->dir);
	free(o->temp);
	free(o->path);
	free(o);
}
