/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/maps.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/fdio.h"

#define MAPS_MAX ((size_t)64 << 20) /* bytes: some 600 000 mappings */

int
maps_open(struct maps *m, pid_t pid, struct err *e)
{
	char path[64], *text;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	if (fd_slurp(path, MAPS_MAX, &text, &len, e) == -1)
		return -1;
	maps_take(m, pid, text, len);
	return 0;
}

void
maps_take(struct maps *m, pid_t pid, char *text, size_t len)
{
	for (char *p = text; (p = memchr(p, '\n', len - (size_t)(p - text))) != NULL; p++)
		*p = '\0';
	*m = (struct maps){ .pid = pid, .text = text, .next = text, .end = text + len };
}

void
maps_close(struct maps *m)
{
	free(m->text);
	m->text = NULL;
	m->next = m->end = NULL;
}

void
maps_rewind(struct maps *m)
{
	m->next = m->text;
}

/* A number in the given base that ends with the character `end`; moves *at behind it. */
static bool
number(const char **at, int base, char end, uint64_t *out)
{
	char *stop;

	*out = strtoull(*at, &stop, base);
	if (stop == *at || *stop != end)
		return false;
	*at = stop + 1;
	return true;
}

bool
maps_parse(const char *line, struct maps_entry *out)
{
	const char *end = line + strlen(line);
	uint64_t major_no, minor_no, ino;
	char *stop;

	if (!number(&line, 16, '-', &out->start) || !number(&line, 16, ' ', &out->end))
		return false;
	if (end - line < 5 || line[4] != ' ')
		return false;
	out->writable = line[1] == 'w';
	out->shared = line[3] == 's';
	line += 5;
	if (!number(&line, 16, ' ', &out->offset) || !number(&line, 16, ':', &major_no) ||
	    !number(&line, 16, ' ', &minor_no))
		return false;
	ino = strtoull(line, &stop, 10);
	if (stop == line)
		return false;
	out->dev = makedev((unsigned)major_no, (unsigned)minor_no);
	out->ino = ino;
	out->path = stop + strspn(stop, " ");
	return out->start < out->end;
}

int
maps_next(struct maps *m, struct maps_entry *out, struct err *e)
{
	while (m->next < m->end) {
		const char *line = m->next;

		m->next = line + strlen(line) + 1;
		if (!maps_parse(line, out))
			return err_set(e, ERR_FAILED, "/proc/%d/maps: cannot read '%.100s'",
			    (int)m->pid, line);
		if (out->ino != 0)
			return 1;
	}
	return 0;
}

static dev_t
ask_dev(const struct maps *m, const struct maps_entry *entry)
{
	char path[PATH_MAX];
	struct stat st;
	int n;

	n = snprintf(path, sizeof(path), "/proc/%d/root%s", (int)m->pid, entry->path);
	if (entry->path[0] != '/' || n < 0 || (size_t)n >= sizeof(path))
		return entry->dev;
	if (stat(path, &st) == -1 || st.st_ino != entry->ino || !S_ISREG(st.st_mode))
		return entry->dev;
	return st.st_dev;
}

/* Mappings of one file often stand in a row, by the thousand. */
dev_t
maps_dev(struct maps *m, const struct maps_entry *entry)
{
	if (m->last.ino != entry->ino || m->last.shown != entry->dev) {
		m->last.dev = ask_dev(m, entry);
		m->last.shown = entry->dev;
		m->last.ino = entry->ino;
	}
	return m->last.dev;
}

bool
maps_is(struct maps *m, const struct maps_entry *entry, dev_t dev, ino_t ino)
{
	return entry->ino == ino && (entry->dev == dev || maps_dev(m, entry) == dev);
}
