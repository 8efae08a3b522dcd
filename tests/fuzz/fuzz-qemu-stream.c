/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "fuzz.h"
#include "vmm/qemu/stream.h"

/*
 * A migration stream: the first byte says which blocks are ours.  What is taken whole is
 * taken byte by byte with the same result, and what comes out is taken again, unchanged.
 */
#define OUT_MAX ((size_t)1 << 20)

struct
try {
	const uint8_t *data;
	size_t size;
	unsigned ours; /* bit i: block i */
	size_t nblocks;
	uint8_t *out;
	size_t n;
	bool full;
};

static int
on_put(void *arg, const void *buf, size_t len, struct err *e)
{
	struct try *t = arg;

	if (len > OUT_MAX - t->n) {
		t->full = true;
		return err_set(e, ERR_FAILED, "too much");
	}
	memcpy(t->out + t->n, buf, len);
	t->n += len;
	return 0;
}

static int
on_block(void *arg, struct qemu_stream_block *b, struct err *e)
{
	struct try *t = arg;

	(void)e;
	must(strlen(b->name) > 0 && strlen(b->name) < sizeof(b->name));
	b->ours = (t->ours >> t->nblocks++ % 8 & 1) != 0;
	return 0;
}

/* Of each block the first and the last page, if they are there. */
static int
on_pages(void *arg, struct qemu_stream *s, struct err *e)
{
	const struct try *t = arg;
	const struct qemu_stream_block *b;
	uint32_t page = qemu_stream_page_size(s);
	size_t n;

	must(qemu_stream_mapped(s));
	b = qemu_stream_blocks(s, &n);
	for (size_t i = 0; i < n; i++) {
		uint64_t last = b[i].size - page;

		if (b[i].ours || b[i].size == 0)
			continue;
		must(b[i].pages % page == 0 && b[i].bitmap < b[i].pages);
		if (qemu_stream_page(s, &b[i], last,
			b[i].pages + b[i].size <= t->size ? t->data + b[i].pages + last : NULL,
			e) == -1)
			return -1;
	}
	return 0;
}

/* All of it in pieces; whether it was taken. */
static bool
run(struct try *t, size_t piece, bool jump)
{
	const struct qemu_stream_hooks hooks = {
		.arg = t,
		.put = on_put,
		.block = on_block,
		.pages = on_pages,
	};
	struct err e = ERR_INIT;
	struct qemu_stream *s;
	size_t at = 0;
	int r = 0;

	t->n = t->nblocks = 0;
	must(qemu_stream_new(&s, &hooks, &e) == 0);
	while (r == 0 && at < t->size) {
		size_t n = piece < t->size - at ? piece : t->size - at;
		uint64_t gap;

		r = qemu_stream_feed(s, t->data + at, n, &e);
		at += n;
		gap = jump && r == 0 ? qemu_stream_jump(s) : 0;
		at = gap < t->size - at ? at + (size_t)gap : t->size;
	}
	if (r == 0)
		r = qemu_stream_end(s, &e);
	must(r == 0 || t->full || e.kind == ERR_CORRUPT || e.kind == ERR_UNSUPPORTED);
	qemu_stream_free(s);
	return r == 0;
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	static uint8_t out[OUT_MAX], other[OUT_MAX];
	struct try t = { .out = out }, again = { .out = other };
	bool good;

	if (size == 0)
		return 0;
	t.ours = again.ours = data[0];
	t.data = again.data = data + 1;
	t.size = again.size = size - 1;
	good = run(&t, size, false);
	must(run(&again, 1, true) == good || t.full);
	if (!good)
		return 0;
	must(again.n == t.n && memcmp(out, other, t.n) == 0);
	again.data = out;
	again.size = t.n;
	must(run(&again, 4096, false) && again.n == again.size &&
	     memcmp(out, other, again.n) == 0);
	return 0;
}
