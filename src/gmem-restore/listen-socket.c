/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/listen-socket.h"

#include <errno.h>
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

/* For nobody else, until it has its owner and its mode. */
static int
bind_closed(struct listen_socket *s, const struct sockaddr_un *addr, struct err *e)
{
	mode_t mask = umask(0177);
	int rc = bind(s->fd, (const struct sockaddr *)addr, sizeof(*addr));
	struct stat st;

	umask(mask);
	if (rc == -1 || lstat(s->path, &st) == -1)
		return err_sys(e, "%s: bind", s->path);
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

static int
open_to(struct listen_socket *s, const struct listen_settings *to, struct err *e)
{
	if ((to->owner != LISTEN_NOBODY || to->group != LISTEN_NO_GROUP) &&
	    lchown(s->path, to->owner, to->group) == -1)
		return err_sys(e, "%s: give it to another user", s->path);
	if (chmod(s->path, to->mode) == -1)
		return err_sys(e, "%s: set its mode", s->path);
	if (listen(s->fd, QUEUE) == -1)
		return err_sys(e, "%s: listen", s->path);
	return 0;
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
	if (bind_closed(s, &addr, e) == 0 && open_to(s, settings, e) == 0)
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
