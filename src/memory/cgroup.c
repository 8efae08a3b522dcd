/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"

#define SMALL_FILE ((size_t)16 << 20) /* bytes; none of these files comes near */

bool
cgroup_text_path(char *text, char path[PATH_MAX])
{
	char *line;

	while ((line = strsep(&text, "\n")) != NULL)
		if (strncmp(line, "0::/", 4) == 0)
			return (size_t)snprintf(path, PATH_MAX, "%s", line + 3) < PATH_MAX;
	return false;
}

static int
read_path(pid_t pid, char path[PATH_MAX], struct err *e)
{
	char name[64], *text;
	bool found;

	snprintf(name, sizeof(name), "/proc/%d/cgroup", (int)pid);
	if (fd_slurp(name, SMALL_FILE, &text, NULL, e) == -1)
		return -1;
	found = cgroup_text_path(text, path);
	free(text);
	if (found)
		return 0;
	return err_set(e, ERR_FAILED, "process %d is in no cgroup of version 2", (int)pid);
}

/* Undoes the \040 of mountinfo, in place. */
static void
unescape(char *s)
{
	char *to = s;
	unsigned c;

	while (*s != '\0') {
		if (s[0] == '\\' && sscanf(s + 1, "%3o", &c) == 1 && strlen(s) >= 4) {
			*to++ = (char)c;
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* What is left of path below root, or NULL if it is not below it. */
static const char *
below(const char *path, const char *root)
{
	size_t len = strlen(root);

	if (strcmp(root, "/") == 0)
		return path;
	if (strncmp(path, root, len) != 0 || (path[len] != '/' && path[len] != '\0'))
		return NULL;
	return path + len;
}

bool
cgroup_text_mount(char *line, const char *path, char dir[PATH_MAX])
{
	char *fields[5], *rest = line;
	const char *sub;
	int n;

	if (strstr(line, " - cgroup2 ") == NULL)
		return false;
	for (size_t i = 0; i < 5; i++) {
		fields[i] = strsep(&rest, " ");
		if (fields[i] == NULL)
			return false;
	}
	unescape(fields[3]);
	unescape(fields[4]);
	sub = below(path, fields[3]);
	if (sub == NULL)
		return false;
	n = snprintf(dir, PATH_MAX, "%s%s", fields[4], sub);
	return n >= 0 && n < PATH_MAX;
}

static bool
try_mount(char *line, const char *path, char dir[PATH_MAX])
{
	char probe[PATH_MAX + 32];

	if (!cgroup_text_mount(line, path, dir))
		return false;
	snprintf(probe, sizeof(probe), "%s/cgroup.procs", dir);
	return access(probe, F_OK) == 0;
}

static int
find_dir(struct cgroup *cg, struct err *e)
{
	char *text, *rest, *line;
	bool found = false;

	if (fd_slurp("/proc/self/mountinfo", SMALL_FILE, &text, NULL, e) == -1)
		return -1;
	rest = text;
	while (!found && (line = strsep(&rest, "\n")) != NULL)
		found = try_mount(line, cg->path, cg->dir);
	free(text);
	if (!found)
		return err_set(
		    e, ERR_FAILED, "cgroup %.200s is not under any mounted cgroup2", cg->path);
	return 0;
}

int
cgroup_open_file(const struct cgroup *cg, const char *name, int flags)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", cg->dir, name);
	return open(path, flags | O_CLOEXEC);
}

/* A small file of the cgroup, "" if it cannot be read (the root has few of them). */
static char *
slurp(const struct cgroup *cg, const char *name)
{
	char path[PATH_MAX + 64], *text = NULL;
	struct err ignored = ERR_INIT;

	snprintf(path, sizeof(path), "%s/%s", cg->dir, name);
	if (fd_slurp(path, SMALL_FILE, &text, NULL, &ignored) == -1)
		return strdup("");
	return text;
}

static bool
has_type(const struct cgroup *cg, const char *type)
{
	char *text = slurp(cg, "cgroup.type");
	bool same;

	same = text != NULL && strcspn(text, "\n") == strlen(type) &&
	       strncmp(text, type, strlen(type)) == 0;
	free(text);
	return same;
}

/* Cuts the last component. */
static void
go_up(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash != NULL)
		*slash = '\0';
}

int
cgroup_find(pid_t pid, struct cgroup *cg, struct err *e)
{
	if (read_path(pid, cg->path, e) == -1 || find_dir(cg, e) == -1)
		return -1;
	/* A threaded cgroup holds some threads only (libvirt does this to QEMU). */
	while (has_type(cg, "threaded")) {
		go_up(cg->path);
		go_up(cg->dir);
	}
	return 0;
}

bool
cgroup_has_us(const struct cgroup *cg)
{
	struct err ignored = ERR_INIT;
	char ours[PATH_MAX];

	/* Not to know counts as yes: freezing ourselves would be for ever. */
	return read_path(getpid(), ours, &ignored) == -1 || below(ours, cg->path) != NULL;
}

bool
cgroup_is_alone(const struct cgroup *cg, pid_t pid)
{
	char *procs = slurp(cg, "cgroup.procs"), *stat = slurp(cg, "cgroup.stat");
	const char *children = stat != NULL ? strstr(stat, "nr_descendants ") : NULL;
	bool alone = false;
	char *end;

	if (procs != NULL && children != NULL) {
		alone = strtoll(procs, &end, 10) == pid && strcmp(end, "\n") == 0 &&
			(has_type(cg, "domain threaded") ||
			    strtoull(children + strlen("nr_descendants "), NULL, 10) == 0);
	}
	free(procs);
	free(stat);
	return alone;
}
