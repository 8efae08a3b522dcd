/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/header.h"
#include "format/trace.h"
#include "format/trailer.h"
#include "fuzz.h"
#include "image/hot-write.h"
#include "image/hot.h"
#include "image/image.h"
#include "image/pack.h"
#include "image/reader.h"
#include "image/verify.h"
#include "image/writer.h"
#include "small-image.h"
#include "tap.h"

/*
 * Bits of a small image with all features are flipped one by one, and it is cut at every
 * length, before it is opened and after: what comes is an error that names the file and a
 * place, or the very bytes.  With GMEM_TEST_BIG=1 every single bit, which takes minutes.  The
 * same for a trace.
 */
#define CHUNK 8192u
#define NOBJECTS 4

/* There with sanitizers. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
    void (*)(const volatile void *)) __attribute__((weak));

static const char path[] = "test-image-flips.gmem", name[] = "vm.gmem";

static struct {
	const char *name;
	bool state;
	size_t size;
	uint8_t *bytes;
	size_t stored; /* pages that are not zero */
} objects[NOBJECTS] = {
	{ .name = "device", .state = true, .size = 100 },
	{ .name = "cpu", .state = true, .size = 5000 },
	{ .name = "ram" }, /* as large as it takes for an index of two levels */
	{ .name = "video", .size = 5 * PAGE_GRANULE },
};

/* Of region 0 and 1: there is a page, of zeros, and a chunk of which nothing else is stored. */
static struct hot_page hot[] = {
	{ .region = 0, .page = 3 },
	{ .region = 1, .page = 4 },
	{ .region = 0, .page = 40 },
	{ .region = 0, .page = 2 },
};
#define NHOT (sizeof(hot) / sizeof(hot[0]))

static struct {
	uint8_t *good; /* the image */
	size_t size;
	int fd; /* a memory object, where it is damaged */
	uint8_t *map; /* of that */
} file;

/* What the last try gave. */
static enum { ERROR, EQUAL, WRONG } outcome;
static struct err told;
static bool cut_late; /* to `late` bytes, when it is open */
static size_t late;
static bool verifying;

/* ---- making it ---- */

static void
fill(void)
{
	struct geometry g;
	struct err e;

	must(geometry_init(&g, CHUNK, &e) == 0);
	objects[2].size = (size_t)(g.leaf_fanout + 2) * CHUNK;
	for (unsigned i = 0; i < NOBJECTS; i++) {
		objects[i].bytes = calloc(1, align_up(objects[i].size, PAGE_GRANULE));
		must(objects[i].bytes != NULL);
		fill_memory(objects[i].bytes, MIN(objects[i].size, 6 * PAGE_GRANULE), 16, i);
	}
	/* A chunk of zeros, one page of two, and something in the last leaf. */
	memset(objects[2].bytes, 0, CHUNK);
	memset(objects[2].bytes + 5 * PAGE_GRANULE, 0, PAGE_GRANULE);
	fill_memory(objects[2].bytes + 2 * PAGE_GRANULE, 2 * PAGE_GRANULE, 16, 77);
	memset(objects[2].bytes + objects[2].size - 3000, 'x', 3000);
	for (unsigned i = 0; i < NOBJECTS; i++)
		for (size_t off = 0; off < objects[i].size; off += PAGE_GRANULE)
			objects[i].stored += !memory_is_zero(
			    objects[i].bytes + off, MIN(objects[i].size - off, PAGE_GRANULE));
}

static int
put_chunks(struct image_writer *w, const uint8_t *bytes, size_t size, const struct hot_set *set,
    uint32_t region, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *record = malloc(packer_bound(g));
	uint64_t mask[CHUNK_PAGES_MAX / 64];
	struct packer *p = NULL;
	struct entry en;
	int rc = packer_new(&p, g, 1, e);

	for (size_t off = 0; off < size && rc == 0; off += CHUNK) {
		hot_set_mask(set, g, region, off / CHUNK, mask);
		if (packer_pack_cold(
			p, bytes + off, MIN(size - off, CHUNK), mask, &en, record, e) == -1 ||
		    image_writer_chunk(w, off / CHUNK, &en, record, e) == -1)
			rc = -1;
	}
	packer_free(p);
	free(record);
	return rc == 0 ? image_writer_end(w, 0, e) : -1;
}

