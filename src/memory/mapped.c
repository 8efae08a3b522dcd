/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/mapped.h"

#include "base/ckd.h"
#include "memory/maps.h"

/* How many bytes of a line of maps and a mapping of the list are the same. */
static uint64_t
common(const struct maps_entry *m, const struct memory_mapping *l)
{
	uint64_t start = MAX(m->start, l->hva), end = MIN(m->end, l->hva + l->len);

	if (start >= end || m->offset + (start - m->start) != l->offset + (start - l->hva))
		return 0;
	return end - start;
}

/* Every byte of the part in this line is in the list; the list does not overlap. */
static int
check_line(const struct maps_entry *m, const struct memory_part *part,
    const struct memory_mapping *list, size_t n, struct err *e)
{
	uint64_t start = MAX(m->offset, part->offset);
	uint64_t end = MIN(m->offset + (m->end - m->start), part->offset + part->size);
	struct maps_entry clipped = *m;
	uint64_t sum = 0;

	if (!m->writable || start >= end)
		return 0;
	clipped.start += start - m->offset;
	clipped.end = clipped.start + (end - start);
	clipped.offset = start;
	for (size_t i = 0; i < n; i++)
		sum += common(&clipped, &list[i]);
	if (sum == end - start)
		return 0;
	return err_set(e, ERR_FAILED,
	    "a mapping of the VMM at %#llx is not among those it has told of",
	    (unsigned long long)m->start);
}

static int
check_listed(struct maps *maps, const struct memory_part *part, const struct memory_mapping *l,
    struct err *e)
{
	struct maps_entry m;
	uint64_t sum = 0;
	int more;

	maps_rewind(maps);
	while ((more = maps_next(maps, &m, e)) == 1)
		if (m.shared && common(&m, l) != 0 && maps_is(maps, &m, part->dev, part->ino))
			sum += common(&m, l);
	if (more == -1)
		return -1;
	if (sum == l->len)
		return 0;
	return err_set(e, ERR_FAILED,
	    "%llu bytes at %#llx are no shared mapping of it, as the VMM says",
	    (unsigned long long)l->len, (unsigned long long)l->hva);
}

static int
check_all(struct maps *maps, const struct memory_part *part, const struct memory_mapping *list,
    size_t n, struct err *e)
{
	struct maps_entry m;
	int more;

	while ((more = maps_next(maps, &m, e)) == 1)
		if (m.shared && maps_is(maps, &m, part->dev, part->ino) &&
		    check_line(&m, part, list, n, e) == -1)
			return -1;
	for (size_t i = 0; more == 0 && i < n; i++)
		more = check_listed(maps, part, &list[i], e);
	return more;
}

int
memory_check_mappings(pid_t pid, const struct memory_part *part,
    const struct memory_mapping *list, size_t n, struct err *e)
{
	struct maps maps;
	int rc;

	if (maps_open(&maps, pid, e) == -1)
		return -1;
	rc = check_all(&maps, part, list, n, e);
	maps_close(&maps);
	return rc;
}
