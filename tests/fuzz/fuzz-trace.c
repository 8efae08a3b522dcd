/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>

#include "format/trace.h"
#include "fuzz.h"

/*
 * A trace, as it is and with a checksum that fits.  One that is taken is encoded to the same
 * bytes, keeps its pages in the image that it is of, and finds no more than these in another,
 * each once.
 */

static int
by_place(const void *a, const void *b)
{
	const struct page_ref *x = a, *y = b;

	if (x->region != y->region)
		return x->region < y->region ? -1 : 1;
	return (x->page > y->page) - (x->page < y->page);
}

static void
resolve(const struct trace *t, const uint8_t root[DIGEST_SIZE])
{
	const struct manifest m = { .regions = t->regions, .nregions = t->nregions };
	bool same = memcmp(root, t->root, DIGEST_SIZE) == 0;
	struct page_ref *list;
	struct err e = ERR_INIT;
	uint64_t dropped;
	size_t n;

	/* One run can have them all. */
	if (trace_pages(t) > 1 << 16)
		return;
	/* A run of 24 bytes names as many pages as it likes, up to TRACE_PAGES_MAX. */
	fuzz_memory_more = 32 * trace_pages(t);
	must(trace_resolve(t, &m, root, &list, &n, &dropped, &e) == 0);
	must(n + dropped == trace_pages(t));
	must(!same || dropped == 0);
	if (n > 1)
		qsort(list, n, sizeof(*list), by_place);
	for (size_t i = 0; i < n; i++) {
		must(list[i].region < t->nregions);
		must(list[i].page * PAGE_GRANULE < t->regions[list[i].region].size);
		must(i == 0 || by_place(&list[i - 1], &list[i]) < 0);
	}
	free(list);
	fuzz_memory_more = 0;
}

static void
try(const uint8_t *data, size_t size)
{
	uint8_t other[DIGEST_SIZE];
	struct err e = ERR_INIT;
	struct cbor_out out;
	struct trace t;

	if (trace_decode(&t, data, size, &e) == -1) {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_UNSUPPORTED);
		must(e.msg[0] != '\0');
	} else {
		must(trace_encode(&out, &t, &e) == 0);
		must(out.len == size && memcmp(out.buf, data, size) == 0);
		cbor_out_free(&out);
		memcpy(other, t.root, sizeof(other));
		other[0] ^= 1;
		resolve(&t, t.root);
		resolve(&t, other);
	}
	trace_free(&t);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	uint8_t *sealed;

	if (size > 65536)
		return 0;
	try(data, size);
	if (size < 8)
		return 0;
	sealed = malloc(size);
	must(sealed != NULL);
	memcpy(sealed, data, size);
	le64enc(sealed + size - 8, hash_checksum(sealed, size - 8));
	try(sealed, size);
	free(sealed);
	return 0;
}
