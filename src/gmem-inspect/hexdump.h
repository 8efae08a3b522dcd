/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_INSPECT_HEXDUMP_H
#define GMEM_INSPECT_HEXDUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HEXDUMP_LINE 16

/* A dump as of hexdump -C: equal lines are squeezed into a "*". */
struct hexdump {
	FILE *f; /* borrowed */
	uint64_t address; /* of line[0] */
	int digits;
	unsigned char line[HEXDUMP_LINE], last[HEXDUMP_LINE];
	size_t have; /* bytes in line */
	bool printed; /* last is a line that was printed, or is like it */
	bool squeezing;
};

/* end: where the dump will end, so that all addresses are of one width. */
void hexdump_start(struct hexdump *h, FILE *f, uint64_t address, uint64_t end);
void hexdump_add(struct hexdump *h, const void *buf, size_t len);
void hexdump_end(struct hexdump *h);

#endif
