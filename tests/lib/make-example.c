/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * make-example FILE: the image of the worked example in gmem-image(5).  Its
 * two zstd frames are given here, so that every libzstd makes the same file.
 */

#include <stdio.h>
#include <string.h>
#include <sys/endian.h>

#include "image/image.h"
#include "image/reader.h"
#include "image/verify.h"
#include "image/writer.h"

#define CHUNK_SIZE 65536

struct piece {
	const char *name, *kind;
	uint64_t size;
	uint64_t page; /* the one that is stored */
	const char *text; /* the page repeats it */
	unsigned repeat;
	const char *frame;
	size_t frame_len;
};

static const struct piece state = {
	.name = "device",
	.kind = "example",
	.size = 16,
	.text = "a device's state",
	.repeat = 1,
	.frame = "\x28\xb5\x2f\xfd\x60\x00\x0f\xc5\x00\x00\x88\x61\x20\x64\x65\x76"
		 "\x69\x63\x65\x27\x73\x20\x73\x74\x61\x74\x65\x00\x01\x00\xd9\xef"
		 "\x83\x25",
	.frame_len = 34,
};

static const struct piece region = {
	.name = "ram",
	.kind = "memfd",
	.size = 8192,
	.page = 1,
	.text = "A page of the guest's memory...\n",
	.repeat = 128,
	.frame = "\x28\xb5\x2f\xfd\x60\x00\x0f\x4d\x01\x00\x04\x02\x41\x20\x70\x61"
		 "\x67\x65\x20\x6f\x66\x20\x74\x68\x65\x20\x67\x75\x65\x73\x74\x27"
		 "\x73\x20\x6d\x65\x6d\x6f\x72\x79\x2e\x2e\x2e\x0a\x01\x00\xe8\xfe"
		 "\xf0\xd5\x13",
	.frame_len = 51,
};

static void
page_of(const struct piece *p, uint8_t page[PAGE_GRANULE])
{
	size_t len = strlen(p->text);

	memset(page, 0, PAGE_GRANULE);
	for (unsigned i = 0; i < p->repeat; i++)
		memcpy(page + i * len, p->text, len);
}

static int
put(struct image_writer *w, const struct piece *p, struct err *e)
{
	struct segment segment = { 0, 0, p->size };
	struct object o = {
		.name = p->name, .kind = p->kind, .size = p->size, .segments = &segment
	};
	struct entry en = { .stored = { UINT64_C(1) << p->page } };
	uint8_t page[PAGE_GRANULE], record[256];

	if (p == &region) {
		o.page_size = 4096;
		o.nsegments = 1;
	}
	page_of(p, page);
	le32enc(record, SKIP_SUMS);
	le32enc(record + 4, 4);
	le32enc(record + SKIP_SIZE, hash_page_sum(page, sizeof(page)));
	memcpy(record + SKIP_SIZE + 4, p->frame, p->frame_len);
	en.length = (uint32_t)(SKIP_SIZE + 4 + p->frame_len);
	en.checksum = hash_checksum(record + SKIP_SIZE, 4);
	if (image_writer_begin(w, &o, p == &state, e) == -1 ||
	    image_writer_chunk(w, 0, &en, record, e) == -1)
		return -1;
	return image_writer_end(w, 0, e);
}

static int
make(const char *path, struct err *e)
{
	struct image_params params = { .chunk_size = CHUNK_SIZE, .level = 1, .replace = true };
	struct pair note = { "purpose", "example" };
	uint8_t root[DIGEST_SIZE];
	struct image_writer *w;
	int rc = -1;

	if (image_writer_new(&w, path, &params, e) == -1)
		return -1;
	image_writer_manifest(w)->tool = "gmem example";
	image_writer_manifest(w)->annotations = (struct pairs){ &note, 1 };
	if (put(w, &state, e) == 0 && put(w, &region, e) == 0)
		rc = image_writer_commit(w, root, e);
	image_writer_free(w);
	return rc;
}

static int
check(const char *path, struct err *e)
{
	uint8_t page[PAGE_GRANULE], got[PAGE_GRANULE];
	struct verify_result result;
	struct image_reader *r = NULL;
	struct image *img = NULL;
	int rc = -1;

	page_of(&region, page);
	if (image_open(&img, path, e) == 0 &&
	    image_verify(img, 1, NULL, NULL, &result, e) == 0 &&
	    image_reader_new(&r, img, e) == 0 &&
	    image_reader_read(r, manifest_region(&img->manifest, region.name), PAGE_GRANULE,
		got, sizeof(got), e) == 0)
		rc = memcmp(page, got, sizeof(got)) == 0
			 ? 0
			 : err_set(e, ERR_FAILED, "another page comes back");
	image_reader_free(r);
	image_close(img);
	return rc;
}

int
main(int argc, char **argv)
{
	struct err e = ERR_INIT;

	if (argc != 2) {
		fprintf(stderr, "usage: make-example FILE\n");
		return 2;
	}
	if (make(argv[1], &e) == 0 && check(argv[1], &e) == 0)
		return 0;
	fprintf(stderr, "make-example: %s\n", e.msg);
	return 1;
}
