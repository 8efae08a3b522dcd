/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/self.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static uint64_t
microseconds(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * 1000000 + (uint64_t)t->tv_usec;
}

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
			*fields[i].bytes = kib << 10;
}

void
self_look(struct self *self)
{
	struct rusage usage;
	char line[128];
	FILE *f;

	*self = (struct self){ 0 };
	if (getrusage(RUSAGE_SELF, &usage) == 0) {
		self->user_us = microseconds(&usage.ru_utime);
		self->system_us = microseconds(&usage.ru_stime);
	}
	/* Not ru_maxrss: what ran before exec counts there. */
	f = fopen("/proc/self/status", "re");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		look_at(self, line);
	if (f != NULL)
		fclose(f);
}
