/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/map.h"

#include "gmem-inspect/inspect.h"

int
verb_map(struct inspect *in, struct err *e)
{
	const struct manifest *m = &in->img->manifest;
	const struct options *opt = in->opt;
	struct map map = { .img = in->img,
		.regions = m->regions,
		.nregions = m->nregions,
		.width = opt->width,
		.out = in->out };

	if (opt->region != NULL) {
		map.regions = manifest_region(m, opt->region);
		map.nregions = 1;
		if (map.regions == NULL)
			return err_set(e, ERR_FAILED, "%s: no region is called %s",
			    in->img->path, opt->region);
	}
	if (opt->json)
		return map_json(&map, e);
	if (opt->list)
		return map_list(&map, e);
	if (opt->svg != NULL)
		return map_svg(&map, e);
	return map_text(&map, e);
}
