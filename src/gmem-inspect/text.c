/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cli/opt.h"

/* The character at p and its length in bytes; length 0: no UTF-8. */
static unsigned
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

/* The next character as it is to be printed, in buf; its bytes in the input. */
static unsigned
next_piece(const unsigned char *p, char buf[16])
{
	uint32_t c = 0;
	unsigned len = utf8_get(p, &c);

	if (len == 0)
		snprintf(buf, 16, "\\x%02x", *p);
	else if (is_harmless(c))
		snprintf(buf, 16, "%.*s", (int)len, (const char *)p);
	else if (c < 0x80)
		snprintf(buf, 16, "\\x%02x", (unsigned)c);
	else
		snprintf(buf, 16, "\\u{%x}", (unsigned)c);
	return len == 0 ? 1 : len;
}

void
text_put(FILE *f, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[16];

	while (*p != '\0') {
		p += next_piece(p, piece);
		fputs(piece, f);
	}
}

void
text_put_argument(FILE *f, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-+=./,:@%";
	const unsigned char *p = (const unsigned char *)text;
	char piece[16];

	if (*text != '\0' && strspn(text, plain) == strlen(text)) {
		fputs(text, f);
		return;
	}
	putc('\'', f);
	while (*p != '\0') {
		bool quote = *p == '\'';

		p += next_piece(p, piece);
		fputs(quote ? "'\\''" : piece, f);
	}
	putc('\'', f);
}

int
text_width(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[16];
	int width = 0;

	while (*p != '\0') {
		unsigned len = next_piece(p, piece);

		width += piece[0] == '\\' ? (int)strlen(piece) : 1;
		p += len;
	}
	return width;
}

void
text_safe(char *buf, size_t cap, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[16];
	size_t len = 0;

	while (*p != '\0') {
		size_t n;

		p += next_piece(p, piece);
		n = strlen(piece);
		if (len + n >= cap)
			break;
		memcpy(buf + len, piece, n);
		len += n;
	}
	buf[len] = '\0';
}

void
text_xml(FILE *f, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[16];

	while (*p != '\0') {
		p += next_piece(p, piece);
		for (const char *c = piece; *c != '\0'; c++) {
			if (*c == '<')
				fputs("&lt;", f);
			else if (*c == '&')
				fputs("&amp;", f);
			else if (*c == '>')
				fputs("&gt;", f);
			else
				putc(*c, f);
		}
	}
}

json_t *
text_json(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t len = 0;
	json_t *json;
	char *copy;

	if (text == NULL)
		return json_null();
	json = json_string(text);
	if (json != NULL)
		return json;
	copy = malloc(3 * strlen(text) + 1);
	if (copy == NULL)
		return NULL;
	while (*p != '\0') {
		uint32_t c;
		unsigned n = utf8_get(p, &c);

		memcpy(copy + len, n == 0 ? "\xef\xbf\xbd" : (const char *)p, n == 0 ? 3 : n);
		len += n == 0 ? 3 : n;
		p += n == 0 ? 1 : n;
	}
	json = json_stringn(copy, len);
	free(copy);
	return json;
}

const char *
text_size(char buf[16], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	unsigned unit = 0;

	if (bytes == 0 || bytes % 1024 != 0)
		return opt_human(buf, bytes);
	for (uint64_t n = bytes; n % 1024 == 0 && unit < 4; n /= 1024)
		unit++;
	if (bytes >> (10 * unit) >= 1024)
		return opt_human(buf, bytes);
	snprintf(buf, 16, "%llu %s", (unsigned long long)(bytes >> (10 * unit)), units[unit]);
	return buf;
}

const char *
text_ratio(char buf[16], uint64_t plain, uint64_t packed)
{
	double ratio = packed == 0 ? 0 : (double)plain / (double)packed;

	if (packed == 0)
		return "-";
	snprintf(buf, 16, ratio < 100 ? "%.1f:1" : "%.0f:1", ratio);
	return buf;
}

const char *
text_percent(char buf[16], uint64_t part, uint64_t whole)
{
	double percent = whole == 0 ? 0 : 100.0 * (double)part / (double)whole;

	if (whole == 0)
		return "-";
	if (part != 0 && percent < 0.1)
		return "<0.1 %";
	if (part != whole && percent > 99.9)
		return ">99.9 %";
	snprintf(buf, 16, "%.1f %%", percent);
	return buf;
}
