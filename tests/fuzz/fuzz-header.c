/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>

#include "codec/hash.h"
#include "format/header.h"
#include "fuzz.h"

/* A header that is taken is written again as the same bytes, but for the minor version. */
static void
try(const uint8_t buf[HEADER_SIZE])
{
	uint8_t again[HEADER_SIZE];
	struct err e = ERR_INIT;
	struct header h;

	if (header_decode(&h, buf, &e) == -1) {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_UNSUPPORTED);
		return;
	}
	header_encode(again, &h);
	if (le16dec(buf + 18) == FORMAT_MINOR)
		must(memcmp(buf, again, HEADER_SIZE) == 0);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	uint8_t buf[HEADER_SIZE], blank[HEADER_SIZE];

	if (size < HEADER_SIZE)
		return 0;
	try(data);
	memcpy(buf, data, HEADER_SIZE);
	header_for_root(blank, buf);
	le64enc(buf + HEADER_SIZE - 8, hash_checksum(blank, HEADER_SIZE - 8));
	try(buf);
	return 0;
}
