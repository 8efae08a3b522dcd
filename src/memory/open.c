/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"

/* Takes *fd; errno is ESTALE if it is not the object. */
static int
checked(const struct memory_object *object, int fd)
{
	struct stat st;

	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == 0 && st.st_dev == object->dev && st.st_ino == object->ino)
		return fd;
	errno = ESTALE;
	fd_close(&fd);
	return -1;
}

/* A link of /proc, opened only if it leads to the object: opening a device may do things. */
static int
open_link(const struct memory_object *object, const char *link)
{
	struct stat st;

	if (stat(link, &st) == -1)
		return -1;
	if (st.st_dev != object->dev || st.st_ino != object->ino) {
		errno = ESTALE;
		return -1;
	}
	return checked(object, open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
}

static int
open_number(pid_t pid, const struct memory_object *object)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, object->fd_number);
	return open_link(object, link);
}

static int
open_mapped(pid_t pid, const struct memory_object *object)
{
	char link[96];

	errno = ENOENT;
	for (size_t i = 0; i < object->nmappings; i++) {
		const struct memory_mapping *m = &object->mappings[i];
		int fd;

		snprintf(link, sizeof(link), "/proc/%d/map_files/%llx-%llx", (int)pid,
		    (unsigned long long)m->hva, (unsigned long long)(m->hva + m->len));
		fd = open_link(object, link);
		if (fd != -1)
			return fd;
	}
	return -1;
}

static int
take_number(pid_t pid, const struct memory_object *object)
{
	int pidfd, fd;

	pidfd = pidfd_open(pid, 0);
	if (pidfd == -1)
		return -1;
	fd = pidfd_getfd(pidfd, object->fd_number, 0);
	fd_close(&pidfd);
	return checked(object, fd);
}

static int
yama_scope(void)
{
	struct err ignored = ERR_INIT;
	char *text;
	int scope;

	if (fd_slurp("/proc/sys/kernel/yama/ptrace_scope", 4096, &text, NULL, &ignored) == -1)
		return 0;
	scope = atoi(text);
	free(text);
	return scope;
}

/* What is missing when errno says that we may not. */
static int
refused(pid_t pid, const struct memory_object *object, struct err *e)
{
	const char *kind = memory_kind_name(object->kind);
	int saved = errno, scope = yama_scope();

	errno = saved;
	if (saved == ESTALE)
		return err_set(e, ERR_FAILED,
		    "%s '%s': process %d changed its descriptors or mappings meanwhile, try "
		    "again",
		    kind, object->name, (int)pid);
	if (object->fd_number == -1 && object->kind == MEMORY_GUEST_MEMFD)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s of process %d is mapped, but its descriptor is closed: it cannot be "
		    "opened again",
		    kind, (int)pid);
	if (saved != EPERM && saved != EACCES)
		return err_sys(e, "%s '%s' of process %d", kind, object->name, (int)pid);
	if (object->fd_number == -1)
		return err_sys(e,
		    "%s '%s' of process %d is mapped without a descriptor: that needs root "
		    "(CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE)",
		    kind, object->name, (int)pid);
	if (scope > 0)
		return err_sys(e,
		    "%s '%s' of process %d: run as root (CAP_SYS_PTRACE); running as its user "
		    "needs kernel.yama.ptrace_scope=0, which is %d",
		    kind, object->name, (int)pid, scope);
	return err_sys(e,
	    "%s '%s' of process %d: run as its user (all user and group ids equal, process "
	    "dumpable), or as root (CAP_SYS_PTRACE)",
	    kind, object->name, (int)pid);
}

int
memory_open(pid_t pid, const struct memory_object *object, int *fd, struct err *e)
{
	int got = -1;

	if (object->fd_number == -1) {
		got = open_mapped(pid, object);
	} else {
		if (object->kind != MEMORY_GUEST_MEMFD)
			got = open_number(pid, object);
		if (got == -1)
			got = take_number(pid, object);
	}
	if (got == -1)
		return refused(pid, object, e);
	*fd = got;
	return 0;
}

int
memory_reopen(const struct memory_object *object, int *fd, struct err *e)
{
	char link[64];
	int flags, new = -1;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", *fd);
	if (object->kind != MEMORY_GUEST_MEMFD)
		new = open_link(object, link);
	if (new != -1) {
		fd_close(fd);
		*fd = new;
		return 0;
	}
	flags = fcntl(*fd, F_GETFL);
	if (flags == -1)
		return err_sys(e, "descriptor of memory");
	if ((flags & O_PATH) != 0 || (flags & O_ACCMODE) == O_WRONLY)
		return err_set(e, ERR_FAILED,
		    "the descriptor is not open for reading, nor can we open it");
	return 0;
}
