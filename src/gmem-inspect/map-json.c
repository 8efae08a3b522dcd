/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/map.h"

#include <unistd.h>

#include "cli/json.h"
#include "gmem-inspect/range.h"
#include "gmem-inspect/text.h"

static int
put_range(void *arg, const struct range *r, struct err *e)
{
	json_t *list = arg, *range = json_object();

	json_object_set_new(range, "gpa", r->mapped ? json_hex(r->gpa) : json_null());
	json_object_set_new(range, "offset", json_hex(r->offset));
	json_put(range, "size", r->size);
	json_object_set_new(range, "class", json_string(range_class(r)));
	json_put(range, "image_bytes", r->bytes);
	if (json_array_append_new(list, range) == -1)
		return err_set(e, ERR_FAILED, "JSON output: out of memory");
	return 0;
}

static int
put_region(json_t *to, const struct image *img, const struct object *o, struct err *e)
{
	json_t *region = json_object(), *ranges = json_array();
	int rc;

	rc = ranges_of(img, o, put_range, ranges, e);
	json_object_set_new(region, "name", json_string(o->name));
	json_put(region, "size", o->size);
	json_object_set_new(region, "ranges", ranges);
	json_array_append_new(to, region);
	return rc;
}

int
map_json(const struct map *map, struct err *e)
{
	json_t *json = json_output(), *regions = json_array();
	int rc = 0;

	for (size_t i = 0; i < map->nregions && rc == 0; i++)
		rc = put_region(regions, map->img, &map->regions[i], e);
	json_object_set_new(json, "image", text_json(map->img->path));
	json_object_set_new(json, "root", json_digest(map->img->root));
	json_object_set_new(json, "regions", regions);
	if (rc == -1) {
		json_decref(json);
		return -1;
	}
	return json_write(STDOUT_FILENO, json, e);
}
