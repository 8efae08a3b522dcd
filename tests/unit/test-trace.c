/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "format/pieces.h"
#include "format/trace.h"
#include "image/trace-file.h"
#include "tap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const uint8_t root_a[DIGEST_SIZE] = { 1, 2, 3 };
static const uint8_t root_b[DIGEST_SIZE] = { 3, 2, 1 };

/* A guest with a hole below 4 GiB, a small ROM, and a region without addresses. */
static struct segment ram_segments[] = { { 0, 0, 16 * MIB }, { 4 * GIB, 16 * MIB, 16 * MIB } };
static struct segment rom_segments[] = { { 0xfffc0000, 0, 0x40000 } };
static struct object regions_a[] = {
	{ .name = "ram",
	    .kind = "",
	    .size = 32 * MIB,
	    .page_size = 4096,
	    .segments = ram_segments,
	    .nsegments = 2 },
	{ .name = "rom",
	    .kind = "",
	    .size = 0x40000,
	    .page_size = 4096,
	    .segments = rom_segments,
	    .nsegments = 1 },
	{ .name = "vga", .kind = "", .size = MIB + 100, .page_size = 4096 },
};

static const struct trace_run runs_a[] = {
	{ 7, 1, 0, 0, TRACE_READ }, { 100, 3, 0, 1, TRACE_WRITE },
	{ 4096, 2, 0, 1, TRACE_READ }, /* 4 GiB */
	{ 63, 1, 1, 5, TRACE_READ },
	{ 256, 1, 2, 9, TRACE_WRITE }, /* the last, a part of one */
};

static void
make(struct trace *t)
{
	struct err e;

	if (trace_init(t, regions_a, COUNT(regions_a), root_a, &e) == -1 ||
	    trace_set_runs(t, runs_a, COUNT(runs_a), &e) == -1)
		abort();
	t->end = TRACE_END_SETTLED;
	t->duration_ms = 1234;
}

static bool
same_runs(const struct trace *t, const struct trace_run *list, size_t n)
{
	if (t->nruns != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct trace_run *a = &t->runs[i], *b = &list[i];

		if (a->page != b->page || a->npages != b->npages || a->region != b->region ||
		    a->time_ms != b->time_ms || a->access != b->access)
			return false;
	}
	return true;
}

static void
encode(struct cbor_out *out, const struct trace *t)
{
	struct err e = ERR_INIT;

	ok(trace_encode(out, t, &e) == 0, "a trace is encoded: %s", e.msg);
}

static void
test_round_trip(void)
{
	struct cbor_out first, second;
	struct trace t, back;
	struct err e = ERR_INIT;

	make(&t);
	encode(&first, &t);
	ok(trace_decode(&back, first.buf, first.len, &e) == 0, "and decoded: %s", e.msg);
	ok(same_runs(&back, runs_a, COUNT(runs_a)) && trace_pages(&back) == 8 &&
		back.nregions == 3 && strcmp(back.regions[1].name, "rom") == 0 &&
		back.regions[0].nsegments == 2 && back.regions[0].segments[1].gpa == 4 * GIB &&
		back.regions[2].size == MIB + 100 &&
		memcmp(back.root, root_a, DIGEST_SIZE) == 0 &&
		strcmp(back.end, "settled") == 0 && back.duration_ms == 1234 && back.lost == 0,
	    "with all that it had");
	encode(&second, &back);
	ok(first.len == second.len && memcmp(first.buf, second.buf, first.len) == 0,
	    "and is encoded to the same bytes");
	cbor_out_free(&first);
	cbor_out_free(&second);
	trace_free(&t);
	trace_free(&back);
}

static void
test_empty(void)
{
	struct page_ref *list = NULL;
	struct manifest m = { .regions = regions_a, .nregions = 3 };
	struct cbor_out bytes;
	struct trace t, back;
	struct err e = ERR_INIT;
	uint64_t dropped;
	size_t n;

	ok(trace_init(&t, NULL, 0, root_a, &e) == 0, "a trace of nothing");
	t.end = TRACE_END_EXIT;
	encode(&bytes, &t);
	ok(trace_decode(&back, bytes.buf, bytes.len, &e) == 0 && back.nruns == 0 &&
		trace_pages(&back) == 0,
	    "is one: %s", e.msg);
	ok(trace_resolve(&back, &m, root_b, &list, &n, &dropped, &e) == 0 && list == NULL &&
		n == 0 && dropped == 0,
	    "and resolves to nothing");
	cbor_out_free(&bytes);
	trace_free(&t);
	trace_free(&back);
}

