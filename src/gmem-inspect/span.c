/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/span.h"

#include <stdlib.h>

#include "base/ckd.h"

static int
by_offset(const void *a, const void *b)
{
	const struct segment *x = *(const struct segment *const *)a;
	const struct segment *y = *(const struct segment *const *)b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x < y ? -1 : x > y;
}

static size_t
cut(struct span *list, const struct segment *const *sorted, size_t nsegments, uint64_t size)
{
	uint64_t at = 0;
	size_t n = 0;

	for (size_t i = 0; i < nsegments; i++) {
		const struct segment *s = sorted[i];
		uint64_t start = MAX(at, s->offset), end = s->offset + s->size;

		if (end <= at)
			continue;
		if (start > at)
			list[n++] = (struct span){ .offset = at, .size = start - at };
		list[n++] = (struct span){ .offset = start,
			.size = end - start,
			.mapped = true,
			.gpa = s->gpa + (start - s->offset) };
		at = end;
	}
	if (at < size)
		list[n++] = (struct span){ .offset = at, .size = size - at };
	return n;
}

int
spans_new(struct span **list, size_t *n, const struct object *o, struct err *e)
{
	const struct segment **sorted;

	*list = calloc(2 * o->nsegments + 1, sizeof(**list));
	sorted = calloc(o->nsegments + 1, sizeof(const struct segment *));
	if (*list == NULL || sorted == NULL) {
		err_sys(e, "%s", o->name);
		free(sorted);
		free(*list);
		*list = NULL;
		return -1;
	}
	for (size_t i = 0; i < o->nsegments; i++)
		sorted[i] = &o->segments[i];
	qsort(sorted, o->nsegments, sizeof(const struct segment *), by_offset);
	*n = cut(*list, sorted, o->nsegments, o->size);
	free(sorted);
	return 0;
}

uint64_t
span_address(const struct span *s)
{
	return s->mapped ? s->gpa : s->offset;
}
