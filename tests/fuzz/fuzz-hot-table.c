/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/ckd.h"
#include "fuzz.h"
#include "image/hot.h"

/*
 * A hot table.  The first byte says how many regions the image has (up to 4) and how large they
 * are, the second how many entries are read at a time.  Every page that is taken is found, and
 * is there once.
 */

static void
check(const struct hot_table *t)
{
	uint32_t at = 0;

	must(t->list.nslots >= 2 * t->list.n && is_pow2(t->list.nslots));
	for (size_t i = 0; i < t->list.n; i++) {
		const struct hot_page *p = &t->list.pages[i];

		must(p->region < t->nregions);
		must(p->page * PAGE_GRANULE < t->regions[p->region].size);
		must(p->at == HOT_ZERO || p->at == at++);
		must(hot_find(&t->list, p->region, p->page) == p->at);
	}
	must(at == t->list.nstored);
	must(hot_find(&t->list, (uint32_t)t->nregions, 0) == HOT_ZERO);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct object regions[4] = { { .name = "a" }, { .name = "b" }, { .name = "c" },
		{ .name = "d" } };
	size_t n, step, nregions;
	struct hot_table t;
	struct err e = ERR_INIT;
	int rc = 0;

	if (size < 2 + HOT_ENTRY_SIZE)
		return 0;
	nregions = data[0] % 4 + 1;
	step = data[1] % 16 + 1;
	for (size_t i = 0; i < nregions; i++)
		regions[i].size = UINT64_C(1) << (12 + (data[0] / 4 + i * 7) % 35);
	n = (size - 2) / HOT_ENTRY_SIZE;
	must(hot_table_new(&t, regions, nregions, n, &e) == 0);
	for (size_t i = 0; i < n && rc == 0; i += step)
		rc = hot_table_add(&t, data + 2 + i * HOT_ENTRY_SIZE, MIN(step, n - i), &e);
	if (rc == 0)
		check(&t);
	must(rc == 0 ? t.list.n == n : e.kind == ERR_CORRUPT && e.msg[0] != '\0');
	hot_table_free(&t);
	return 0;
}
