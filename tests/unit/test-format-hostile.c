/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/header.h"
#include "format/trailer.h"
#include "image/image.h"
#include "image/reader.h"
#include "image/verify.h"
#include "reseal.h"
#include "tap.h"

/*
 * Images that are wrong on purpose: their checksums and hashes are right.  They are made of
 * the seed "tall", three pages in 33 MiB: a top, two nodes below it, three leaves.
 */
static uint8_t *image;
static size_t image_len;
static uint64_t region_top; /* where the frame of the region's top is */

/* Opens a copy in memory. */
static struct image *
open_copy(struct err *e)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC);
	struct image *img = NULL;

	if (fd == -1 || pwrite(fd, image, image_len, 0) != (ssize_t)image_len)
		abort();
	image_open_fd(&img, fd, "hostile", e);
	return img;
}

static int
verify(const struct image *img, struct err *e)
{
	struct verify_result result;

	return image_verify(img, 2, NULL, NULL, &result, e);
}

/* Reads a byte of each page that is stored, in this order; the first error. */
static int
read_pages(const struct image *img, struct err *e)
{
	const struct object *ram = manifest_region(&img->manifest, "ram");
	static const uint64_t pages[] = { 0, 200, 8447, 0, 8447, 200 };
	struct image_reader *r = NULL;
	uint8_t byte;
	int rc = image_reader_new(&r, img, e);

	for (unsigned i = 0; rc == 0 && i < 6; i++)
		rc = image_reader_read(r, ram, pages[i] * 4096, &byte, 1, e);
	image_reader_free(r);
	return rc;
}

static void
load_seed(void)
{
	const char *top = getenv("abs_top_srcdir");
	struct err e = ERR_INIT;
	char path[4096], *text = NULL;
	struct image *img;

	snprintf(path, sizeof(path), "%s/tests/data/seeds/image/tall", top == NULL ? "." : top);
	if (fd_slurp(path, 1 << 20, &text, &image_len, &e) == -1) {
		printf("Bail out! %s\n", e.msg);
		exit(1);
	}
	image = (uint8_t *)text;
	img = open_copy(&e);
	if (img == NULL ||
	    index_height(&img->g, manifest_region(&img->manifest, "ram")->size) != 2)
		abort();
	region_top = manifest_region(&img->manifest, "ram")->top.offset;
	ok(verify(img, &e) == 0 && read_pages(img, &e) == 0, "the seed is sound: %s", e.msg);
	image_close(img);
}

/* The place of slot i of the node whose frame is at `frame`. */
static uint8_t *
slot(uint64_t frame, unsigned i)
{
	return image + frame + SKIP_SIZE + (size_t)i * LINK_SIZE;
}

/* Left inner node: leaves 0 and 1. */
static uint64_t
left(void)
{
	return le64dec(slot(region_top, 0));
}

static uint64_t
leaf(unsigned i)
{
	return le64dec(slot(left(), i));
}

/* ---- what is done to it ---- */

static void
same_place(void)
{
	/* Leaf 1 is said to be where leaf 0 is, with the counts that leaf 1 has. */
	memcpy(slot(left(), 1), slot(left(), 0), 8);
}

static void
leaf_as_inner(void)
{
	/* The right inner node is said to be leaf 0. */
	memcpy(slot(region_top, 1), slot(left(), 0), LINK_SIZE);
}

static void
shared(void)
{
	for (unsigned i = 0; i < NODE_FANOUT; i++)
		memcpy(slot(left(), i), slot(left(), 0), LINK_SIZE);
}

static void
nothing_with_counts(void)
{
	le64enc(slot(left(), 5) + 8, 1);
}

static void
inherited(void)
{
	le64enc(slot(left(), 0) + 24, 1u << 20);
}

static void
behind_the_end(void)
{
	/* 33 MiB are 66 leaves: the right inner node has two children. */
	memcpy(slot(le64dec(slot(region_top, 1)), 2), slot(left(), 0), LINK_SIZE);
}

static void
page_behind_the_end(void)
{
	/* A chunk of 4096 bytes has one page. */
	image[leaf(0) + SKIP_SIZE + 24] |= 2;
}

