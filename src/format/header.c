/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/header.h"

#include <string.h>
#include <sys/endian.h>

#include "codec/hash.h"

/*
 *	 0 u32	SKIP_HEADER		 4 u32	120
 *	 8 	"gmem-img"
 *	16 u16	major			18 u16	minor
 *	20 u32	reserved		24	state
 *	28 u32	chunk size
 *	32 u64	incompat		40 u64	compat
 *	48 	reserved
 *	120 u64	XXH3-64 of bytes 0…119, the state taken as zeros
 */
static const char header_magic[8] = { 'g', 'm', 'e', 'm', '-', 'i', 'm', 'g' };
static const char state_names[][HEADER_STATE_SIZE + 1] = {
	[IMAGE_PARTIAL] = "PART",
	[IMAGE_COMPLETE] = "DONE",
	[IMAGE_STREAMED] = "STRM",
};

#define CHECKSUM_OFFSET (HEADER_SIZE - 8)

void
header_for_root(uint8_t out[HEADER_SIZE], const uint8_t buf[HEADER_SIZE])
{
	memcpy(out, buf, HEADER_SIZE);
	memset(out + HEADER_STATE_OFFSET, 0, HEADER_STATE_SIZE);
}

static uint64_t
header_checksum(const uint8_t buf[HEADER_SIZE])
{
	uint8_t blank[HEADER_SIZE];

	header_for_root(blank, buf);
	return hash_checksum(blank, CHECKSUM_OFFSET);
}

void
header_encode_state(uint8_t buf[HEADER_STATE_SIZE], enum image_state state)
{
	memcpy(buf, state_names[state], HEADER_STATE_SIZE);
}

void
header_encode(uint8_t buf[HEADER_SIZE], const struct header *h)
{
	memset(buf, 0, HEADER_SIZE);
	le32enc(buf, SKIP_HEADER);
	le32enc(buf + 4, HEADER_SIZE - SKIP_SIZE);
	memcpy(buf + 8, header_magic, sizeof(header_magic));
	le16enc(buf + 16, FORMAT_MAJOR);
	le16enc(buf + 18, FORMAT_MINOR);
	header_encode_state(buf + HEADER_STATE_OFFSET, h->state);
	le32enc(buf + 28, h->chunk_size);
	le64enc(buf + 32, h->incompat);
	le64enc(buf + 40, h->compat);
	le64enc(buf + CHECKSUM_OFFSET, header_checksum(buf));
}

static int
decode_state(enum image_state *state, const uint8_t *buf, struct err *e)
{
	for (unsigned i = 0; i < sizeof(state_names) / sizeof(state_names[0]); i++) {
		if (memcmp(buf, state_names[i], HEADER_STATE_SIZE) == 0) {
			*state = (enum image_state)i;
			return 0;
		}
	}
	return err_set(e, ERR_CORRUPT, "header: state %02x%02x%02x%02x is none", buf[0], buf[1],
	    buf[2], buf[3]);
}

static bool
reserved_is_zero(const uint8_t buf[HEADER_SIZE])
{
	uint8_t bits = 0;

	for (unsigned i = 20; i < 24; i++)
		bits |= buf[i];
	for (unsigned i = 48; i < CHECKSUM_OFFSET; i++)
		bits |= buf[i];
	return bits == 0;
}

int
header_decode(struct header *h, const uint8_t buf[HEADER_SIZE], struct err *e)
{
	uint64_t sum = le64dec(buf + CHECKSUM_OFFSET), want = header_checksum(buf);
	uint16_t major = le16dec(buf + 16);
	struct geometry g;

	if (le32dec(buf) != SKIP_HEADER ||
	    memcmp(buf + 8, header_magic, sizeof(header_magic)) != 0)
		return err_set(e, ERR_CORRUPT, "not a gmem image");
	/* Another version may have another checksum: say the version first. */
	if (sum != want && major == FORMAT_MAJOR)
		return err_set(e, ERR_CORRUPT, "header: checksum is %016llx, should be %016llx",
		    (unsigned long long)sum, (unsigned long long)want);
	if (major != FORMAT_MAJOR)
		return err_set(e, ERR_UNSUPPORTED, "image format %u, this program knows %u",
		    major, FORMAT_MAJOR);
	if (le32dec(buf + 4) != HEADER_SIZE - SKIP_SIZE)
		return err_set(e, ERR_CORRUPT, "header: its frame has %u bytes, should have %u",
		    le32dec(buf + 4), (unsigned)(HEADER_SIZE - SKIP_SIZE));
	if (decode_state(&h->state, buf + HEADER_STATE_OFFSET, e) == -1)
		return -1;
	h->chunk_size = le32dec(buf + 28);
	h->incompat = le64dec(buf + 32);
	h->compat = le64dec(buf + 40);
	if ((h->incompat & ~INCOMPAT_KNOWN) != 0)
		return err_set(e, ERR_UNSUPPORTED, "image needs unknown features %#llx",
		    (unsigned long long)(h->incompat & ~INCOMPAT_KNOWN));
	if (!reserved_is_zero(buf))
		return err_set(e, ERR_CORRUPT, "header: uses reserved bytes");
	return geometry_init(&g, h->chunk_size, e);
}
