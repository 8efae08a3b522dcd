/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/printable.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

unsigned
utf8_get(const unsigned char *p, uint32_t *c)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned len = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;

	if (len == 0 || *p > 0xf4)
		return 0;
	*c = len == 1 ? *p : *p & (0x7fu >> len);
	for (unsigned i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (p[i] & 0x3fu);
	}
	if (*c < smallest[len] || *c > 0x10ffff || (*c >= 0xd800 && *c <= 0xdfff))
		return 0;
	return len;
}

/* Controls, and the marks that turn or hide what stands around them. */
static bool
is_harmless(uint32_t c)
{
	return c >= 0x20 && (c < 0x7f || c > 0x9f) && (c < 0x200b || c > 0x200f) &&
	       (c < 0x2028 || c > 0x202e) && (c < 0x2060 || c > 0x206f) && c != 0xfeff &&
	       c != 0x061c;
}

unsigned
printable_piece(const unsigned char *p, char buf[PRINTABLE_PIECE])
{
	uint32_t c = 0;
	unsigned len = utf8_get(p, &c);

	if (len == 0)
		snprintf(buf, PRINTABLE_PIECE, "\\x%02x", *p);
	else if (is_harmless(c))
		snprintf(buf, PRINTABLE_PIECE, "%.*s", (int)len, (const char *)p);
	else if (c < 0x80)
		snprintf(buf, PRINTABLE_PIECE, "\\x%02x", (unsigned)c);
	else
		snprintf(buf, PRINTABLE_PIECE, "\\u{%x}", (unsigned)c);
	return len == 0 ? 1 : len;
}

void
printable_copy(char *buf, size_t cap, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[PRINTABLE_PIECE];
	size_t len = 0;

	while (*p != '\0') {
		size_t n;

		p += printable_piece(p, piece);
		n = strlen(piece);
		if (len + n >= cap)
			break;
		memcpy(buf + len, piece, n);
		len += n;
	}
	buf[len] = '\0';
}