static int
put_hot(struct image_writer *w, struct err *e)
{
	uint8_t pages[NHOT * PAGE_GRANULE] = { 0 };
	uint32_t at = 0;

	for (size_t i = 0; i < NHOT; i++) {
		const uint8_t *page =
		    objects[2 + hot[i].region].bytes + hot[i].page * PAGE_GRANULE;

		hot[i].at = memory_is_zero(page, PAGE_GRANULE) ? HOT_ZERO : at;
		if (hot[i].at != HOT_ZERO)
			memcpy(pages + (size_t)at++ * PAGE_GRANULE, page, PAGE_GRANULE);
	}
	if (image_writer_begin_hot(w, HOT_OBJECT_PAGES, (uint64_t)at * PAGE_GRANULE, e) == -1 ||
	    put_chunks(w, pages, (size_t)at * PAGE_GRANULE, NULL, 0, e) == -1)
		return -1;
	return hot_write_table(w, hot, NHOT, 1, e);
}

static int
put_objects(struct image_writer *w, const struct hot_set *set, struct err *e)
{
	for (unsigned i = 0; i < NOBJECTS; i++) {
		struct segment segment = { i << 24, 0, objects[i].size };
		struct object o = { .name = objects[i].name,
			.kind = objects[i].state ? "test" : "memfd",
			.size = objects[i].size,
			.page_size = objects[i].state ? 0 : PAGE_GRANULE,
			.segments = &segment,
			.nsegments = !objects[i].state };

		if (image_writer_begin(w, &o, objects[i].state, e) == -1 ||
		    put_chunks(w, objects[i].bytes, objects[i].size,
			objects[i].state ? NULL : set, i - 2, e) == -1)
			return -1;
	}
	return 0;
}

static int
make(struct err *e)
{
	const struct image_params params = {
		.chunk_size = CHUNK, .level = 1, .replace = true, .hot = true
	};
	struct unknown key = { (const uint8_t *)"\x67unknown\x81\x07", 10, NULL };
	struct pair note = { "purpose", "test" }, fact = { "kind", "nothing" };
	struct image_writer *w = NULL;
	struct hot_set *set = NULL;
	uint8_t root[DIGEST_SIZE];
	char *text;
	int rc = -1;

	if (image_writer_new(&w, path, &params, e) == -1)
		return -1;
	image_writer_manifest(w)->annotations = (struct pairs){ &note, 1 };
	image_writer_manifest(w)->vmm = (struct pairs){ &fact, 1 };
	image_writer_manifest(w)->unknown = &key;
	if (put_hot(w, e) == 0 && hot_set_new(&set, hot, NHOT, e) == 0 &&
	    put_objects(w, set, e) == 0 && image_writer_commit(w, root, e) == 0 &&
	    fd_slurp(path, 1 << 20, &text, &file.size, e) == 0) {
		file.good = (uint8_t *)text;
		rc = 0;
	}
	hot_set_free(set);
	image_writer_free(w);
	unlink(path);
	return rc;
}

/* ---- reading it ---- */

/* Pages of a chunk that are not zero, or -1; 1000 for one that is wrong. */
static int
check_chunk(struct image_reader *r, const struct object *o, const uint8_t *bytes,
    uint64_t chunk, struct err *e)
{
	uint64_t npages = div_up(o->size, PAGE_GRANULE);
	const uint8_t *content;
	struct place p;
	int n = 0;

	for (uint64_t page = chunk * 2; page < MIN(npages, chunk * 2 + 2); page++) {
		int there = image_reader_place(r, o, page, &p, e);

		if (there == -1 || (there == 1 && image_reader_get(r, &p, &content, e) == -1))
			return -1;
		if (there == 0)
			continue;
		if (memcmp(content, bytes + page * PAGE_GRANULE, PAGE_GRANULE) != 0)
			return 1000;
		n += !memory_is_zero(content, PAGE_GRANULE);
	}
	return n;
}

