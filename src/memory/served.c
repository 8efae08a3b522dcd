/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/served.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "memory/maps.h"

/* Whether the address is in a mapping of the object, by the list of mappings. */
static int
is_ours(struct maps *m, uint64_t hva, dev_t dev, ino_t ino, struct err *e)
{
	struct maps_entry entry;
	int more;

	maps_rewind(m);
	while ((more = maps_next(m, &entry, e)) == 1)
		if (hva >= entry.start && hva < entry.end)
			return maps_is(m, &entry, dev, ino) ? 1 : 0;
	return more;
}

/* "VmFlags: rd wr … um ui": missing pages or minor faults go to a userfaultfd. */
static bool
has_userfaultfd(const char *line)
{
	return strncmp(line, "VmFlags:", 8) == 0 &&
	       (strstr(line, " um") != NULL || strstr(line, " ui") != NULL);
}

/* Goes through smaps: each mapping's line is followed by lines about it. */
static int
search(FILE *smaps, struct maps *m, dev_t dev, ino_t ino, bool *served, struct err *e)
{
	uint64_t start, end, hva = 0;
	char *line = NULL;
	size_t room = 0;
	int ours = 0;

	while (ours != -1 && !*served && getline(&line, &room, smaps) != -1) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
			hva = start;
		else if (has_userfaultfd(line))
			ours = is_ours(m, hva, dev, ino, e);
		*served = ours == 1;
	}
	free(line);
	return ours == -1 ? -1 : 0;
}

int
memory_is_served(pid_t pid, dev_t dev, ino_t ino, bool *served, struct err *e)
{
	char path[64];
	struct maps m;
	FILE *smaps;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	smaps = fopen(path, "re");
	if (smaps == NULL)
		return err_sys(e, "open %s", path);
	if (maps_open(&m, pid, e) == -1) {
		fclose(smaps);
		return -1;
	}
	*served = false;
	r = search(smaps, &m, dev, ino, served, e);
	if (r == 0 && ferror(smaps))
		r = err_set(e, ERR_FAILED, "%s: cannot be read", path);
	maps_close(&m);
	fclose(smaps);
	return r;
}

/* How much of [start, end) is within the ranges. */
static uint64_t
within(uint64_t start, uint64_t end, const struct memory_range *ranges, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t from = MAX(start, ranges[i].hva);
		uint64_t to = MIN(end, ranges[i].hva + ranges[i].len);

		sum += to > from ? to - from : 0;
	}
	return sum;
}

int
memory_is_registered(
    pid_t pid, const struct memory_range *ranges, size_t n, bool *registered, struct err *e)
{
	uint64_t start = 0, end = 0, missing = 0, s, t;
	char path[64], *line = NULL;
	size_t room = 0;
	FILE *smaps;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	smaps = fopen(path, "re");
	if (smaps == NULL)
		return err_sys(e, "open %s", path);
	for (size_t i = 0; i < n; i++)
		missing += ranges[i].len;
	while (getline(&line, &room, smaps) != -1) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &s, &t) == 2) {
			start = s;
			end = t;
		} else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " um") != NULL) {
			missing -= within(start, end, ranges, n);
		}
	}
	if (ferror(smaps))
		rc = err_set(e, ERR_FAILED, "%s: cannot be read", path);
	*registered = missing == 0;
	free(line);
	fclose(smaps);
	return rc;
}

bool
memory_is_filler(pid_t pid)
{
	char path[64], shown[64];
	struct dirent *d;
	bool found = false;
	ssize_t n;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir != NULL && !found && (d = readdir(dir)) != NULL) {
		n = readlinkat(dirfd(dir), d->d_name, shown, sizeof(shown) - 1);
		shown[MAX(n, 0)] = '\0';
		found = strncmp(shown, "/memfd:" MEMORY_CLAIMS,
			    strlen("/memfd:" MEMORY_CLAIMS)) == 0;
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}