/* ---- damage ---- */

static void
test_damage(void)
{
	unsigned taken = 0, silent = 0;
	struct cbor_out bytes;
	struct trace t, back;

	make(&t);
	encode(&bytes, &t);
	for (size_t i = 0; i < bytes.len * 8; i++) {
		struct err e = ERR_INIT;

		bytes.buf[i / 8] ^= (uint8_t)(1 << i % 8);
		taken += trace_decode(&back, bytes.buf, bytes.len, &e) == 0;
		silent +=
		    e.msg[0] == '\0' || (e.kind != ERR_CORRUPT && e.kind != ERR_UNSUPPORTED);
		trace_free(&back);
		bytes.buf[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	ok(taken == 0 && silent == 0, "each of %zu flipped bits is found", bytes.len * 8);
	for (size_t i = 0; i < bytes.len; i++) {
		struct err e = ERR_INIT;
		uint8_t *exact = malloc(i + 1);

		memcpy(exact, bytes.buf, i);
		taken += trace_decode(&back, exact, i, &e) == 0;
		silent += e.kind != ERR_CORRUPT;
		trace_free(&back);
		free(exact);
	}
	ok(taken == 0 && silent == 0, "and each of %zu truncations", bytes.len);
	cbor_put_raw(&bytes, "", 1);
	ok(trace_decode(&back, bytes.buf, bytes.len, &(struct err)ERR_INIT) == -1,
	    "and a byte behind its end");
	trace_free(&back);
	cbor_out_free(&bytes);
	trace_free(&t);
}

/* The bytes of a trace with a change, sealed again. */
static void
hostile(const char *name, size_t back, const void *bytes, size_t len, enum err_kind kind,
    const char *says)
{
	struct err e = ERR_INIT;
	struct trace t, decoded;
	struct cbor_out out;
	size_t at;

	make(&t);
	encode(&out, &t);
	at = back < 4096 ? out.len - back : back - 4096;
	memcpy(out.buf + at, bytes, len);
	le64enc(out.buf + out.len - 8, hash_checksum(out.buf, out.len - 8));
	ok(trace_decode(&decoded, out.buf, out.len, &e) == -1 && e.kind == kind &&
		strstr(e.msg, says) != NULL,
	    "%s: %s", name, e.msg);
	trace_free(&decoded);
	cbor_out_free(&out);
	trace_free(&t);
}

#define RUN(i) (8 + 16 * (COUNT(runs_a) - (i))) /* from the end */
#define START(i) (4096 + (i)) /* from the start */

static void
test_hostile(void)
{
	hostile("another magic", START(0), "gmem-tra", 8, ERR_CORRUPT, "not a gmem trace");
	hostile("version 2", START(8), "\2", 1, ERR_UNSUPPORTED, "version 2");
	hostile(
	    "a huge description", START(12), "\1\0\100\0", 4, ERR_CORRUPT, "description of");
	hostile("many runs", START(16), "\1\0\100\0", 4, ERR_CORRUPT, "4194305 runs");
	hostile(
	    "2^60 runs, which wrap", START(16), "\5\0\0\0\0\0\0\20", 8, ERR_CORRUPT, "runs");
	hostile("one run less", START(16), "\4", 1, ERR_CORRUPT, "its header says");
	hostile("a feature", START(24), "\4", 1, ERR_UNSUPPORTED, "features 0x4");
	hostile("no CBOR", START(32), "\377", 1, ERR_CORRUPT, "description");
	hostile("a run behind its region", RUN(1), "\377\37\0", 3, ERR_CORRUPT,
	    "run 1: pages 8191+3");
	hostile("a run far behind it", RUN(1) - 8, "\377\377\377\377", 4, ERR_CORRUPT,
	    "run 1: pages");
	hostile("a run of no pages", RUN(2) - 8, "\0", 1, ERR_CORRUPT, "run 2: pages 4096+0");
	hostile("a region that is not there", RUN(3) - 6, "\3", 1, ERR_CORRUPT,
	    "run 3: region 3 of 3");
	hostile("no access", RUN(0) - 7, "\0", 1, ERR_CORRUPT, "run 0: access 0");
	hostile("reserved bits", RUN(0) - 7, "\5", 1, ERR_CORRUPT, "run 0: uses reserved");
	hostile(
	    "time that falls", RUN(4) - 12, "\4", 1, ERR_CORRUPT, "run 4: time 4 ms, behind 5");
	hostile("a page twice", RUN(0), "\146", 1, ERR_CORRUPT,
	    "runs 0 and 1: page 102 of region 0");
}

static void
refused(const char *name, struct trace *t, const char *says)
{
	struct err e = ERR_INIT;
	struct cbor_out out;

	ok(trace_encode(&out, t, &e) == -1 && e.kind == ERR_FAILED &&
		strstr(e.msg, says) != NULL && out.buf == NULL,
	    "%s is not written: %s", name, e.msg);
	trace_free(t);
}

static void
test_not_written(void)
{
	struct trace t;

	make(&t);
	t.end = "";
	refused("a trace without an end", &t, "end");
	make(&t);
	t.tool = "\xff";
	refused("text that is not UTF-8", &t, "tool");
	make(&t);
	t.regions[1].name = "ram";
	refused("a name twice", &t, "\"ram\" twice");
	make(&t);
	t.regions[2].size = 0;
	refused("an empty region", &t, "vga: is empty");
	make(&t);
	t.runs[2].page = 8191;
	refused("a run that is too long", &t, "run 2");
	make(&t);
	t.regions[0].segments[0].offset = 17 * MIB;
	refused("a segment that is too long", &t, "segment 0");
}

static void
test_limits(void)
{
	struct segment segment = { 0, 0, 1024 * GIB };
	struct object big = { .name = "big",
		.kind = "",
		.size = 1024 * GIB,
		.page_size = 4096,
		.segments = &segment,
		.nsegments = 1 };
	struct trace_run *list = calloc(TRACE_RUNS_MAX, sizeof(*list));
	struct manifest m = { .regions = &big, .nregions = 1 };
	struct page_ref *refs = NULL;
	struct err e = ERR_INIT;
	struct cbor_out out;
	struct trace t, back;
	uint64_t dropped;
	size_t n = 0;

	for (uint32_t i = 0; i < TRACE_RUNS_MAX; i++)
		list[i] = (struct trace_run){ 2 * (uint64_t)(TRACE_RUNS_MAX - 1 - i), 1, 0, i,
			TRACE_READ };
	ok(trace_init(&t, &big, 1, root_a, &e) == 0 &&
		trace_set_runs(&t, list, TRACE_RUNS_MAX, &e) == 0,
	    "the largest trace");
	t.end = TRACE_END_FULL;
	ok(trace_encode(&out, &t, &e) == 0 && out.len <= TRACE_SIZE_MAX, "is encoded: %s",
	    e.msg);
	ok(trace_decode(&back, out.buf, out.len, &e) == 0 && back.nruns == TRACE_RUNS_MAX,
	    "and decoded: %s", e.msg);
	ok(trace_resolve(&back, &m, root_b, &refs, &n, &dropped, &e) == 0 &&
		n == TRACE_RUNS_MAX && dropped == 0 &&
		refs[1].page == 2 * (uint64_t)(TRACE_RUNS_MAX - 2),
	    "and resolved by address: %s", e.msg);
	free(refs);
	trace_free(&back);
	cbor_out_free(&out);
	t.runs[0].npages++;
	ok(trace_encode(&out, &t, &e) == -1 && strstr(e.msg, "pages, at most") != NULL,
	    "one page more is not: %s", e.msg);
	trace_free(&t);
	free(list);
}

/* ---- runs ---- */

static void
test_runs(void)
{
	static const struct trace_run touches[] = {
		{ 5, 1, 0, 0, TRACE_READ },
		{ 6, 1, 0, 0, TRACE_READ },
		{ 7, 2, 0, 0, TRACE_READ },
		{ 9, 1, 0, 0, TRACE_WRITE },
		{ 10, 1, 0, 1, TRACE_WRITE },
		{ 11, 1, 1, 1, TRACE_WRITE },
		{ 4, 1, 0, 1, TRACE_READ },
	};
	static const struct trace_run want[] = { { 5, 4, 0, 0, TRACE_READ },
		{ 9, 1, 0, 0, TRACE_WRITE }, { 10, 1, 0, 1, TRACE_WRITE },
		{ 11, 1, 1, 1, TRACE_WRITE }, { 4, 1, 0, 1, TRACE_READ } };
	struct err e = ERR_INIT;
	struct trace t;

	ok(trace_init(&t, regions_a, 3, root_a, &e) == 0 &&
		trace_set_runs(&t, touches, COUNT(touches), &e) == 0 &&
		same_runs(&t, want, COUNT(want)),
	    "neighbours of one time and access are one run, others are not");
	trace_free(&t);
}

/* ---- in other images ---- */

struct where {
	uint32_t region;
	uint64_t page;
};

static void
resolves(const char *name, struct object *regions, size_t nregions, const uint8_t *root,
    const struct where *want, size_t nwant, uint64_t want_dropped)
{
	struct manifest m = { .regions = regions, .nregions = nregions };
	struct page_ref *list = NULL;
	struct err e = ERR_INIT;
	struct trace t;
	uint64_t dropped = 99;
	bool good;
	size_t n;

	make(&t);
	good = trace_resolve(&t, &m, root, &list, &n, &dropped, &e) == 0 && n == nwant &&
	       dropped == want_dropped;
	for (size_t i = 0; good && i < n; i++)
		good = list[i].region == want[i].region && list[i].page == want[i].page;
	ok(good, "%s: %zu pages, %llu dropped %s", name, n, (unsigned long long)dropped, e.msg);
	free(list);
	trace_free(&t);
}

static void
test_resolve(void)
{
	/* Low and high memory are regions of their own here, and low memory starts later. */
	static struct segment low[] = { { 4096, 0, 16 * MIB - 4096 } };
	static struct segment high[] = { { 4 * GIB, 0, 4096 } };
	struct object split[] = {
		{ .name = "high",
		    .kind = "",
		    .size = 8 * MIB,
		    .page_size = 4096,
		    .segments = high,
		    .nsegments = 1 },
		{ .name = "ram",
		    .kind = "",
		    .size = 16 * MIB,
		    .page_size = 4096,
		    .segments = low,
		    .nsegments = 1 },
		{ .name = "vga", .kind = "", .size = 2 * MIB, .page_size = 4096 },
	};
	static const struct where all[] = { { 0, 7 }, { 0, 100 }, { 0, 101 }, { 0, 102 },
		{ 0, 4096 }, { 0, 4097 }, { 1, 63 }, { 2, 256 } };
	static const struct where by_address[] = { { 1, 6 }, { 1, 99 }, { 1, 100 }, { 1, 101 },
		{ 0, 0 }, { 2, 256 } };
	struct object names[] = { { .name = "vga", .kind = "", .size = MIB, .page_size = 4096 },
		{ .name = "ram", .kind = "", .size = 4097 * 4096, .page_size = 4096 } };
	static const struct where by_name[] = { { 1, 7 }, { 1, 100 }, { 1, 101 }, { 1, 102 },
		{ 1, 4096 } };

	resolves("the same image", regions_a, 3, root_a, all, COUNT(all), 0);
	resolves("the same root, and a lie", regions_a, 2, root_a, all, 7, 1);
	resolves("the same guest", regions_a, 3, root_b, all, COUNT(all), 0);
	resolves("memory that is divided otherwise, by address", split, 3, root_b, by_address,
	    COUNT(by_address), 2);
	resolves("no addresses, by name", names, 2, root_b, by_name, COUNT(by_name), 3);
	resolves("another guest", NULL, 0, root_b, NULL, 0, 8);
}

static void
test_overlap(void)
{
	/* One page under two addresses, and addresses that are not of whole pages. */
	static struct segment twice[] = { { 0, 0, 16 * MIB }, { 4 * GIB, 7 * 4096, MIB } };
	static struct segment odd[] = { { 100, 0, 16 * MIB } };
	struct object alias[] = { { .name = "x",
	    .kind = "",
	    .size = 16 * MIB,
	    .page_size = 4096,
	    .segments = twice,
	    .nsegments = 2 } };
	struct object crooked[] = { { .name = "x",
	    .kind = "",
	    .size = 16 * MIB,
	    .page_size = 4096,
	    .segments = odd,
	    .nsegments = 1 } };
	static const struct where want[] = { { 0, 7 }, { 0, 100 }, { 0, 101 }, { 0, 102 },
		{ 0, 8 } };

	resolves("a page with two addresses", alias, 1, root_b, want, COUNT(want), 3);
	resolves("addresses of no pages", crooked, 1, root_b, NULL, 0, 8);
}

static void
test_pieces(void)
{
	/* The first counts; the second is cut in two; the last is covered. */
	static const struct piece list[] = { { 100, 50, 1000 }, { 0, 300, 2000 }, { 7, 0, 9 },
		{ UINT64_MAX - 1, 1, 5 }, { 120, 100, 3000 } };
	static const struct {
		uint64_t at, to;
		bool found;
	} want[] = { { 0, 2000, true }, { 99, 2099, true }, { 100, 1000, true },
		{ 149, 1049, true }, { 150, 2150, true }, { 299, 2299, true },
		{ 300, 0, false }, { UINT64_MAX - 1, 5, true }, { UINT64_MAX, 0, false },
		{ 7, 2007, true } };
	struct pieces p = { .n = 0 };
	struct err e = ERR_INIT;
	unsigned good = 0;

	ok(pieces_make(&p, list, COUNT(list), &e) == 0 && p.n == 4, "overlapping pieces: %zu",
	    p.n);
	for (size_t i = 0; i < COUNT(want); i++) {
		uint64_t to = 0;

		good += pieces_find(&p, want[i].at, &to) == want[i].found && to == want[i].to;
	}
	ok(good == COUNT(want), "lead where the first of them leads: %u", good);
	pieces_free(&p);
	ok(pieces_make(&p, NULL, 0, &e) == 0 && !pieces_find(&p, 0, &(uint64_t){ 0 }),
	    "no pieces lead nowhere");
	pieces_free(&p);
}

/* ---- unknown keys ---- */

static void
test_unknown(void)
{
	static const uint8_t bytes[] = { 0x64, 'w', 'h', 'e', 'n', 0x07 };
	struct unknown key = { bytes, sizeof(bytes), NULL },
		       of_region = { bytes, sizeof(bytes), NULL };
	struct cbor_out first, second;
	struct err e = ERR_INIT;
	struct trace t, back;

	make(&t);
	t.unknown = &key;
	t.regions[0].unknown = &of_region;
	encode(&first, &t);
	ok(trace_decode(&back, first.buf, first.len, &e) == 0 && back.unknown != NULL &&
		back.regions[0].unknown != NULL,
	    "keys that are not known are taken %s", e.msg);
	encode(&second, &back);
	ok(first.len == second.len && memcmp(first.buf, second.buf, first.len) == 0,
	    "and kept");
	cbor_out_free(&first);
	cbor_out_free(&second);
	trace_free(&t);
	trace_free(&back);
}

/* ---- files ---- */

static void
test_file(void)
{
	char path[] = "test-trace.XXXXXX";
	struct err e = ERR_INIT;
	struct trace t, back;
	struct out *out = NULL;
	struct stat st;
	int fd = mkstemp(path);

	close(fd);
	unlink(path);
	make(&t);
	ok(out_open(&out, path, false, &e) == 0 && access(path, F_OK) == -1 &&
		trace_write(out, &t, &e) == 0 && stat(path, &st) == 0 &&
		(st.st_mode & 0777) == 0600,
	    "a trace is published, for its owner: %s", e.msg);
	out_free(out);
	ok(trace_read_file(&back, path, &e) == 0 && same_runs(&back, runs_a, COUNT(runs_a)),
	    "and read: %s", e.msg);
	trace_free(&back);
	ok(truncate(path, 100) == 0 && trace_read_file(&back, path, &e) == -1 &&
		e.kind == ERR_CORRUPT && strncmp(e.msg, path, strlen(path)) == 0,
	    "cut short it is refused by name: %s", e.msg);
	trace_free(&back);
	ok(truncate(path, (off_t)TRACE_SIZE_MAX + 1) == 0 &&
		trace_read_file(&back, path, &e) == -1 && strstr(e.msg, "more than") != NULL,
	    "too long it is not read to its end: %s", e.msg);
	trace_free(&back);
	unlink(path);
	ok(trace_read_file(&back, path, &e) == -1 && e.kind == ERR_SYS, "no file: %s", e.msg);
	trace_free(&back);
	trace_free(&t);
}

int
main(void)
{
	test_round_trip();
	test_empty();
	test_damage();
	test_hostile();
	test_not_written();
	test_limits();
	test_runs();
	test_resolve();
	test_overlap();
	test_pieces();
	test_unknown();
	test_file();
	return done();
}
