/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/info.h"

#include "base/ckd.h"
#include "gmem-inspect/inspect.h"
#include "gmem-inspect/walk.h"

/* Parts add up to all the bytes of hot pages. */
static uint64_t
hot_bytes(const struct manifest *m, const struct object *o)
{
	uint64_t before = 0;

	if (o->top.hot == 0)
		return 0;
	for (const struct object *r = m->regions; r != o; r++)
		before += r->top.hot;
	return share(
	    m->hot->pages.top.bytes, before, before + o->top.hot, m->hot->pages.top.stored);
}

struct amount
amount_of(const struct manifest *m, const struct object *o)
{
	return (struct amount){
		.size = o->size,
		.pages = div_up(o->size, PAGE_GRANULE),
		.stored = o->top.stored,
		.hot = o->top.hot,
		.packed = o->top.bytes + hot_bytes(m, o),
	};
}

uint64_t
amount_plain(const struct amount *a)
{
	return a->stored * PAGE_GRANULE;
}

static struct amount
sum(const struct manifest *m, const struct object *list, size_t n)
{
	struct amount total = { 0 };

	for (size_t i = 0; i < n; i++) {
		struct amount a = amount_of(m, &list[i]);

		total.size += a.size;
		total.pages += a.pages;
		total.stored += a.stored;
		total.hot += a.hot;
		total.packed += a.packed;
	}
	return total;
}

int
verb_info(struct inspect *in, struct err *e)
{
	const struct manifest *m = &in->img->manifest;
	struct info info = { .img = in->img, .memory = sum(m, m->regions, m->nregions) };

	if (in->opt->json)
		return info_json(&info, e);
	info_text(&info);
	return 0;
}