static void
many_in_one(void)
{
	/* All chunks of leaf 0 are the same record. */
	for (unsigned i = 1; i < 128; i++)
		memcpy(image + leaf(0) + SKIP_SIZE + (size_t)i * 32,
		    image + leaf(0) + SKIP_SIZE, 32);
}

static void
many_in_many(void)
{
	many_in_one();
	shared();
}

static void
record_behind_the_end(void)
{
	le64enc(image + leaf(0) + SKIP_SIZE, image_len - 5);
}

static void
record_in_the_header(void)
{
	le64enc(image + leaf(0) + SKIP_SIZE, 120);
}

static void
longer_record(void)
{
	uint8_t *length = image + leaf(0) + SKIP_SIZE + 8;

	/* The next record's skippable frame becomes part of this one: still valid zstd. */
	le32enc(length, le32dec(length) + 12);
}

static void
other_sum(void)
{
	image[le64dec(image + leaf(0) + SKIP_SIZE) + SKIP_SIZE] ^= 1;
}

static void
counts_lie(void)
{
	uint8_t *link = slot(left(), 0);

	le64enc(link + 8, le64dec(link + 8) + 1);
}

struct hostile {
	const char *name;
	void (*spoil)(void);
	enum reseal how;
	bool opens, reads;
	const char *says; /* by whatever fails first: opening, verifying */
};

static const struct hostile cases[] = {
	{ "two leaves in one place", same_place, RESEAL_INDEX, true, false, "its link says" },
	{ "a leaf in place of an inner node", leaf_as_inner, RESEAL_INDEX, true, false,
	    "its link says" },
	{ "a leaf that is shared 64 times", shared, RESEAL_COUNTS, true, true,
	    "accounted for" },
	{ "a link to nothing that counts", nothing_with_counts, RESEAL_INDEX, true, false,
	    "not all zeros" },
	{ "inherited pages", inherited, RESEAL_INDEX, true, false, "without a parent" },
	{ "a leaf behind the end", behind_the_end, RESEAL_COUNTS, true, false,
	    "behind the end" },
	{ "a page behind the end of a chunk", page_behind_the_end, RESEAL_INDEX, true, false,
	    "beyond its chunk" },
	{ "one record for 128 chunks", many_in_one, RESEAL_COUNTS, true, true,
	    "accounted for" },
	{ "one record for 8192 chunks", many_in_many, RESEAL_COUNTS, false, false,
	    "bytes of records in a file" },
	{ "a record behind the end", record_behind_the_end, RESEAL_COUNTS, true, false,
	    "do not fit the file" },
	{ "a record in the header", record_in_the_header, RESEAL_INDEX, true, false,
	    "points at byte 120" },
	{ "a record that is too long", longer_record, RESEAL_COUNTS, true, false,
	    "zstd frame" },
	{ "a page sum that is wrong", other_sum, RESEAL_COUNTS, true, false, "page 0 of 1" },
	{ "counts that are wrong", counts_lie, RESEAL_INDEX, true, false, "its link says" },
};

static void
test_case(const struct hostile *c)
{
	uint8_t *good = malloc(image_len);
	struct err e = ERR_INIT, ignored;
	struct image *img;
	bool noticed, read = false;

	memcpy(good, image, image_len);
	c->spoil();
	reseal(image, image_len, c->how);
	img = open_copy(&e);
	noticed = img == NULL || verify(img, &e) == -1;
	if (img != NULL)
		read = read_pages(img, &ignored) == 0;
	ok(noticed && e.kind == ERR_CORRUPT && (img != NULL) == c->opens &&
		(c->says == NULL || strstr(e.msg, c->says) != NULL),
	    "%s: %s", c->name, e.msg);
	ok(read == c->reads || c->says == NULL, "%s: %s", c->name,
	    read ? "what is asked for can be read" : "is not read");
	image_close(img);
	memcpy(image, good, image_len);
	free(good);
}

int
main(void)
{
	load_seed();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		test_case(&cases[i]);
	free(image);
	return done();
}