static int
check_object(struct image_reader *r, const struct image *img, unsigned i, struct err *e)
{
	const struct object *o = objects[i].state
				     ? manifest_state(&img->manifest, objects[i].name)
				     : manifest_region(&img->manifest, objects[i].name);
	uint64_t chunk = 0;
	struct entry en;
	size_t found = 0;
	int more, n;

	if (o == NULL || o->size != objects[i].size)
		return 1;
	while ((more = image_reader_next(r, o, chunk, &chunk, &en, e)) == 1) {
		n = check_chunk(r, o, objects[i].bytes, chunk++, e);
		if (n == -1)
			return -1;
		found += (size_t)n;
	}
	return more == -1 ? -1 : found != objects[i].stored;
}

/* 0; 1: it is other; -1 */
static int
check_hot(const struct image *img, struct err *e)
{
	const struct hot_list *list;

	if (image_hot(img, &list, e) == -1)
		return -1;
	if (list == NULL || list->n != NHOT)
		return 1;
	for (size_t i = 0; i < NHOT; i++)
		if (list->pages[i].region != hot[i].region ||
		    list->pages[i].page != hot[i].page || list->pages[i].at != hot[i].at)
			return 1;
	return 0;
}

static int
check_all(const struct image *img, struct err *e)
{
	struct image_reader *r = NULL;
	int rc = image_reader_new(&r, img, e) == -1 ? -1 : check_hot(img, e);

	for (unsigned i = 0; i < NOBJECTS && rc == 0; i++)
		rc = check_object(r, img, i, e);
	image_reader_free(r);
	return rc;
}

static int
read_all(struct err *e)
{
	struct verify_result v;
	struct image *img;
	int rc;

	if (image_open_fd(&img, dup(file.fd), name, e) == -1)
		return -1;
	if (cut_late)
		must(ftruncate(file.fd, (off_t)late) == 0);
	rc = verifying ? image_verify(img, 1, NULL, NULL, &v, e) : check_all(img, e);
	image_close(img);
	return rc;
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	int rc;

	(void)data;
	(void)size;
	told = (struct err)ERR_INIT;
	rc = read_all(&told);
	outcome = rc == -1 ? ERROR : rc == 0 ? EQUAL : WRONG;
	return 0;
}

/* With all that has been done to it; fuzz.c counts what it costs. */
static void
try(void)
{
	LLVMFuzzerTestOneInput(file.map, file.size);
}

/* ---- judging ---- */

/* Outside-in: the file, and then something of it. */
static bool
names_place(const struct err *e)
{
	static const char *const places[] = { "byte", "header", "manifest", "trailer",
		"root hash", "hot table", "chunk at", "not a gmem image", "bytes", "feature",
		"format" };

	if (strncmp(e->msg, name, strlen(name)) != 0 || strchr(e->msg, '\n') != NULL)
		return false;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (strstr(e->msg + strlen(name), places[i]) != NULL)
			return true;
	return false;
}

static size_t bad, equal, tries;

static void
judge(const char *what, size_t where)
{
	equal += outcome == EQUAL;
	if (outcome != WRONG && (outcome == EQUAL || names_place(&told)))
		return;
	if (bad++ < 10)
		printf(
		    "# %s %zu: %s\n", what, where, outcome == WRONG ? "other bytes" : told.msg);
}

static void
flip(size_t byte, unsigned bit)
{
	file.map[byte] ^= (uint8_t)(1 << bit);
	try();
	judge("bit", byte * 8 + bit);
	file.map[byte] ^= (uint8_t)(1 << bit);
	tries++;
}

