/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/firecracker/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"

#define STATUS_MAX (64 << 10)

/* ---- who the VMM is, and what it sees ---- */

/* "Uid:" or "Gid:" of a process: the effective one.  Left alone if /proc does not tell. */
static void
find_id(const char *status, const char *key, unsigned *id)
{
	const char *line = strstr(status, key);
	unsigned effective;

	if (line != NULL && sscanf(line + strlen(key), "%*u %u", &effective) == 1)
		*id = effective;
}

static void
find_user(struct fc_place *p, pid_t vmm)
{
	struct err unused = ERR_INIT;
	char path[64], *text;
	size_t len;

	p->uid = geteuid();
	p->gid = getegid();
	snprintf(path, sizeof(path), "/proc/%d/status", (int)vmm);
	if (vmm <= 0 || fd_slurp(path, STATUS_MAX, &text, &len, &unused) == -1)
		return;
	find_id(text, "\nUid:", &p->uid);
	find_id(text, "\nGid:", &p->gid);
	free(text);
}

/* Whether the VMM finds our folder under the path that we have for it, as far as we can see. */
static bool
is_seen(const struct fc_place *p, pid_t vmm)
{
	char path[PATH_MAX + 32];
	struct stat ours, its;

	if (vmm <= 0 || fstat(p->dir, &ours) == -1)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/root%s", (int)vmm, p->seen);
	if (stat(path, &its) == -1)
		return errno != ENOENT && errno != ENOTDIR;
	return its.st_dev == ours.st_dev && its.st_ino == ours.st_ino;
}

/* ---- the folder ---- */

static void
forget(struct fc_place *p)
{
	if (p->parent != -1)
		unlinkat(p->parent, p->name, AT_REMOVEDIR);
	fd_close(&p->dir);
	fd_close(&p->parent);
}

