/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>

#include "format/trace.h"
#include "fuzz.h"
#include "gmem-inspect/trace.h"

/*
 * Traces that gmem-inspect merges, counts, compares and prints: up to four, each after two
 * bytes with its length, sealed again.  What has merged is a trace.
 */
#define TRACES_MAX 4
#define PAGES_MAX (1 << 14)

static bool
take(struct trace_file *f, const uint8_t *data, size_t size)
{
	uint8_t *sealed = malloc(size + 1);
	struct err e = ERR_INIT;
	bool good;

	must(sealed != NULL);
	memcpy(sealed, data, size);
	if (size >= 8)
		le64enc(sealed + size - 8, hash_checksum(sealed, size - 8));
	good = trace_decode(&f->t, sealed, size, &e) == 0 && trace_pages(&f->t) <= PAGES_MAX;
	free(sealed);
	if (good)
		must(trace_file_count(f, &e) == 0);
	return good;
}

static void
merge(const struct traces *all, bool intersection)
{
	struct err e = ERR_INIT;
	struct cbor_out bytes;
	struct trace t, again;

	must(traces_merge(all, intersection, &t, &e) == 0);
	must(trace_encode(&bytes, &t, &e) == 0);
	must(trace_decode(&again, bytes.buf, bytes.len, &e) == 0);
	must(trace_pages(&again) == trace_pages(&t));
	must(!intersection || trace_pages(&t) <= all->list[0].all.pages);
	trace_free(&again);
	trace_free(&t);
	cbor_out_free(&bytes);
}

static void
show(const struct traces *all)
{
	struct err e = ERR_INIT;

	fuzz_quiet();
	must(traces_text(all, &e) == 0);
	must(traces_json(all, &e) == 0);
	must(traces_list(all, &e) == 0);
	fuzz_loud();
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	static struct trace_file files[TRACES_MAX];
	struct traces all = { .list = files };
	struct fuzz_in in = { data, size };
	bool good = true;

	memset(files, 0, sizeof(files));
	while (good && all.n < TRACES_MAX && in.left > 0) {
		size_t len = fuzz_u16(&in);
		const uint8_t *p = fuzz_take(&in, &len);

		files[all.n].path = "fuzz";
		good = take(&files[all.n++], p, len);
	}
	if (good && all.n > 0) {
		merge(&all, false);
		merge(&all, true);
		show(&all);
	}
	for (size_t i = 0; i < all.n; i++) {
		free(files[i].regions);
		trace_free(&files[i].t);
	}
	return 0;
}