/* Bytes of which every bit counts: header, manifest and trailer, and what is used of nodes. */
static uint8_t *all_bits;

static void
mark(size_t off, size_t len, bool zeros)
{
	for (size_t i = off; i < off + len; i++)
		all_bits[i] = zeros || file.good[i] != 0;
}

static void
mark_node(void *arg, uint64_t offset)
{
	(void)arg;
	mark(offset, NODE_FRAME_SIZE, false);
}

static void
mark_metadata(void)
{
	struct image_reader *r;
	struct image *img;
	uint64_t n;
	size_t end;

	all_bits = calloc(1, file.size);
	must(all_bits != NULL && image_open_fd(&img, dup(file.fd), name, &told) == 0 &&
	     image_reader_new(&r, img, &told) == 0);
	end = SKIP_SIZE + img->manifest_length + TRAILER_SIZE;
	mark(0, HEADER_SIZE, true);
	mark(file.size - end, end, true);
	for (size_t i = 0; i < img->manifest.nregions; i++)
		image_reader_nodes(r, &img->manifest.regions[i], mark_node, NULL, &n, &told);
	for (size_t i = 0; i < img->manifest.nstates; i++)
		image_reader_nodes(r, &img->manifest.states[i], mark_node, NULL, &n, &told);
	image_reader_nodes(r, &img->manifest.hot->pages, mark_node, NULL, &n, &told);
	image_reader_nodes(r, &img->manifest.hot->table, mark_node, NULL, &n, &told);
	image_reader_free(r);
	image_close(img);
}

static void
flip_all(bool every, size_t step)
{
	bad = equal = tries = 0;
	for (size_t i = 0; i < file.size; i += step)
		for (unsigned bit = 0; bit < 8; bit++)
			if (every || (step == 1 && all_bits[i]) || bit == i * 5 % 8)
				flip(i, bit);
}

/* From its end on, so that what is cut off need not come back. */
static void
cut_all(void)
{
	bad = equal = 0;
	for (size_t len = file.size; len-- > 0;) {
		must(ftruncate(file.fd, (off_t)len) == 0);
		try();
		judge("length", len);
	}
	must(ftruncate(file.fd, (off_t)file.size) == 0);
	memcpy(file.map, file.good, file.size);
}

/* It was whole when it was opened. */
static void
cut_all_late(size_t step)
{
	bad = equal = 0;
	cut_late = true;
	for (late = file.size; late >= step; late -= step) {
		try();
		judge("cut to", late);
		must(ftruncate(file.fd, (off_t)file.size) == 0);
		memcpy(file.map + late, file.good + late, file.size - late);
	}
	cut_late = false;
}

static void
grow(void)
{
	bad = equal = 0;
	for (size_t more = 1; more < 9000; more = more * 3 + 1)
		for (int with = 0; with < 2; with++) {
			must(ftruncate(file.fd, (off_t)(file.size + more)) == 0);
			for (size_t i = 0; with && i < more; i++)
				must(pwrite(file.fd, &file.good[i % file.size], 1,
					 (off_t)(file.size + i)) == 1);
			try();
			judge("grown by", more);
			must(ftruncate(file.fd, (off_t)file.size) == 0);
		}
}