/* What mkdtemp has made: ours, closed and empty.  Who may write to its parent may swap it. */
static int
check_made(const struct fc_place *p, struct err *e)
{
	int n = 0, fd = openat(p->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd != -1 ? fdopendir(fd) : NULL;
	struct stat st;

	if (d == NULL || fstat(p->dir, &st) == -1) {
		err_sys(e, "%s", p->seen);
		if (d != NULL)
			closedir(d);
		else
			fd_close(&fd);
		return -1;
	}
	while (n <= 2 && readdir(d) != NULL)
		n++; /* "." and ".." */
	closedir(d);
	if (n <= 2 && st.st_uid == geteuid() && (st.st_mode & 0777) == 0700)
		return 0;
	return err_set(e, ERR_FAILED, "%s: somebody has replaced it", p->seen);
}

/* In the folder `parent`, which the VMM calls `seen`. */
static int
make_in(struct fc_place *p, const char *parent, const char *seen, struct err *e)
{
	char path[PATH_MAX];
	const char *name;
	int n = snprintf(path, sizeof(path), "%s/gmem-XXXXXX", parent);

	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(e, ERR_FAILED, "%s: a path too long", parent);
	p->parent = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (p->parent == -1)
		return err_sys(e, "open %s", parent);
	if (mkdtemp(path) == NULL) {
		err_sys(e, "make a folder in %s", parent);
		fd_close(&p->parent);
		return -1;
	}
	name = strrchr(path, '/') + 1;
	snprintf(p->name, sizeof(p->name), "%s", name);
	snprintf(p->seen, sizeof(p->seen), "%s/%s", seen, name);
	p->dir = openat(p->parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (p->dir == -1)
		err_sys(e, "open %s", path);
	else if (check_made(p, e) == 0)
		return 0;
	forget(p);
	return -1;
}

static const char *
temporary_folder(void)
{
	const char *dir = secure_getenv("TMPDIR");

	return dir != NULL && dir[0] == '/' ? dir : "/tmp";
}

static int
make(struct fc_place *p, pid_t vmm, struct err *e)
{
	const char *tmp = temporary_folder();
	char root[64];

	if (make_in(p, tmp, tmp, e) == -1)
		return -1;
	if (is_seen(p, vmm))
		return 0;
	forget(p);
	snprintf(root, sizeof(root), "/proc/%d/root", (int)vmm);
	p->jailed = true;
	if (make_in(p, root, "", e) == -1)
		return err_wrap(e,
		    "the VMM does not see %s, it has a root directory of its own (a jail), and "
		    "who may write there is wanted",
		    tmp);
	return 0;
}

int
fc_place_make(struct fc_place *p, pid_t vmm, struct err *e)
{
	*p = (struct fc_place)FC_PLACE_INIT;
	find_user(p, vmm);
	return make(p, vmm, e);
}

int
fc_place_give(const struct fc_place *p, struct err *e)
{
	if (p->uid == geteuid() || fchown(p->dir, p->uid, p->gid) == 0)
		return 0;
	return err_sys(e, "give the VMM's user %u a folder: this is for root, or for that user",
	    (unsigned)p->uid);
}

void
fc_place_remove(struct fc_place *p)
{
	static const char *const files[] = { FC_STATE, FC_MEMORY, FC_SOCKET };

	if (p->dir == -1)
		return;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlinkat(p->dir, files[i], 0);
	forget(p);
}

/* ---- what is in it ---- */

int
fc_place_path(const struct fc_place *p, const char *file, char out[PATH_MAX], struct err *e)
{
	int n = snprintf(out, PATH_MAX, "%s/%s", p->seen, file);

	if (n < 0 || n >= PATH_MAX)
		return err_set(e, ERR_FAILED, "%s: a path too long", p->seen);
	return 0;
}

/* It belongs to the VMM's user, as the folder will: nobody else can replace it until then. */
static int
give(const struct fc_place *p, const char *file, struct err *e)
{
	if (p->uid == geteuid() ||
	    fchownat(p->dir, file, p->uid, p->gid, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return err_sys(e, "give %s/%s to the VMM's user", p->seen, file);
}

int
fc_place_create(const struct fc_place *p, const char *file, int *fd, struct err *e)
{
	*fd = openat(p->dir, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*fd == -1)
		return err_sys(e, "create %s/%s", p->seen, file);
	if (give(p, file, e) == 0)
		return 0;
	fd_close(fd);
	return -1;
}

int
fc_place_open(const struct fc_place *p, const char *file, int *fd, struct err *e)
{
	struct stat st;

	*fd = openat(p->dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (*fd == -1)
		return err_sys(e, "open %s/%s, which the VMM has written", p->seen, file);
	if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == p->uid &&
	    st.st_nlink == 1)
		return 0;
	fd_close(fd);
	return err_set(
	    e, ERR_CORRUPT, "%s/%s is no regular file of the VMM's user", p->seen, file);
}

/* Through /proc, since a socket's path is short; it has to be so for the VMM, too. */
static int
socket_address(
    const struct fc_place *p, const char *file, struct sockaddr_un *addr, struct err *e)
{
	size_t size = sizeof(addr->sun_path);
	int n = snprintf(addr->sun_path, size, "/proc/self/fd/%d/%s", p->dir, file);

	addr->sun_family = AF_UNIX;
	if (n > 0 && (size_t)n < size && strlen(p->seen) + 1 + strlen(file) < size)
		return 0;
	return err_set(e, ERR_FAILED, "%s/%s: too long for the path of a socket: set TMPDIR",
	    p->seen, file);
}

int
fc_place_listen(const struct fc_place *p, const char *file, int *fd, struct err *e)
{
	struct sockaddr_un addr = { 0 };

	if (socket_address(p, file, &addr, e) == -1)
		return -1;
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd == -1)
		return err_sys(e, "socket");
	/* Its mode before it has a name, which may be a link a moment later. */
	if (fchmod(*fd, 0600) == -1 ||
	    bind(*fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 || listen(*fd, 8) == -1)
		err_sys(e, "listen on %s/%s", p->seen, file);
	else if (give(p, file, e) == 0)
		return 0;
	fd_close(fd);
	return -1;
}

int
fc_place_room(const struct fc_place *p, uint64_t *bytes, struct err *e)
{
	struct statvfs fs;

	if (fstatvfs(p->dir, &fs) == -1)
		return err_sys(e, "free space of %s", p->seen);
	/* Some file systems know no limit, and say 0 blocks of all. */
	if (fs.f_blocks == 0 || ckd_mul(bytes, (uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize))
		*bytes = UINT64_MAX;
	return 0;
}
