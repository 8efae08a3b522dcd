/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>
#include <unistd.h>

#include "cli/json.h"
#include "gmem-inspect/inspect.h"
#include "gmem-inspect/text.h"

static int
root_json(const struct image *img, struct err *e)
{
	json_t *json = json_output();

	json_object_set_new(json, "image", text_json(img->path));
	json_object_set_new(json, "root", json_digest(img->root));
	return json_write(STDOUT_FILENO, json, e);
}

int
verb_root(struct inspect *in, struct err *e)
{
	char text[2 * DIGEST_SIZE + 1];

	if (in->opt->json)
		return root_json(in->img, e);
	digest_text(text, in->img->root);
	puts(text);
	return 0;
}
