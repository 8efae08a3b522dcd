/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/smaps.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FLAGS "VmFlags:"

int
smaps_open(struct smaps *s, pid_t pid, struct err *e)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return err_sys(e, "open %s", path);
	smaps_take(s, file);
	return 0;
}

void
smaps_take(struct smaps *s, FILE *file)
{
	*s = (struct smaps){ .file = file };
}

void
smaps_close(struct smaps *s)
{
	fclose(s->file);
	free(s->head);
	free(s->line);
}

/* A line that begins a mapping; the others begin with a word. */
static bool
is_head(const char *line)
{
	uint64_t start, end;

	return sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2;
}

static void
swap(struct smaps *s)
{
	char *line = s->head;
	size_t room = s->head_room;

	s->head = s->line;
	s->head_room = s->line_room;
	s->line = line;
	s->line_room = room;
}

int
smaps_next(struct smaps *s, struct smaps_entry *out, struct err *e)
{
	bool any = false;

	while (getline(&s->line, &s->line_room, s->file) != -1) {
		if (is_head(s->line)) {
			s->line[strcspn(s->line, "\n")] = '\0';
			swap(s);
			any = maps_parse(s->head, &out->map);
			if (!any)
				return err_set(
				    e, ERR_FAILED, "smaps: cannot read '%.100s'", s->head);
		} else if (any && strncmp(s->line, FLAGS, strlen(FLAGS)) == 0) {
			out->flags = s->line;
			return 1;
		}
	}
	return ferror(s->file) ? err_set(e, ERR_FAILED, "smaps: cannot be read") : 0;
}

bool
smaps_has(const struct smaps_entry *entry, const char *flag)
{
	for (const char *p = entry->flags; (p = strstr(p, flag)) != NULL; p++)
		if (p[-1] == ' ')
			return true;
	return false;
}
