/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "image/image.h"
#include "image/reader.h"
#include "image/verify.h"
#include "small-image.h"
#include "tap.h"

/* Images written and read back: equal bytes, page by page and as a whole. */

static const char path[] = "test-image.gmem";

/* Whether the image verifies and every byte of its region is what it was. */
static bool
reads_back(int fd, const uint8_t *mem, size_t len, struct err *e)
{
	struct image_reader *r = NULL;
	struct image *img = NULL;
	uint8_t *copy = malloc(len);
	struct verify_result verified;
	bool same = false;

	if (image_open_fd(&img, dup(fd), path, e) == 0 &&
	    image_verify(img, 1, NULL, NULL, &verified, e) == 0 &&
	    image_reader_new(&r, img, e) == 0 &&
	    image_reader_read(r, manifest_region(&img->manifest, "ram"), 0, copy, len, e) == 0)
		same = memcmp(copy, mem, len) == 0;
	image_reader_free(r);
	image_close(img);
	free(copy);
	return same;
}

static bool
round_trip(const uint8_t *mem, size_t len, uint32_t chunk_size, struct err *e)
{
	bool same;
	int fd;

	if (small_image(path, mem, len, chunk_size, e) == -1)
		return false;
	fd = open(path, O_RDONLY);
	same = reads_back(fd, mem, len, e);
	close(fd);
	return same;
}

static void
test_round_trip(size_t len, unsigned density, uint32_t chunk_size)
{
	struct err e = ERR_INIT;
	uint8_t *mem = malloc(len);
	bool good;

	fill_memory(mem, len, density, len + density + chunk_size);
	good = round_trip(mem, len, chunk_size, &e);
	ok(good, "%zu bytes, %u/16 full, chunks of %u: %s", len, density, chunk_size, e.msg);
	free(mem);
}

/* Single pages out of order are the pages that were stored. */
static void
test_pages(uint32_t chunk_size)
{
	size_t len = 1 << 20;
	struct err e = ERR_INIT;
	struct image_reader *r = NULL;
	struct image *img = NULL;
	uint8_t *mem = malloc(len);
	uint64_t seed = 7;
	unsigned good = 0, stored = 0;

	fill_memory(mem, len, 12, 99);
	if (small_image(path, mem, len, chunk_size, &e) == -1 ||
	    image_open(&img, path, &e) == -1 || image_reader_new(&r, img, &e) == -1)
		goto out;
	for (int i = 0; i < 500; i++) {
		const struct object *ram = manifest_region(&img->manifest, "ram");
		uint32_t page = (uint32_t)(random_next(&seed) >> 20) % (uint32_t)(len / 4096);
		uint32_t in_chunk = page % img->g.pages;
		const uint8_t *got;
		struct entry en;

		if (image_reader_entry(r, ram, page / img->g.pages, &en, &e) == -1)
			goto out;
		if (!entry_is_stored(&en, in_chunk))
			continue;
		stored++;
		if (image_reader_load(r, ram, page / img->g.pages, &en, &e) == -1 ||
		    image_reader_page(r, entry_rank(&en, in_chunk), &got, &e) == -1)
			goto out;
		good += memcmp(got, mem + (size_t)page * 4096, 4096) == 0;
	}
out:
	ok(stored > 200 && good == stored, "%u of %u random pages, chunks of %u: %s", good,
	    stored, chunk_size, e.msg);
	image_reader_free(r);
	image_close(img);
	free(mem);
}

static uint8_t *
slurp(size_t *len)
{
	struct stat st;
	uint8_t *buf;
	int fd = open(path, O_RDONLY);

	if (fd == -1 || fstat(fd, &st) == -1)
		abort();
	*len = (size_t)st.st_size;
	buf = malloc(*len);
	if (pread(fd, buf, *len, 0) != st.st_size)
		abort();
	close(fd);
	return buf;
}

/* A file in memory that stands for a damaged image. */
static int
scratch(const uint8_t *image, size_t size)
{
	int fd = memfd_create("damaged", MFD_CLOEXEC);

	if (fd == -1 || pwrite(fd, image, size, 0) != (ssize_t)size)
		abort();
	return fd;
}

/* Every single-bit flip ends in an error or in equal bytes. */
static void
test_flips(const uint8_t *mem, size_t len, const uint8_t *image, size_t size)
{
	unsigned errors = 0, equal = 0, wrong = 0;
	int fd = scratch(image, size);

	for (size_t bit = 0; bit < size * 8; bit++) {
		uint8_t bad = image[bit / 8] ^ (uint8_t)(1 << (bit % 8));
		struct err e = ERR_INIT;

		if (pwrite(fd, &bad, 1, (off_t)(bit / 8)) != 1)
			abort();
		if (reads_back(fd, mem, len, &e))
			equal++;
		else if (e.kind != ERR_NONE)
			errors++;
		else
			wrong++;
		if (pwrite(fd, image + bit / 8, 1, (off_t)(bit / 8)) != 1)
			abort();
	}
	close(fd);
	ok(wrong == 0 && errors > size * 7, "%zu bit flips: %u errors, %u harmless, %u wrong",
	    size * 8, errors, equal, wrong);
}

static void
test_truncations(const uint8_t *mem, size_t len, const uint8_t *image, size_t size)
{
	unsigned errors = 0;
	int fd = scratch(image, size);

	for (size_t n = size; n-- > 0;) {
		struct err e = ERR_INIT;

		if (ftruncate(fd, (off_t)n) == -1)
			abort();
		if (!reads_back(fd, mem, len, &e) && e.kind == ERR_CORRUPT)
			errors++;
	}
	close(fd);
	ok(errors == size, "%u of %zu truncations are noticed", errors, size);
}

static void
test_damage(void)
{
	size_t len = 5 * 4096 + 100, size;
	struct err e = ERR_INIT;
	uint8_t *mem = malloc(len), *image;

	fill_memory(mem, len, 10, 3);
	memset(mem, 0x41, 4096);
	if (small_image(path, mem, len, 16384, &e) == -1)
		abort();
	image = slurp(&size);
	test_flips(mem, len, image, size);
	test_truncations(mem, len, image, size);
	free(image);
	free(mem);
}

static void
test_one_page(void)
{
	struct err e = ERR_INIT;
	size_t len = 4096;
	uint8_t *mem = malloc(len);

	memset(mem, 1, len);
	ok(round_trip(mem, len, 4096, &e), "one page: %s", e.msg);
	free(mem);
}

int
main(void)
{
	static const uint32_t chunks[] = { 4096, 16384, 32768, 65536, 131072, 262144, 1 << 21 };

	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		test_round_trip(3 << 20, 8, chunks[i]);
		test_round_trip((17 << 12) + 1, 16, chunks[i]);
		test_pages(chunks[i]);
	}
	test_round_trip(1 << 20, 0, 65536);
	test_round_trip(40 << 20, 1, 4096);
	test_one_page();
	test_damage();
	unlink(path);
	return done();
}
