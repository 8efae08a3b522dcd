/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/hexdump.h"

#include <string.h>

#include "base/ckd.h"

void
hexdump_start(struct hexdump *h, FILE *f, uint64_t address, uint64_t end)
{
	*h = (struct hexdump){ .f = f, .address = address, .digits = 8 };
	while (h->digits < 16 && end >> (4 * h->digits) != 0)
		h->digits += 4;
}

static void
put_byte(char **p, unsigned char byte)
{
	static const char hex[] = "0123456789abcdef";

	*(*p)++ = hex[byte >> 4];
	*(*p)++ = hex[byte & 15];
	*(*p)++ = ' ';
}

static void
print_line(const struct hexdump *h)
{
	char text[3 * HEXDUMP_LINE + 2 + 1], ascii[HEXDUMP_LINE + 1], *p = text;

	memset(text, ' ', sizeof(text));
	for (size_t i = 0; i < h->have; i++) {
		unsigned char c = h->line[i];

		if (i == HEXDUMP_LINE / 2)
			p++;
		put_byte(&p, c);
		ascii[i] = c >= 0x20 && c < 0x7f ? (char)c : '.';
	}
	fprintf(h->f, "%0*llx  %.*s |%.*s|\n", h->digits, (unsigned long long)h->address,
	    3 * HEXDUMP_LINE + 1, text, (int)h->have, ascii);
}

static void
end_line(struct hexdump *h)
{
	bool same = h->printed && h->have == HEXDUMP_LINE &&
		    memcmp(h->line, h->last, HEXDUMP_LINE) == 0;

	if (same && !h->squeezing)
		fputs("*\n", h->f);
	if (!same)
		print_line(h);
	h->squeezing = same;
	h->printed = true;
	memcpy(h->last, h->line, HEXDUMP_LINE);
	h->address += h->have;
	h->have = 0;
}

void
hexdump_add(struct hexdump *h, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	while (len > 0) {
		size_t n = MIN(len, HEXDUMP_LINE - h->have);

		memcpy(h->line + h->have, p, n);
		h->have += n;
		p += n;
		len -= n;
		if (h->have == HEXDUMP_LINE)
			end_line(h);
	}
}

void
hexdump_end(struct hexdump *h)
{
	if (h->have != 0)
		end_line(h);
	fprintf(h->f, "%0*llx\n", h->digits, (unsigned long long)h->address);
}
