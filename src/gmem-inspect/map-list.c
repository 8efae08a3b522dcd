/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/map.h"

#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "gmem-inspect/range.h"

struct columns {
	int name;
};

/* Exact numbers: lists are for grep and awk. */
static int
print_range(void *arg, const struct range *r, struct err *e)
{
	const struct columns *c = arg;
	char offset[24], gpa[40] = "-";

	snprintf(offset, sizeof(offset), "0x%llx", (unsigned long long)r->offset);
	if (r->mapped)
		snprintf(gpa, sizeof(gpa), "0x%llx-0x%llx", (unsigned long long)r->gpa,
		    (unsigned long long)(r->gpa + r->size));
	printf("%-*s  %14s  %-29s  %14llu  %-6s  %12llu\n", c->name, r->object->name, offset,
	    gpa, (unsigned long long)r->size, range_class(r), (unsigned long long)r->bytes);
	if (ferror(stdout))
		return err_set(e, ERR_FAILED, "the list could not be written");
	return 0;
}

int
map_list(const struct map *map, struct err *e)
{
	struct columns c = { .name = 6 };

	for (size_t i = 0; i < map->nregions; i++)
		c.name = MAX(c.name, (int)strlen(map->regions[i].name));
	printf("%-*s  %14s  %-29s  %14s  %-6s  %12s\n", c.name, "REGION", "OFFSET",
	    "GUEST PHYSICAL", "SIZE", "CLASS", "IN IMAGE");
	for (size_t i = 0; i < map->nregions; i++)
		if (ranges_of(map->img, &map->regions[i], print_range, &c, e) == -1)
			return -1;
	return 0;
}
