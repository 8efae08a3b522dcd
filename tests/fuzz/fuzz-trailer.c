/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <sys/endian.h>

#include "format/trailer.h"
#include "fuzz.h"

/* A trailer that is taken is written again as the same bytes, and its manifest is in the file.
 */
static void
try(const uint8_t buf[TRAILER_SIZE], uint64_t file_size)
{
	uint8_t again[TRAILER_SIZE];
	struct err e = ERR_INIT;
	struct trailer t;

	if (trailer_decode(&t, buf, file_size, &e) == -1) {
		must(e.kind == ERR_CORRUPT);
		return;
	}
	trailer_encode(again, &t);
	must(memcmp(buf, again, TRAILER_SIZE) == 0);
	must(t.file_size == file_size && file_size <= IMAGE_SIZE_MAX);
	must(t.manifest_length <= MANIFEST_SIZE_MAX && t.manifest_offset >= HEADER_SIZE);
	must(t.manifest_offset < file_size && t.manifest_length < file_size);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	uint8_t buf[TRAILER_SIZE];

	if (size < TRAILER_SIZE)
		return 0;
	try(data, size);
	memcpy(buf, data, TRAILER_SIZE);
	le64enc(buf + TRAILER_SIZE - 8, hash_checksum(buf, TRAILER_SIZE - 8));
	try(buf, size);
	try(buf, le64dec(buf + 16));
	return 0;
}
