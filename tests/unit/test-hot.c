/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/endian.h>
#include <unistd.h>

#include "base/ckd.h"
#include "format/header.h"
#include "image/hot.h"
#include "image/image.h"
#include "image/reader.h"
#include "image/verify.h"
#include "reseal.h"
#include "small-image.h"
#include "tap.h"

/* Images with a hot section: written and read back, damaged, and lying. */

static const char path[] = "test-hot.gmem";

static bool
verifies(const struct image *img, struct err *e)
{
	struct verify_result v;

	return image_verify(img, 1, NULL, NULL, &v, e) == 0;
}

static bool
reads_back(const struct image *img, const uint8_t *mem, size_t len, struct err *e)
{
	const struct object *ram = manifest_region(&img->manifest, "ram");
	struct image_reader *r = NULL;
	uint8_t *copy = malloc(len);
	bool same;

	same = image_reader_new(&r, img, e) == 0 &&
	       image_reader_read(r, ram, 0, copy, len, e) == 0 && memcmp(copy, mem, len) == 0;
	/* Bytes that begin and end anywhere. */
	for (size_t off = 1; same && off + 9000 < len; off += 70001)
		same = image_reader_read(r, ram, off, copy, 9000, e) == 0 &&
		       memcmp(copy, mem + off, 9000) == 0;
	image_reader_free(r);
	free(copy);
	return same;
}

/* The list is what was written, and each page is found, and is what it was. */
static bool
list_is(const struct image *img, const uint8_t *mem, const struct hot_page *hot, size_t n,
    struct err *e)
{
	const struct object *ram = manifest_region(&img->manifest, "ram");
	const struct hot_list *list;
	struct image_reader *r = NULL;
	bool same;

	same = image_hot(img, &list, e) == 0 && list != NULL && list->n == n &&
	       image_reader_new(&r, img, e) == 0;
	for (size_t i = 0; same && i < n; i++) {
		const struct hot_page *p = &list->pages[i];
		const uint8_t *bytes;
		struct place place;

		same = p->page == hot[i].page && p->at == hot[i].at && p->region == 0 &&
		       hot_find(list, 0, p->page) == p->at &&
		       hot_find(list, 1, p->page) == HOT_ZERO &&
		       image_reader_place(r, ram, p->page, &place, e) == (p->at != HOT_ZERO);
		if (same && p->at != HOT_ZERO)
			same = place.object == list->object &&
			       place.chunk == p->at / img->g.pages &&
			       place.rank == p->at % img->g.pages &&
			       image_reader_get(r, &place, &bytes, e) == 0 &&
			       memcmp(bytes, mem + p->page * 4096, 4096) == 0;
	}
	image_reader_free(r);
	return same;
}

/* n pages of npages, each once, in no order. */
static struct hot_page *
choose(size_t npages, size_t n, uint64_t seed)
{
	struct hot_page *all = calloc(npages, sizeof(*all));

	for (size_t i = 0; i < npages; i++)
		all[i].page = i;
	for (size_t i = 0; i < n; i++) {
		size_t k = i + random_next(&seed) % (npages - i);
		struct hot_page t = all[i];

		all[i] = all[k];
		all[k] = t;
	}
	return all;
}

static void
test_round_trip(size_t len, unsigned density, uint32_t chunk_size, size_t n)
{
	struct hot_page *hot = choose(len / 4096, n, len + n);
	uint8_t *mem = malloc(len);
	struct err e = ERR_INIT;
	struct image *img = NULL;
	bool good;

	fill_memory(mem, len, density, len + density + chunk_size);
	good = small_hot_image(path, mem, len, chunk_size, hot, n, NULL, &e) == 0 &&
	       image_open(&img, path, &e) == 0;
	ok(good && verifies(img, &e) && reads_back(img, mem, len, &e),
	    "%zu of %zu pages hot, %u/16 full, chunks of %u: %s", n, len / 4096, density,
	    chunk_size, e.msg);
	ok(good && list_is(img, mem, hot, n, &e), "and the list is right: %s", e.msg);
	image_close(img);
	free(mem);
	free(hot);
}

/* ---- damaged ---- */

static uint8_t *image;
static size_t image_len;

static uint8_t small_memory[16 * 4096];
static struct hot_page small_hot[] = { { .page = 9 }, { .page = 2 }, { .page = 5 },
	{ .page = 15 }, { .page = 0 } };

#define SMALL_HOT (sizeof(small_hot) / sizeof(small_hot[0]))

static void
make_small(void)
{
	struct err e = ERR_INIT;
	struct stat st;
	int fd;

	for (unsigned i = 0; i < 16; i++)
		if (i != 5 && i != 7)
			memset(small_memory + (size_t)i * 4096, 'a' + (int)i, 4096);
	if (small_hot_image(path, small_memory, sizeof(small_memory), 16384, small_hot,
		SMALL_HOT, NULL, &e) == -1)
		abort();
	fd = open(path, O_RDONLY);
	fstat(fd, &st);
	image_len = (size_t)st.st_size;
	image = malloc(image_len);
	if (image == NULL || read(fd, image, image_len) != (ssize_t)image_len)
		abort();
	close(fd);
}

