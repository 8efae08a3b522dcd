/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_MEMORY_CGROUP_H
#define GMEM_MEMORY_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* The cgroup (version 2) that holds the whole of a process. */
struct cgroup {
	char path[PATH_MAX]; /* "/a/b", as our cgroup namespace sees it */
	char dir[PATH_MAX]; /* its folder under the mounted cgroup2 file system */
};

/* Finds it, also on machines with version 1 beside it; above threaded cgroups. */
int cgroup_find(pid_t pid, struct cgroup *cg, struct err *e);

/* Whether the calling process is in the cgroup or below it. */
bool cgroup_has_us(const struct cgroup *cg);

/* Whether pid is the only process in the cgroup and nothing is below it. */
bool cgroup_is_alone(const struct cgroup *cg, pid_t pid);

/*
 * What /proc says, pure; the texts are cut into pieces.  The path of the line "0::/path" of
 * /proc/PID/cgroup; and, if a line of mountinfo is a cgroup2 mount that has the path, its
 * folder there.
 */
bool cgroup_text_path(char *text, char path[PATH_MAX]);
bool cgroup_text_mount(char *line, const char *path, char dir[PATH_MAX]);

/* Opens a file of the cgroup, close-on-exec; -1 and errno. */
int cgroup_open_file(const struct cgroup *cg, const char *name, int flags);

#endif
