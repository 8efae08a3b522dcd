/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "fuzz.h"
#include "memory/cgroup.h"
#include "memory/smaps.h"

/*
 * What /proc says of a process, which chooses some of the names in it.  The first byte says
 * which file it is: maps, smaps, cgroup, a line of mountinfo.
 */

static void
check_entry(const struct maps_entry *entry)
{
	must(entry->start < entry->end);
	must(strlen(entry->path) < UINT16_MAX);
}

/* Read twice they are the same. */
static void
try_maps(char *text, size_t len)
{
	struct maps_entry entry;
	struct maps m;
	struct err e = ERR_INIT;
	size_t n = 0, again = 0;
	int more;

	maps_take(&m, 1, text, len);
	while ((more = maps_next(&m, &entry, &e)) == 1) {
		check_entry(&entry);
		must(entry.ino != 0);
		n++;
	}
	must(more == 0 || e.msg[0] != '\0');
	maps_rewind(&m);
	while (maps_next(&m, &entry, &e) == 1)
		again++;
	must(n == again);
	maps_close(&m);
}

static void
try_smaps(char *text, size_t len)
{
	FILE *file = fmemopen(text, len, "r");
	struct smaps_entry entry;
	struct err e = ERR_INIT;
	struct smaps s;

	must(file != NULL);
	smaps_take(&s, file);
	while (smaps_next(&s, &entry, &e) == 1) {
		check_entry(&entry.map);
		must(!smaps_has(&entry, "um") || strstr(entry.flags, " um") != NULL);
	}
	smaps_close(&s);
	free(text);
}

static void
try_cgroup(char *text)
{
	char path[PATH_MAX];

	if (cgroup_text_path(text, path))
		must(path[0] == '/');
	free(text);
}

static void
try_mount(char *text)
{
	char dir[PATH_MAX];

	if (cgroup_text_mount(text, "/a/b", dir))
		must(strlen(dir) < sizeof(dir));
	free(text);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	size_t len = size - 1;
	char *text;

	if (size < 2)
		return 0;
	text = malloc(len + 1);
	must(text != NULL);
	memcpy(text, data + 1, len);
	text[len] = '\0';
	switch (data[0] % 4) {
	case 0:
		try_maps(text, len);
		break;
	case 1:
		try_smaps(text, len);
		break;
	case 2:
		try_cgroup(text);
		break;
	default:
		try_mount(text);
		break;
	}
	return 0;
}
