/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * spoil-image FILE HOW PAGE: damages an image where it holds a page of its first region, and
 * prints which pages of that can't be had now, as vmm-touch wants them ("none" too).
 *
 *	frame	a bit of the compressed pages, in the middle
 *	sums	a bit of the pages' checksums
 *	node	a bit of the last node of the region's index, whatever PAGE is
 *	cut	the file ends in the middle of the record
 *	none	nothing: only prints
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "image/image.h"
#include "image/reader.h"

static int
flip(int fd, uint64_t off)
{
	uint8_t byte;

	if (pread(fd, &byte, 1, (off_t)off) != 1)
		return -1;
	byte ^= 4;
	return pwrite(fd, &byte, 1, (off_t)off) == 1 ? 0 : -1;
}

static void
last_node(void *arg, uint64_t offset)
{
	*(uint64_t *)arg = offset;
}

static int
spoil(const char *path, const char *how, const struct place *p, uint64_t node)
{
	uint64_t off = p->entry.offset, half = off + p->entry.length / 2;
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;

	if (fd == -1)
		return -1;
	if (strcmp(how, "frame") == 0)
		rc = flip(fd, half);
	else if (strcmp(how, "sums") == 0)
		rc = flip(fd, off + SKIP_SIZE);
	else if (strcmp(how, "node") == 0)
		rc = flip(fd, node + SKIP_SIZE + 100);
	else if (strcmp(how, "cut") == 0)
		rc = ftruncate(fd, (off_t)half);
	close(fd);
	return rc;
}

/* Each page by itself, as a fault would. */
static int
list(struct image *img, struct err *e)
{
	const struct object *o = &img->manifest.regions[0];
	const char *comma = "";

	for (uint64_t page = 0; page < div_up(o->size, PAGE_GRANULE); page++) {
		struct image_reader *r;
		const uint8_t *content;
		struct place p;
		int there;

		if (image_reader_new(&r, img, e) == -1)
			return -1;
		there = image_reader_place(r, o, page, &p, e);
		if (there == 1)
			there = image_reader_get(r, &p, &content, e);
		if (there == -1 && e->damage) {
			printf("%s%llu", comma, (unsigned long long)page);
			comma = ",";
		}
		image_reader_free(r);
	}
	puts(*comma == '\0' ? "none" : "");
	return 0;
}

int
main(int argc, char **argv)
{
	struct image_reader *r = NULL;
	struct image *img = NULL;
	struct err e = ERR_INIT;
	uint64_t node = 0, count;
	struct place p;
	int rc = 1, there = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: spoil-image FILE HOW PAGE\n");
		return 2;
	}
	if (image_open(&img, argv[1], &e) == -1 || image_reader_new(&r, img, &e) == -1 ||
	    image_reader_nodes(r, &img->manifest.regions[0], last_node, &node, &count, &e) ==
		-1 ||
	    (there = image_reader_place(
		 r, &img->manifest.regions[0], strtoull(argv[3], NULL, 10), &p, &e)) == -1)
		fprintf(stderr, "spoil-image: %s\n", e.msg);
	else if (there == 0)
		fprintf(stderr, "spoil-image: page %s is zero\n", argv[3]);
	else if (spoil(argv[1], argv[2], &p, node) == -1)
		perror(argv[1]);
	else if (list(img, &e) == -1)
		fprintf(stderr, "spoil-image: %s\n", e.msg);
	else
		rc = 0;
	image_reader_free(r);
	image_close(img);
	return rc;
}
