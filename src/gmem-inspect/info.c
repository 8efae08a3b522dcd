/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/info.h"

#include "base/ckd.h"
#include "gmem-inspect/inspect.h"

struct amount
amount_of(const struct object *o)
{
	return (struct amount){
		.size = o->size,
		.pages = div_up(o->size, PAGE_GRANULE),
		.stored = o->top.stored,
		.packed = o->top.bytes,
	};
}

uint64_t
amount_plain(const struct amount *a)
{
	return a->stored * PAGE_GRANULE;
}

static struct amount
sum(const struct object *list, size_t n)
{
	struct amount total = { 0 };

	for (size_t i = 0; i < n; i++) {
		struct amount a = amount_of(&list[i]);

		total.size += a.size;
		total.pages += a.pages;
		total.stored += a.stored;
		total.packed += a.packed;
	}
	return total;
}

int
verb_info(struct inspect *in, struct err *e)
{
	const struct manifest *m = &in->img->manifest;
	struct info info = { .img = in->img, .memory = sum(m->regions, m->nregions) };

	if (in->opt->json)
		return info_json(&info, e);
	info_text(&info);
	return 0;
}
