/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/descent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"

/* The parent of a process; 0: there is none that we see, -1: /proc does not tell. */
static pid_t
parent_of(pid_t pid)
{
	struct err unused = ERR_INIT;
	char path[64], *text, *line;
	size_t len;
	int parent = -1;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (fd_slurp(path, 64 << 10, &text, &len, &unused) == -1)
		return -1;
	line = strstr(text, "\nPPid:");
	if (line != NULL && sscanf(line + 6, "%d", &parent) != 1)
		parent = -1;
	free(text);
	return parent;
}

bool
descends(pid_t pid, pid_t ancestor)
{
	for (int depth = 0; pid > 1 && pid != ancestor && depth < 64; depth++)
		pid = parent_of(pid);
	return pid == ancestor || pid == -1;
}
