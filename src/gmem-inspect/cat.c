/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "gmem-inspect/hexdump.h"
#include "gmem-inspect/inspect.h"
#include "image/reader.h"

#define LENGTH_DEFAULT 256
#define PIECE ((size_t)1 << 20)

struct cat {
	const struct image *img;
	const struct object *region; /* --region: addresses are its offsets; else NULL */
	struct image_reader *reader;
	struct hexdump *dump; /* NULL: raw */
	uint8_t *buf; /* PIECE bytes */
};

/* ---- ADDRESS[+LENGTH | -END] ---- */

/* "4096", "0x1000", "4K": where the number ends, or NULL. */
static const char *
get_number(const char *text, uint64_t *value)
{
	static const char units[] = "KMGT";
	const char *unit;
	unsigned shift = 0;
	char *end;

	if (!isdigit((unsigned char)*text))
		return NULL;
	errno = 0;
	*value = strtoull(text, &end, strncasecmp(text, "0x", 2) == 0 ? 16 : 10);
	if (errno != 0)
		return NULL;
	if (*end != '\0' && (unit = strchr(units, toupper((unsigned char)*end))) != NULL) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (strncmp(end, "iB", 2) == 0)
			end += 2;
	}
	if (*value > UINT64_MAX >> shift)
		return NULL;
	*value <<= shift;
	return end;
}

static int
bad_range(const char *text, struct err *e)
{
	return err_set(e, ERR_USAGE,
	    "%s: ADDRESS, ADDRESS+LENGTH or ADDRESS-END is wanted, such as 0x100000+4K", text);
}

static int
get_range(const char *text, uint64_t *start, uint64_t *end, struct err *e)
{
	uint64_t second = LENGTH_DEFAULT;
	const char *p = get_number(text, start);
	char what;

	if (p == NULL)
		return bad_range(text, e);
	what = *p;
	if (what != '\0') {
		p = what == '+' || what == '-' ? get_number(p + 1, &second) : NULL;
		if (p == NULL || *p != '\0')
			return bad_range(text, e);
	}
	if (what == '-')
		*end = second;
	else if (ckd_add(end, *start, second))
		return err_set(e, ERR_USAGE, "%s: ends behind the last address", text);
	if (*end <= *start)
		return err_set(e, ERR_USAGE, "%s: nothing is between these addresses", text);
	return 0;
}

/* ---- where that is ---- */

/* The longest piece from gpa on that one segment has. */
static bool
find_gpa(const struct manifest *m, uint64_t gpa, const struct object **o, uint64_t *offset,
    uint64_t *len)
{
	for (size_t i = 0; i < m->nregions; i++) {
		for (size_t k = 0; k < m->regions[i].nsegments; k++) {
			const struct segment *s = &m->regions[i].segments[k];

			if (gpa < s->gpa || gpa - s->gpa >= s->size)
				continue;
			*o = &m->regions[i];
			*offset = s->offset + (gpa - s->gpa);
			*len = s->size - (gpa - s->gpa);
			return true;
		}
	}
	return false;
}

/* Where the guest's memory goes on behind a hole; false: nowhere. */
static bool
next_gpa(const struct manifest *m, uint64_t gpa, uint64_t *next)
{
	bool found = false;

	for (size_t i = 0; i < m->nregions; i++) {
		for (size_t k = 0; k < m->regions[i].nsegments; k++) {
			uint64_t start = m->regions[i].segments[k].gpa;

			if (start > gpa && (!found || start < *next)) {
				*next = start;
				found = true;
			}
		}
	}
	return found;
}

static int
no_memory(const struct cat *c, uint64_t gpa, struct err *e)
{
	const struct manifest *m = &c->img->manifest;
	bool any = false;
	uint64_t next = 0;

	for (size_t i = 0; i < m->nregions; i++)
		any |= m->regions[i].nsegments != 0;
	if (!any)
		return err_set(e, ERR_FAILED,
		    "%s: does not know guest physical addresses; use --region and an offset",
		    c->img->path);
	if (next_gpa(m, gpa, &next))
		return err_set(e, ERR_FAILED,
		    "%s: the guest has no memory at 0x%llx, next at 0x%llx", c->img->path,
		    (unsigned long long)gpa, (unsigned long long)next);
	return err_set(e, ERR_FAILED, "%s: the guest has no memory at 0x%llx or behind",
	    c->img->path, (unsigned long long)gpa);
}

/* The object behind an address, and how far it goes. */
static int
locate(const struct cat *c, uint64_t at, const struct object **o, uint64_t *offset,
    uint64_t *len, struct err *e)
{
	if (c->region == NULL)
		return find_gpa(&c->img->manifest, at, o, offset, len) ? 0
								       : no_memory(c, at, e);
	if (at >= c->region->size)
		return err_set(e, ERR_FAILED, "%s: %s ends at 0x%llx, before 0x%llx",
		    c->img->path, c->region->name, (unsigned long long)c->region->size,
		    (unsigned long long)at);
	*o = c->region;
	*offset = at;
	*len = c->region->size - at;
	return 0;
}

/* Whether every address is there: nothing is printed if not. */
static int
check_range(const struct cat *c, uint64_t start, uint64_t end, struct err *e)
{
	const struct object *o;
	uint64_t offset, len;

	for (; start < end; start += MIN(len, end - start))
		if (locate(c, start, &o, &offset, &len, e) == -1)
			return -1;
	return 0;
}

/* ---- printing ---- */

static int
put(struct cat *c, size_t len, struct err *e)
{
	if (c->dump != NULL)
		hexdump_add(c->dump, c->buf, len);
	else
		(void)fwrite(c->buf, 1, len, stdout);
	return ferror(stdout) ? err_sys(e, "write to standard output") : 0;
}

static int
print_range(struct cat *c, uint64_t start, uint64_t end, struct err *e)
{
	const struct object *o;
	uint64_t offset, len;
	size_t n;

	for (; start < end; start += n) {
		if (locate(c, start, &o, &offset, &len, e) == -1)
			return -1;
		/* Pieces that end where chunks do are decoded once. */
		len = MIN(len, PIECE - offset % PIECE);
		n = (size_t)MIN(len, end - start);
		if (image_reader_read(c->reader, o, offset, c->buf, n, e) == -1 ||
		    put(c, n, e) == -1)
			return -1;
	}
	return 0;
}

static int
cat(struct cat *c, const struct options *opt, struct err *e)
{
	struct hexdump dump;
	uint64_t start, end;

	if (get_range(opt->range, &start, &end, e) == -1 || check_range(c, start, end, e) == -1)
		return -1;
	if (!opt->raw) {
		c->dump = &dump;
		hexdump_start(&dump, stdout, start, end);
	}
	if (print_range(c, start, end, e) == -1)
		return -1;
	if (!opt->raw)
		hexdump_end(&dump);
	return 0;
}

int
verb_cat(struct inspect *in, struct err *e)
{
	const struct options *opt = in->opt;
	struct cat c = { .img = in->img };
	int rc = -1;

	if (opt->region != NULL) {
		c.region = manifest_region(&in->img->manifest, opt->region);
		if (c.region == NULL)
			return err_set(e, ERR_FAILED, "%s: no region is called %s",
			    in->img->path, opt->region);
	}
	c.buf = malloc(PIECE);
	if (c.buf == NULL)
		err_sys(e, "cat");
	else if (image_reader_new(&c.reader, in->img, e) == 0)
		rc = cat(&c, opt, e);
	image_reader_free(c.reader);
	free(c.buf);
	return rc;
}