static struct image *
open_bytes(const uint8_t *bytes, size_t len, struct err *e)
{
	int fd = memfd_create("test-hot", MFD_CLOEXEC);
	struct image *img;

	if (fd == -1 || write(fd, bytes, len) != (ssize_t)len)
		abort();
	return image_open_fd(&img, fd, "image", e) == 0 ? img : NULL;
}

/* What comes of an image: an error, or the very bytes. */
static bool
error_or_same(const uint8_t *bytes, size_t len, unsigned *errors)
{
	struct err e = ERR_INIT;
	struct image *img = open_bytes(bytes, len, &e);
	struct image_reader *r = NULL;
	uint8_t copy[sizeof(small_memory)];
	bool good = true, read;

	if (img == NULL) {
		++*errors;
		return e.kind == ERR_CORRUPT || e.kind == ERR_INCOMPLETE ||
		       e.kind == ERR_UNSUPPORTED;
	}
	read = image_reader_new(&r, img, &e) == 0 && img->manifest.nregions == 1 &&
	       img->manifest.regions[0].size == sizeof(copy) &&
	       image_reader_read(r, &img->manifest.regions[0], 0, copy, sizeof(copy), &e) == 0;
	if (read)
		good = memcmp(copy, small_memory, sizeof(copy)) == 0;
	if (!verifies(img, &e))
		++*errors;
	else
		good = good && read;
	image_reader_free(r);
	image_close(img);
	return good;
}