/* With fuzz.c's hooks everything takes ten times as long, and more. */
static void
test_image(bool big)
{
	size_t slow = __sanitizer_install_malloc_and_free_hooks != NULL && !big ? 23 : 1;
	struct err e;

	fill();
	if (!ok(make(&e) == 0, "an image with all features"))
		return;
	file.fd = memfd_create("flips", MFD_CLOEXEC);
	must(file.fd != -1 && ftruncate(file.fd, (off_t)file.size) == 0);
	file.map = mmap(NULL, file.size, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
	must(file.map != MAP_FAILED);
	memcpy(file.map, file.good, file.size);
	printf("# %zu bytes\n", file.size);
	try();
	ok(outcome == EQUAL, "it is read");
	verifying = true;
	try();
	ok(outcome == EQUAL, "and verified");
	verifying = false;
	mark_metadata();
	flip_all(big, slow);
	ok(bad == 0, "%s, %zu errors, %zu times the same bytes",
	    big ? "every bit flipped" : "every bit of the metadata flipped, one of others",
	    tries - equal, equal);
	free(all_bits);
	cut_all();
	ok(bad == 0 && equal == 0, "cut at every length");
	cut_all_late(big ? 1 : 7 * slow);
	ok(bad == 0, "cut at every length when it is open, %zu times what is read is there",
	    equal);
	grow();
	ok(bad == 0 && equal == 0, "grown");
	verifying = true;
	flip_all(false, 13 * slow);
	ok(bad == 0, "verify, every 13th byte");
	cut_all_late(97 * slow);
	/* What was read to open it is not read again. */
	ok(bad == 0, "verify, cut while it is open");
}

/* ---- a trace ---- */

static const struct trace_run runs[] = { { .page = 3, .npages = 2, .access = TRACE_READ },
	{ .region = 1, .page = 0, .npages = 4, .access = TRACE_WRITE },
	{ .page = 9, .npages = 1, .access = TRACE_READ } };

/* 1: the same; 0: another; -1 */
static int
read_trace(const uint8_t *bytes, size_t size, struct err *e)
{
	struct trace t;
	int rc = trace_decode(&t, bytes, size, e);

	if (rc == 0)
		rc = t.nruns == 3 && memcmp(t.runs, runs, sizeof(runs)) == 0;
	trace_free(&t);
	return rc;
}

static void
test_trace(void)
{
	const struct object regions[] = {
		{ .name = "ram", .kind = "memfd", .size = 1 << 20, .page_size = PAGE_GRANULE },
		{ .name = "video", .kind = "memfd", .size = 1 << 16, .page_size = PAGE_GRANULE }
	};
	uint8_t root[DIGEST_SIZE] = { 1 };
	struct cbor_out out = { 0 };
	size_t wrong = 0, cut = 0, silent = 0;
	struct trace t = { 0 };
	struct err e = ERR_INIT;

	must(trace_init(&t, regions, 2, root, &e) == 0);
	t.end = TRACE_END_EXIT;
	must(trace_set_runs(&t, runs, 3, &e) == 0 && trace_encode(&out, &t, &e) == 0);
	trace_free(&t);
	ok(read_trace(out.buf, out.len, &e) == 1, "a trace is read");
	for (size_t bit = 0; bit < 8 * out.len; bit++) {
		int rc;

		out.buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		e = (struct err)ERR_INIT;
		rc = read_trace(out.buf, out.len, &e);
		wrong += rc != -1;
		silent += rc == -1 && (e.kind == ERR_NONE || e.msg[0] == '\0');
		out.buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	ok(wrong == 0 && silent == 0,
	    "every bit of it flipped, an error each: %zu not, %zu silent", wrong, silent);
	for (size_t len = 0; len < out.len; len++)
		cut += read_trace(out.buf, len, &e) != -1;
	ok(cut == 0, "cut at every length");
	cbor_out_free(&out);
}

int
main(void)
{
	struct rusage before, after;

	/* Memory that is used again need not be cleared again. */
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	getrusage(RUSAGE_SELF, &before);
	test_image(getenv("GMEM_TEST_BIG") != NULL);
	test_trace();
	getrusage(RUSAGE_SELF, &after);
	/* Where there are no hooks to count by. */
	if (tap_under_valgrind())
		skip(1, "memory is not measured under sanitizers or valgrind");
	else
		ok(after.ru_maxrss - before.ru_maxrss < 16 << 10 ||
			__sanitizer_install_malloc_and_free_hooks != NULL,
		    "all in little memory: %ld KiB", after.ru_maxrss - before.ru_maxrss);
	return done();
}
