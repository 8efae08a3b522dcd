/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/served.h"

#include <stdint.h>

#include "base/ckd.h"
#include "memory/smaps.h"

int
memory_is_served(pid_t pid, dev_t dev, ino_t ino, bool *served, struct err *e)
{
	struct maps m = { .pid = pid };
	struct smaps_entry entry;
	struct smaps s;
	int more = 0;

	if (smaps_open(&s, pid, e) == -1)
		return -1;
	*served = false;
	while (!*served && (more = smaps_next(&s, &entry, e)) == 1)
		*served = (smaps_has(&entry, "um") || smaps_has(&entry, "ui")) &&
			  maps_is(&m, &entry.map, dev, ino);
	smaps_close(&s);
	return *served || more == 0 ? 0 : -1;
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
	struct smaps_entry entry;
	uint64_t missing = 0;
	struct smaps s;
	int more;

	if (smaps_open(&s, pid, e) == -1)
		return -1;
	for (size_t i = 0; i < n; i++)
		missing += ranges[i].len;
	while ((more = smaps_next(&s, &entry, e)) == 1)
		if (smaps_has(&entry, "um"))
			missing -= within(entry.map.start, entry.map.end, ranges, n);
	smaps_close(&s);
	*registered = missing == 0;
	return more;
}
