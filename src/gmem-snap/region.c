/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/region.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"

#define STEM_MAX 200 /* bytes of a name, so that a number can follow */

int
regions_alloc(struct regions *r, size_t n, struct err *e)
{
	r->v = calloc(MAX(n, (size_t)1), sizeof(*r->v));
	if (r->v == NULL)
		return err_sys(e, "regions");
	r->n = n;
	return 0;
}

int
regions_add(struct regions *r, const struct object *o, struct memory_source *source,
    uint64_t offset, struct err *e)
{
	struct region *v = reallocarray(r->v, r->n + 1, sizeof(*v));

	if (v == NULL) {
		memory_source_free(source);
		return err_sys(e, "regions");
	}
	v[r->n++] = (struct region){ .object = *o, .source = source, .offset = offset };
	r->v = v;
	return 0;
}

void
regions_fini(struct regions *r)
{
	for (size_t i = 0; i < r->n; i++)
		memory_source_free(r->v[i].source);
	free(r->v);
	*r = (struct regions){ 0 };
}

uint64_t
regions_size(const struct regions *r)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < r->n; i++)
		if (ckd_add(&sum, sum, r->v[i].object.size))
			return UINT64_MAX;
	return sum;
}

/* A name without a number. */
static void
make_stem(char stem[STEM_MAX + 1], const char *name)
{
	static const char gone[] = " (deleted)";
	const char *slash = strrchr(name, '/');
	const char *from = slash != NULL ? slash + 1 : name;
	size_t len = strlen(from);

	if (len > strlen(gone) && strcmp(from + len - strlen(gone), gone) == 0)
		len -= strlen(gone);
	len = MIN(len, (size_t)STEM_MAX);
	for (size_t i = 0; i < len; i++) {
		char one[2] = { from[i], '\0' };

		stem[i] = manifest_name_ok(one) ? from[i] : '_';
	}
	if (len == 0)
		stem[len++] = '_';
	stem[len] = '\0';
}

static bool
is_taken(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

int
region_names(const char **names, size_t n, struct arena *arena, struct err *e)
{
	char stem[STEM_MAX + 1], name[STEM_MAX + 24];

	for (size_t i = 0; i < n; i++) {
		make_stem(stem, names[i]);
		snprintf(name, sizeof(name), "%s", stem);
		for (size_t k = 1; is_taken(names, i, name); k++)
			snprintf(name, sizeof(name), "%s-%zu", stem, k);
		names[i] = arena_strdup(arena, name);
		if (names[i] == NULL)
			return err_sys(e, "names of regions");
	}
	return 0;
}
