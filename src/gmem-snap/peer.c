/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/peer.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "gmem-snap/objects.h"
#include "memory/process.h"
#include "memory/served.h"

#define COMMAND_MAX ((size_t)1 << 20) /* bytes of a command line */

/* One that maps the memory: it must not be waiting for pages, and had better stand still. */
static int
check_user(const struct peer_memory *m, pid_t pid, struct err *e)
{
	struct err why = ERR_INIT;
	bool served = false;
	char title[80];

	if (memory_is_served(pid, m->dev, m->ino, &served, &why) == -1 && pid == m->pid) {
		*e = why;
		return err_wrap(e,
		    "whether %s is still being restored cannot be seen: run as the VMM's user, "
		    "or as root (CAP_SYS_PTRACE)",
		    m->name);
	}
	process_title(title, sizeof(title), pid);
	if (served)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s is itself still being restored (userfaultfd on %s of %s): wait until "
		    "gmem-restore says that it is complete",
		    pid == m->pid ? "the VM" : "its memory", m->name, title);
	if (pid != m->pid && m->alone)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s is mapped by %s too, whose writes would not be seen: leave out "
		    "--pause-less",
		    m->name, title);
	if (pid != m->pid && !m->quiet &&
	    (m->stands_still == NULL || !m->stands_still(m->arg, pid)))
		log_warn("%s is mapped by %s too, which is not paused", m->name, title);
	return 0;
}

int
peer_check_users(const struct peer_memory *m, struct err *e)
{
	size_t n, unreadable;
	bool seen = false;
	pid_t *pids;
	int r = 0;

	if (memory_users(m->dev, m->ino, &pids, &n, &unreadable, e) == -1)
		return -1;
	for (size_t k = 0; r == 0 && k < n; k++) {
		r = check_user(m, pids[k], e);
		seen |= pids[k] == m->pid;
	}
	free(pids);
	/* It may be one of those that could not be asked. */
	if (r == 0 && !seen && m->pid != 0)
		r = check_user(m, m->pid, e);
	if (unreadable != 0)
		log_info("%zu processes could not be asked whether they map %s", unreadable,
		    m->name);
	return r;
}

int
peer_check_self(const struct peer_memory *m, struct err *e)
{
	return check_user(m, m->pid, e);
}

static bool
is_pinning(const char *target)
{
	static const char *const kinds[] = { "/dev/vfio/", "/dev/iommu", "anon_inode:[vfio",
		"anon_inode:[iommufd", "/dev/vhost-vdpa", "/dev/infiniband/" };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strncmp(target, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return false;
}

int
peer_check_devices(pid_t pid, struct err *e)
{
	char path[64], target[64];
	struct dirent *entry;
	int rc = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (dir == NULL)
		return err_sys(e, "%s", path);
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		target[MAX(n, 0)] = '\0';
		if (is_pinning(target))
			rc = err_set(e, ERR_UNSUPPORTED,
			    "process %d has %s: a device writes to its memory unseen; leave "
			    "out --pause-less",
			    (int)pid, target);
	}
	closedir(dir);
	return rc;
}

int
peer_command(struct snapshot *s, pid_t pid, struct err *e)
{
	char path[64], *text, **argv;
	struct err ignored = ERR_INIT;
	size_t len, n = 0;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (fd_slurp(path, COMMAND_MAX, &text, &len, &ignored) == -1)
		return 0;
	argv = calloc(len + 1, sizeof(*argv));
	for (size_t at = 0; argv != NULL && at < len; at += strlen(text + at) + 1)
		argv[n++] = text + at;
	if (n != 0)
		r = snapshot_command(s, argv, n, e);
	free(argv);
	free(text);
	return r;
}
