/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/listen-socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fdio.h"

#define QUEUE 128

static int
set_address(struct sockaddr_un *addr, const char *path, struct err *e)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (path[0] == '\0' || strlen(path) >= sizeof(addr->sun_path))
		return err_set(e, ERR_USAGE, "%s: the path of a socket has 1 to %zu bytes",
		    path, sizeof(addr->sun_path) - 1);
	memcpy(addr->sun_path, path, strlen(path));
	return 0;
}

/* Whether somebody accepts connections there, or may do so. */
static bool
is_alive(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool refused = fd != -1 &&
		       connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == -1 &&
		       errno == ECONNREFUSED;

	fd_close(&fd);
	return !refused;
}

static int
make_way(const struct sockaddr_un *addr, struct err *e)
{
	const char *path = addr->sun_path;
	struct stat st;

	if (lstat(path, &st) == -1)
		return errno == ENOENT ? 0 : err_sys(e, "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_FAILED, "%s: is there, and no socket", path);
	if (is_alive(addr))
		return err_set(e, ERR_FAILED, "%s: somebody listens there already", path);
	if (unlink(path) == -1 && errno != ENOENT)
		return err_sys(e, "%s: remove what is left of another", path);
	return 0;
}

/*
 * Its mode before it has a name, which may be a link a moment later: the folder may be of a
 * user who is not trusted.  What the mask lets through is the mode of the descriptor.
 */
static int
bind_closed(struct listen_socket *s, const struct sockaddr_un *addr, mode_t mode, struct err *e)
{
	mode_t mask = umask(0);
	int rc = fchmod(s->fd, mode);

	if (rc == 0)
		rc = bind(s->fd, (const struct sockaddr *)addr, sizeof(*addr));
	if (rc == -1)
		err_sys(e, "%s: bind", s->path);
	umask(mask);
	return rc;
}

/* Nobody can connect before listen(2). */
static int
find(struct listen_socket *s, const struct listen_settings *to, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) == -1)
		return err_sys(e, "%s", s->path);
	if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		return err_set(e, ERR_FAILED, "%s: somebody has replaced it", s->path);
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	if ((to->owner != LISTEN_NOBODY || to->group != LISTEN_NO_GROUP) &&
	    fchownat(fd, "", to->owner, to->group, AT_EMPTY_PATH) == -1)
		return err_sys(e, "%s: give it to another user", s->path);
	return 0;
}

static int
open_to(struct listen_socket *s, const struct listen_settings *to, struct err *e)
{
	int fd = open(s->path, O_PATH | O_NOFOLLOW | O_CLOEXEC), rc;

	if (fd == -1)
		return err_sys(e, "%s", s->path);
	rc = find(s, to, fd, e);
	fd_close(&fd);
	if (rc == 0 && listen(s->fd, QUEUE) == -1)
		return err_sys(e, "%s: listen", s->path);
	return rc;
}

int
listen_socket_open(
    struct listen_socket *s, const struct listen_settings *settings, struct err *e)
{
	struct sockaddr_un addr;

	*s = (struct listen_socket){ .fd = -1, .path = settings->path };
	if (set_address(&addr, settings->path, e) == -1 || make_way(&addr, e) == -1)
		return -1;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd == -1)
		return err_sys(e, "socket");
	if (bind_closed(s, &addr, settings->mode, e) == 0 && open_to(s, settings, e) == 0)
		return 0;
	listen_socket_close(s);
	return -1;
}

void
listen_socket_close(struct listen_socket *s)
{
	struct stat st;

	fd_close(&s->fd);
	if (s->ino != 0 && lstat(s->path, &st) == 0 && st.st_dev == s->dev &&
	    st.st_ino == s->ino)
		unlink(s->path);
	s->ino = 0;
}
