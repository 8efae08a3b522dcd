/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/trailer.h"

#include <string.h>
#include <sys/endian.h>

/*
 *	 0 u32	SKIP_TRAILER		 4 u32	120
 *	 8	"gmem-end"
 *	16 u64	size of the whole file
 *	24 u64	offset of the manifest's frame
 *	32 u64	length of the manifest
 *	40	SHA-256 of the manifest
 *	72	root hash
 *	104	reserved
 *	120 u64	XXH3-64 of bytes 0…119
 */
static const char trailer_magic[8] = { 'g', 'm', 'e', 'm', '-', 'e', 'n', 'd' };

#define CHECKSUM_OFFSET (TRAILER_SIZE - 8)

void
trailer_encode(uint8_t buf[TRAILER_SIZE], const struct trailer *t)
{
	memset(buf, 0, TRAILER_SIZE);
	le32enc(buf, SKIP_TRAILER);
	le32enc(buf + 4, TRAILER_SIZE - SKIP_SIZE);
	memcpy(buf + 8, trailer_magic, sizeof(trailer_magic));
	le64enc(buf + 16, t->file_size);
	le64enc(buf + 24, t->manifest_offset);
	le64enc(buf + 32, t->manifest_length);
	memcpy(buf + 40, t->manifest_digest, DIGEST_SIZE);
	memcpy(buf + 72, t->root, DIGEST_SIZE);
	le64enc(buf + CHECKSUM_OFFSET, hash_checksum(buf, CHECKSUM_OFFSET));
}

bool
trailer_present(const uint8_t buf[TRAILER_SIZE])
{
	return le32dec(buf) == SKIP_TRAILER &&
	       memcmp(buf + 8, trailer_magic, sizeof(trailer_magic)) == 0;
}

static bool
reserved_is_zero(const uint8_t buf[TRAILER_SIZE])
{
	uint8_t bits = 0;

	for (unsigned i = 104; i < CHECKSUM_OFFSET; i++)
		bits |= buf[i];
	return bits == 0;
}

int
trailer_decode(
    struct trailer *t, const uint8_t buf[TRAILER_SIZE], uint64_t file_size, struct err *e)
{
	if (!trailer_present(buf))
		return err_set(e, ERR_CORRUPT,
		    "no trailer at the end of %llu bytes: truncated?",
		    (unsigned long long)file_size);
	if (le64dec(buf + CHECKSUM_OFFSET) != hash_checksum(buf, CHECKSUM_OFFSET))
		return err_set(e, ERR_CORRUPT, "trailer: checksum is wrong");
	if (le32dec(buf + 4) != TRAILER_SIZE - SKIP_SIZE || !reserved_is_zero(buf))
		return err_set(e, ERR_CORRUPT,
		    "trailer: its frame has another length, or reserved bytes are used");
	t->file_size = le64dec(buf + 16);
	t->manifest_offset = le64dec(buf + 24);
	t->manifest_length = le64dec(buf + 32);
	memcpy(t->manifest_digest, buf + 40, DIGEST_SIZE);
	memcpy(t->root, buf + 72, DIGEST_SIZE);
	if (t->file_size != file_size)
		return err_set(e, ERR_CORRUPT, "the file has %llu bytes, its trailer says %llu",
		    (unsigned long long)file_size, (unsigned long long)t->file_size);
	if (file_size > IMAGE_SIZE_MAX)
		return err_set(e, ERR_CORRUPT, "a file of %llu bytes is too large",
		    (unsigned long long)file_size);
	if (t->manifest_length > MANIFEST_SIZE_MAX || t->manifest_offset < HEADER_SIZE ||
	    t->manifest_offset > file_size ||
	    t->manifest_offset + SKIP_SIZE + t->manifest_length + TRAILER_SIZE != file_size)
		return err_set(e, ERR_CORRUPT,
		    "a manifest of %llu bytes at %llu does not fit %llu bytes",
		    (unsigned long long)t->manifest_length,
		    (unsigned long long)t->manifest_offset, (unsigned long long)file_size);
	return 0;
}

void
root_digest(uint8_t root[DIGEST_SIZE], const uint8_t header[HEADER_SIZE],
    const uint8_t manifest_digest[DIGEST_SIZE])
{
	static const char domain[] = "gmem image root 1";
	uint8_t blank[HEADER_SIZE];
	struct hash_piece pieces[] = {
		{ domain, sizeof(domain) },
		{ blank, HEADER_SIZE },
		{ manifest_digest, DIGEST_SIZE },
	};

	header_for_root(blank, header);
	hash_digest_pieces(root, pieces, sizeof(pieces) / sizeof(pieces[0]));
}
