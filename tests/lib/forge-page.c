/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * What somebody can do who wants to: pages with other bytes and equal checksums, XXH3-64 being
 * no cryptographic hash.
 *
 *	forge-page make A B		two such pages
 *	forge-page swap FILE A B	puts B in place of the bytes of A, wherever they are
 *
 * XXH3 takes a page in blocks of 16 stripes of 64 bytes.  Each of the 8 lanes of a stripe is
 * mixed with 8 bytes of a secret that everybody knows, and the product of the halves of that
 * goes into the sum, with the lane as it is.  If the low half is that of the secret the product
 * is zero whatever the high half is; so what is added to the one high half, and taken away in
 * the same lane of another stripe, is not seen.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/fdio.h"
#include "small-image.h"

#define PAGE 4096
#define STRIPE 64
#define LANE 3
#define FIRST 2 /* stripes of the first block */
#define SECOND 9

/* The lane of a stripe, with a low half that makes its product zero. */
static uint8_t *
blind(uint8_t *page, unsigned stripe)
{
	uint8_t *lane = page + (size_t)stripe * STRIPE + LANE * 8;

	memcpy(lane, XXH3_kSecret + (size_t)stripe * 8 + LANE * 8, 4);
	return lane;
}

static int
make(const char *a, const char *b)
{
	uint8_t page[PAGE], *first, *second;
	uint64_t seed = 20261123;
	XXH64_hash_t sum;
	struct err e = ERR_INIT;
	const char *paths[] = { a, b };

	for (size_t i = 0; i < sizeof(page); i += 8)
		le64enc(page + i, random_next(&seed));
	first = blind(page, FIRST);
	second = blind(page, SECOND);
	sum = XXH3_64bits(page, sizeof(page));
	for (unsigned i = 0; i < 2; i++) {
		int fd = open(paths[i], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		if (fd == -1 || fd_write_full(fd, page, sizeof(page), &e) == -1) {
			perror(paths[i]);
			return 1;
		}
		fd_close(&fd);
		le32enc(first + 4, le32dec(first + 4) + 12345);
		le32enc(second + 4, le32dec(second + 4) - 12345);
		if (XXH3_64bits(page, sizeof(page)) != sum) {
			fprintf(stderr, "forge-page: the sums differ\n");
			return 1;
		}
	}
	return 0;
}

static int
read_page(uint8_t page[PAGE], const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct err e = ERR_INIT;
	int rc = fd == -1 ? -1 : fd_pread_full(fd, page, PAGE, 0, &e);

	if (rc == -1)
		perror(path);
	fd_close(&fd);
	return rc;
}

static int
swap(const char *file, const char *a, const char *b)
{
	uint8_t from[PAGE], to[PAGE], *map, *at;
	int fd = open(file, O_RDWR | O_CLOEXEC);
	struct stat st;
	unsigned n = 0;

	if (fd == -1 || fstat(fd, &st) == -1 || read_page(from, a) == -1 ||
	    read_page(to, b) == -1)
		return 1;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return 1;
	while ((at = memmem(map, (size_t)st.st_size, from, PAGE)) != NULL) {
		memcpy(at, to, PAGE);
		n++;
	}
	printf("%u\n", n);
	return n == 0;
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "make") == 0)
		return make(argv[2], argv[3]);
	if (argc == 5 && strcmp(argv[1], "swap") == 0)
		return swap(argv[2], argv[3], argv[4]);
	fprintf(stderr, "usage: forge-page make A B | swap FILE A B\n");
	return 2;
}
