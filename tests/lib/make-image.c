/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * make-image FILE MIB DENSITY CHUNK SEED: an image for tests, and the memory it
 * is of in FILE.raw.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "small-image.h"

static int
write_raw(const char *path, const uint8_t *mem, size_t len)
{
	char *raw = NULL;
	FILE *f = NULL;
	int rc = -1;

	if (asprintf(&raw, "%s.raw", path) != -1 && (f = fopen(raw, "we")) != NULL &&
	    fwrite(mem, 1, len, f) == len)
		rc = 0;
	if (f != NULL && fclose(f) != 0)
		rc = -1;
	if (rc == -1)
		perror(path);
	free(raw);
	return rc;
}

int
main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	uint8_t *mem;
	size_t len;
	int rc;

	if (argc != 6) {
		fprintf(stderr, "usage: make-image FILE MIB DENSITY CHUNK SEED\n");
		return 2;
	}
	len = strtoul(argv[2], NULL, 10) << 20;
	mem = malloc(len);
	if (mem == NULL) {
		perror("make-image");
		return 1;
	}
	fill_memory(
	    mem, len, (unsigned)strtoul(argv[3], NULL, 10), strtoull(argv[5], NULL, 10));
	rc = small_image(argv[1], mem, len, (uint32_t)strtoul(argv[4], NULL, 10), &e);
	if (rc == -1)
		fprintf(stderr, "make-image: %s\n", e.msg);
	else
		rc = write_raw(argv[1], mem, len);
	free(mem);
	return rc == -1;
}
