/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/place.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "vmm/wait.h"

#define RETRY_MS_MAX 20

/*
 * Gives it to whom the VMM runs as, if that is not us: what is in the folder before the folder
 * itself, for from then on it may be a link to whatever the VMM wants to have.
 */
static int
give_to(const char *path, uid_t uid, struct err *e)
{
	if (uid == geteuid() || uid == 0 || lchown(path, uid, (gid_t)-1) == 0)
		return 0;
	return err_sys(
	    e, "give %s to the VMM's user %u (be root, or that user)", path, (unsigned)uid);
}

int
ch_place_make(struct ch_place *p, struct err *e)
{
	const char *parent = secure_getenv("TMPDIR");

	if (parent == NULL || *parent != '/' ||
	    strlen(parent) + sizeof("/gmem-XXXXXX") > sizeof(p->dir))
		parent = "/tmp";
	snprintf(p->dir, sizeof(p->dir), "%.*s/gmem-XXXXXX",
	    (int)(sizeof(p->dir) - sizeof("/gmem-XXXXXX")), parent);
	if (mkdtemp(p->dir) == NULL) {
		err_sys(e, "make a folder in %s", parent);
		*p->dir = '\0';
		return -1;
	}
	snprintf(p->path, sizeof(p->path), "%s/migration", p->dir);
	return 0;
}

int
ch_place_give(const struct ch_place *p, uid_t uid, struct err *e)
{
	return give_to(p->dir, uid, e);
}

void
ch_place_remove(struct ch_place *p)
{
	if (*p->dir == '\0')
		return;
	unlink(p->path);
	rmdir(p->dir);
	*p->dir = '\0';
}

static int
socket_at(const struct ch_place *p, struct sockaddr_un *sa, struct err *e)
{
	int fd;

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", p->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd == -1 ? err_sys(e, "socket") : fd;
}

int
ch_place_listen(const struct ch_place *p, uid_t uid, int *fd, struct err *e)
{
	struct sockaddr_un sa;

	*fd = socket_at(p, &sa, e);
	if (*fd == -1)
		return -1;
	/* Its mode before it has a name. */
	if (fchmod(*fd, 0600) == -1 || bind(*fd, (struct sockaddr *)&sa, sizeof(sa)) == -1 ||
	    listen(*fd, 8) == -1)
		err_sys(e, "listen on %s", p->path);
	else if (give_to(p->path, uid, e) == 0 && ch_place_give(p, uid, e) == 0)
		return 0;
	fd_close(fd);
	return -1;
}

/* A moment, or until somebody wants out (-1) or the VMM has given up (1). */
static int
pause_for(int ms, const struct ch_link *link, int failed_fd, struct err *e)
{
	struct pollfd p[2] = {
		{ .fd = link->stop_fd, .events = POLLIN },
		{ .fd = failed_fd, .events = POLLIN },
	};

	if (poll(p, 2, ms) == -1 && errno != EINTR)
		return err_sys(e, "poll");
	if (p[0].revents != 0)
		return wait_interrupted("migration socket", e);
	return p[1].revents != 0;
}

int
ch_place_connect(const struct ch_place *p, struct ch_link *link, int failed_fd, struct err *e)
{
	int64_t end_ms = wait_now_ms() + link->timeout_ms;
	struct sockaddr_un sa;
	int r = 0, ms = 1;

	link->fd = socket_at(p, &sa, e);
	if (link->fd == -1)
		return -1;
	while (connect(link->fd, (struct sockaddr *)&sa, sizeof(sa)) == -1) {
		if (errno != ENOENT && errno != ECONNREFUSED && errno != EINTR)
			r = err_sys(e, "connect to %s", p->path);
		else if (link->timeout_ms != -1 && wait_now_ms() >= end_ms)
			r = err_set(e, ERR_FAILED, "the VMM does not listen on %s within %d ms",
			    p->path, link->timeout_ms);
		else
			r = pause_for(ms, link, failed_fd, e);
		if (r != 0)
			break;
		ms = MIN(ms * 2, RETRY_MS_MAX);
	}
	if (r == 0)
		return 1;
	fd_close(&link->fd);
	return r == 1 ? 0 : -1;
}