static void
test_damage(void)
{
	unsigned good = 0, errors = 0, all = (unsigned)image_len * 8;

	for (size_t i = 0; i < image_len * 8; i++) {
		image[i / 8] ^= (uint8_t)(1u << i % 8);
		good += error_or_same(image, image_len, &errors);
		image[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	ok(good == all, "%u of %u bit flips are errors or equal bytes", good, all);
	/* The minor version, compatible features, and the state STRM for DONE are others. */
	ok(errors > all - 8 * 10, "%u of them are errors", errors);
	good = errors = 0;
	for (size_t n = 0; n < image_len; n++)
		good += error_or_same(image, n, &errors);
	ok(good == image_len && errors == image_len, "%u of %zu truncations are errors", errors,
	    image_len);
}

/* ---- lies ---- */

static struct image *now; /* the image as it was, to find things in it */

static uint8_t *
leaf(const struct object *o)
{
	return image + o->top.offset + SKIP_SIZE;
}

/* The entry of chunk `chunk` of the region. */
static uint8_t *
region_entry(unsigned chunk)
{
	return leaf(&now->manifest.regions[0]) + (size_t)chunk * now->g.entry_size;
}

static void
hot_bit_gone(void)
{
	/* Page 9 is page 1 of chunk 2, stored and hot: then it is zero. */
	region_entry(2)[24] &= 0xfd;
	region_entry(2)[28] &= 0xfd;
}

static void
hot_bit_elsewhere(void)
{
	hot_bit_gone();
	/* Page 7, page 3 of chunk 1, is zero. */
	region_entry(1)[24] |= 8;
	region_entry(1)[28] |= 8;
}

static void
hot_bit_only(void)
{
	region_entry(2)[24] &= 0xfd;
}

/* Chunks 0 and 1 have records of one length: one of them twice, the other not at all. */
static void
record_twice(void)
{
	if (le32dec(region_entry(0) + 8) != le32dec(region_entry(1) + 8))
		abort();
	memcpy(region_entry(0), region_entry(1), 24);
}

static void
header_bit_gone(void)
{
	le64enc(image + 32, 0);
}

static void
header_bit_unknown(void)
{
	le64enc(image + 32, INCOMPAT_HOT | INCOMPAT_DEDUP);
}

struct hostile {
	const char *name;
	void (*spoil)(void);
	enum reseal how;
	bool opens;
	const char *says;
};

static void
link_counts(void)
{
	/* In the manifest: "hot" of the region's top. */
	uint8_t top[LINK_SIZE], *found;

	link_encode(top, &now->manifest.regions[0].top);
	found = memmem(image, image_len, top, LINK_SIZE);
	if (found == NULL)
		abort();
	le64enc(found + 24, now->manifest.regions[0].top.hot - 1);
}

static void
hot_pages_hot(void)
{
	uint8_t top[LINK_SIZE], *found;

	link_encode(top, &now->manifest.hot->pages.top);
	found = memmem(image, image_len, top, LINK_SIZE);
	if (found == NULL)
		abort();
	le64enc(found + 24, 1);
}

static const struct hostile cases[] = {
	{ "a hot page that its index calls zero", hot_bit_gone, RESEAL_INDEX, true,
	    "counts 3 hot pages" },
	{ "another page than the table's", hot_bit_elsewhere, RESEAL_COUNTS, true,
	    "is not in the hot table" },
	{ "a page that is hot and not stored", hot_bit_only, RESEAL_INDEX, true, "reserved" },
	{ "a record for two chunks", record_twice, RESEAL_COUNTS, true, "overlap" },
	{ "a section that the header does not tell of", header_bit_gone, RESEAL_ENDS, false,
	    "does not tell of" },
	{ "another feature too", header_bit_unknown, RESEAL_ENDS, false, "features 0x4" },
	{ "a count of the top", link_counts, RESEAL_ENDS, false, "3 hot pages" },
	{ "hot pages that are hot", hot_pages_hot, RESEAL_ENDS, false,
	    "its own pages are hot" },
};

static void
test_hostile(const struct hostile *c)
{
	uint8_t *good = malloc(image_len);
	struct err e = ERR_INIT;
	struct image *img;
	bool noticed, same;
	unsigned errors = 0;

	memcpy(good, image, image_len);
	c->spoil();
	reseal(image, image_len, c->how);
	img = open_bytes(image, image_len, &e);
	noticed = img == NULL || !verifies(img, &e);
	ok(noticed && (img != NULL) == c->opens && strstr(e.msg, c->says) != NULL, "%s: %s",
	    c->name, e.msg);
	image_close(img);
	same = error_or_same(image, image_len, &errors);
	ok(errors == 1 && (same || c->opens), "%s: an error", c->name);
	memcpy(image, good, image_len);
	free(good);
}

/* ---- tables that lie ---- */

static void
test_table(const char *name, struct hot_page lie, const char *says)
{
	struct hot_page table[SMALL_HOT];
	struct err e = ERR_INIT;
	const struct hot_list *list;
	struct image *img = NULL;
	bool refused;

	memcpy(table, small_hot, sizeof(table));
	table[3] = lie;
	if (small_hot_image(path, small_memory, sizeof(small_memory), 16384, small_hot,
		SMALL_HOT, table, &e) == -1)
		abort();
	refused = image_open(&img, path, &e) == 0 &&
		  (says == NULL || (image_hot(img, &list, &e) == -1 && list == NULL));
	ok(refused && (says == NULL || strstr(e.msg, says) != NULL), "%s: %s", name, e.msg);
	ok(refused && !verifies(img, &e) && e.kind == ERR_CORRUPT, "%s: does not verify: %s",
	    name, e.msg);
	image_close(img);
}

/* Says that it has many pages, in a table of zeros. */
static void
test_long_table(uint64_t size, const char *says)
{
	struct err e = ERR_INIT;
	struct manifest m = { .tool = "x", .codec = "zstd" };
	struct cbor_out out;

	m.hot = manifest_new_hot(&m);
	m.hot->table.size = size;
	ok(manifest_encode(&out, &m, &e) == -1 && strstr(e.msg, says) != NULL, "%s", e.msg);
	manifest_free(&m);
}

int
main(void)
{
	struct err e = ERR_INIT;

	test_round_trip(1 << 20, 8, 65536, 100);
	test_round_trip(1 << 20, 8, 4096, 100);
	test_round_trip(4 << 20, 12, 2 << 20, 700);
	test_round_trip(1 << 20, 16, 65536, 256);
	test_round_trip(1 << 20, 0, 65536, 10);
	test_round_trip(33 << 20, 3, 4096, 6000);
	test_round_trip(4096, 16, 65536, 1);
	make_small();
	test_damage();
	now = open_bytes(image, image_len, &e);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		test_hostile(&cases[i]);
	test_table(
	    "a region that is not there", (struct hot_page){ 15, 1, 0 }, "region 1 of 1");
	test_table("a page behind the end", (struct hot_page){ 16, 0, 0 }, "behind the end");
	test_table("a page twice", (struct hot_page){ 2, 0, 0 }, "are the same page");
	test_table("a zero for a page", (struct hot_page){ 15, 0, HOT_ZERO },
	    "3 pages are not zero, 4");
	test_table("another page", (struct hot_page){ 1, 0, 0 }, NULL);
	small_hot[3] = small_hot[2];
	small_hot[2] = (struct hot_page){ .page = 15 };
	test_table("a page of zeros that is none", (struct hot_page){ 1, 0, HOT_ZERO }, NULL);
	test_long_table(HOT_PAGES_MAX * UINT64_C(8) + 8, "33554440 bytes");
	test_long_table(UINT64_C(1) << 50, "too many");
	test_long_table(12, "12 bytes");
	test_long_table(0, "is empty");
	image_close(now);
	free(image);
	unlink(path);
	return done();
}
