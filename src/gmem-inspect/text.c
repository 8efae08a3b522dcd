/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/printable.h"
#include "cli/opt.h"

void
text_put(FILE *f, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[PRINTABLE_PIECE];

	while (*p != '\0') {
		p += printable_piece(p, piece);
		fputs(piece, f);
	}
}

void
text_put_argument(FILE *f, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-+=./,:@%";
	const unsigned char *p = (const unsigned char *)text;
	char piece[PRINTABLE_PIECE];

	if (*text != '\0' && strspn(text, plain) == strlen(text)) {
		fputs(text, f);
		return;
	}
	putc('\'', f);
	while (*p != '\0') {
		bool quote = *p == '\'';

		p += printable_piece(p, piece);
		fputs(quote ? "'\\''" : piece, f);
	}
	putc('\'', f);
}

int
text_width(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[PRINTABLE_PIECE];
	int width = 0;

	while (*p != '\0') {
		unsigned len = printable_piece(p, piece);

		width += piece[0] == '\\' ? (int)strlen(piece) : 1;
		p += len;
	}
	return width;
}

void
text_xml(FILE *f, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char piece[PRINTABLE_PIECE];

	while (*p != '\0') {
		p += printable_piece(p, piece);
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
