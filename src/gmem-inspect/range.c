/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/range.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "gmem-inspect/walk.h"

struct builder {
	range_visit *visit;
	void *arg;
	const struct span *span; /* the one that `at` is in */
	uint64_t at; /* everything before is known */
	struct range open; /* may still grow; size 0: there is none */
};

static int
flush(struct builder *b, struct err *e)
{
	struct range done = b->open;

	b->open.size = 0;
	return done.size == 0 ? 0 : b->visit(b->arg, &done, e);
}

/* Adds a piece at `at` that does not cross the end of its span. */
static int
add_piece(
    struct builder *b, uint64_t size, enum page_class class, uint64_t bytes, struct err *e)
{
	if (b->open.size != 0 && b->open.class == class) {
		b->open.size += size;
		b->open.bytes += bytes;
	} else {
		if (flush(b, e) == -1)
			return -1;
		b->open.offset = b->at;
		b->open.size = size;
		b->open.mapped = b->span->mapped;
		b->open.gpa = b->span->gpa + (b->at - b->span->offset);
		b->open.class = class;
		b->open.bytes = bytes;
	}
	b->at += size;
	if (b->at == b->span->offset + b->span->size) {
		b->span++;
		return flush(b, e);
	}
	return 0;
}

static int
add(struct builder *b, uint64_t end, enum page_class class, uint64_t bytes, struct err *e)
{
	uint64_t start = b->at, size = end - start;

	while (b->at < end) {
		uint64_t stop = MIN(end, b->span->offset + b->span->size);
		uint64_t part = share(bytes, b->at - start, stop - start, size);

		if (add_piece(b, stop - b->at, class, part, e) == -1)
			return -1;
	}
	return 0;
}

static int
on_run(void *arg, const struct run *run, struct err *e)
{
	struct builder *b = arg;
	uint64_t end = MIN(run->offset + run->npages * PAGE_GRANULE, b->open.object->size);

	if (add(b, run->offset, PAGE_ZERO, 0, e) == -1)
		return -1;
	return add(b, end, run->hot ? PAGE_HOT : PAGE_STORED, run->bytes, e);
}

int
ranges_of(const struct image *img, const struct object *o, range_visit *visit, void *arg,
    struct err *e)
{
	struct builder b = { .visit = visit, .arg = arg, .open.object = o };
	struct span *spans;
	size_t n;
	int rc = -1;

	if (spans_new(&spans, &n, o, e) == -1)
		return -1;
	b.span = spans;
	if (walk_object(img, o, on_run, &b, e) == 0)
		rc = add(&b, o->size, PAGE_ZERO, 0, e);
	free(spans);
	return rc;
}

const char *
range_class(const struct range *range)
{
	static const char *const names[] = { "zero", "stored", "hot" };

	return names[range->class];
}
