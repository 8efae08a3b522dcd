/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/self.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static void
look_at(struct self *self, const char *line)
{
	const struct {
		const char *name;
		uint64_t *bytes;
	} fields[] = {
		{ "VmHWM:", &self->rss_max },
		{ "RssAnon:", &self->rss_anon },
		{ "RssShmem:", &self->rss_shmem },
	};
	unsigned long long kib;

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (strncmp(line, fields[i].name, strlen(fields[i].name)) == 0 &&
		    sscanf(line + strlen(fields[i].name), "%llu kB", &kib) == 1)
			*fields[i].bytes += kib << 10;
}

/* Not ru_maxrss: what ran before exec counts there. */
static void
look_at_process(struct self *self, const char *path)
{
	char line[128];
	FILE *f = fopen(path, "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		look_at(self, line);
	if (f != NULL)
		fclose(f);
}

void
self_look(struct self *self, const struct pager_self *pager)
{
	struct rusage usage;
	char path[64];

	*self = (struct self){ .user_us = pager->user_us, .system_us = pager->system_us };
	if (getrusage(RUSAGE_SELF, &usage) == 0) {
		self->user_us += microseconds(&usage.ru_utime);
		self->system_us += microseconds(&usage.ru_stime);
	}
	look_at_process(self, "/proc/self/status");
	if (pager->pid == 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pager->pid);
	look_at_process(self, path);
}
