/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"

#define BLOCKS_MAX 4096
#define SEGMENTS_MAX 64

/* One line of the text; not NUL-terminated. */
struct line {
	const char *at;
	size_t len;
};

/* The next line of *text, which is advanced: false at the end. */
static bool
next_line(const char **text, struct line *line)
{
	const char *eol = strchrnul(*text, '\n');

	if (**text == '\0')
		return false;
	line->at = *text;
	line->len = (size_t)(eol - *text);
	if (line->len > 0 && line->at[line->len - 1] == '\r')
		line->len--;
	*text = *eol == '\0' ? eol : eol + 1;
	return true;
}

/* Steps over a literal at the beginning of the line. */
static bool
eat(struct line *line, const char *literal)
{
	size_t len = strlen(literal);

	if (line->len < len || memcmp(line->at, literal, len) != 0)
		return false;
	line->at += len;
	line->len -= len;
	return true;
}

/* Steps over a number of up to 16 hexadecimal digits. */
static bool
eat_hex(struct line *line, uint64_t *out)
{
	uint64_t value = 0;
	size_t n = 0;

	while (n < line->len && isxdigit((unsigned char)line->at[n])) {
		int c = tolower((unsigned char)line->at[n]);

		if (++n > 16)
			return false;
		value = value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	line->at += n;
	line->len -= n;
	*out = value;
	return n > 0;
}

/* Steps to behind the first place where the literal is. */
static bool
skip_to(struct line *line, const char *literal)
{
	const char *at = memmem(line->at, line->len, literal, strlen(literal));

	if (at == NULL)
		return false;
	line->len -= (size_t)(at - line->at);
	line->at = at;
	return eat(line, literal);
}

static void
trim_left(struct line *line)
{
	while (line->len > 0 && *line->at == ' ') {
		line->at++;
		line->len--;
	}
}

/* Cuts off the last word, which ends at *end, and the spaces before it. */
static struct line
cut_last_word(struct line *line)
{
	struct line word = { line->at, 0 };

	while (line->len > 0 && line->at[line->len - 1] == ' ')
		line->len--;
	while (line->len > 0 && line->at[line->len - 1] != ' ') {
		line->len--;
		word.len++;
	}
	word.at = line->at + line->len;
	while (line->len > 0 && line->at[line->len - 1] == ' ')
		line->len--;
	return word;
}

/* "4 KiB", "2 MiB", "1 GiB": the number and its unit are words of their own. */
static bool
parse_page_size(struct line number, struct line unit, uint64_t *out)
{
	static const char prefixes[] = "KMGT";
	const char *prefix = unit.len > 0 ? strchr(prefixes, *unit.at) : NULL;
	uint64_t value = 0;

	if (unit.len != 3 || prefix == NULL || memcmp(unit.at + 1, "iB", 2) != 0)
		return false;
	if (number.len == 0 || number.len > 4)
		return false;
	for (size_t i = 0; i < number.len; i++) {
		if (!isdigit((unsigned char)number.at[i]))
			return false;
		value = value * 10 + (uint64_t)(number.at[i] - '0');
	}
	*out = value << (10 * (prefix - prefixes + 1));
	return is_pow2(*out);
}

/* "  NAME  4 KiB  0xOFFSET 0xUSED 0xTOTAL…"; the name may be empty. */
static bool
parse_block(struct line line, struct qemu_block *b)
{
	struct line head = line, number, unit;
	uint64_t ignored;

	if (!skip_to(&line, " 0x"))
		return false;
	head.len = (size_t)(line.at - head.at) - strlen(" 0x");
	if (!eat_hex(&line, &ignored) || !eat(&line, " 0x") || !eat_hex(&line, &b->used))
		return false;
	unit = cut_last_word(&head);
	number = cut_last_word(&head);
	if (!parse_page_size(number, unit, &b->page_size))
		return false;
	trim_left(&head);
	b->name = strndup(head.at, head.len);
	return true;
}

int
qemu_text_blocks(const char *text, struct qemu_blocks *out, struct err *e)
{
	struct qemu_blocks b = { 0 };
	struct line line;

	if (!next_line(&text, &line) || !skip_to(&line, "Block Name"))
		return err_set(e, ERR_CORRUPT, "\"info ramblock\" does not list RAM blocks");
	b.v = calloc(BLOCKS_MAX, sizeof(*b.v));
	if (b.v == NULL)
		return err_sys(e, "RAM blocks");
	while (next_line(&text, &line)) {
		if (line.len == 0)
			continue;
		if (b.n == BLOCKS_MAX || !parse_block(line, &b.v[b.n])) {
			qemu_blocks_fini(&b);
			return err_set(e, ERR_CORRUPT,
			    "line %zu of \"info ramblock\" is not understood: %.*s", b.n + 2,
			    (int)MIN(line.len, (size_t)80), line.at);
		}
		if (b.v[b.n++].name == NULL) {
			err_sys(e, "RAM blocks");
			qemu_blocks_fini(&b);
			return -1;
		}
	}
	*out = b;
	return 0;
}

void
qemu_blocks_fini(struct qemu_blocks *b)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->v[i].name);
	free(b->v);
	*b = (struct qemu_blocks){ 0 };
}

const struct qemu_block *
qemu_blocks_find(const struct qemu_blocks *b, const char *name)
{
	for (size_t i = 0; i < b->n; i++)
		if (strcmp(b->v[i].name, name) == 0)
			return &b->v[i];
	return NULL;
}

/* Segments in the making. */
struct segments {
	struct qemu_segment *v;
	uint64_t *seen; /* size of the piece that has the probe */
	size_t n;
};

/* Behind the name: nothing, an offset, the name of an accelerator ("KVM"). */
static bool
parse_tail(struct line line, uint64_t *offset)
{
	*offset = 0;
	if (eat(&line, " @") && !eat_hex(&line, offset))
		return false;
	trim_left(&line);
	for (size_t i = 0; i < line.len; i++)
		if (!isupper((unsigned char)line.at[i]))
			return false;
	return true;
}

/* "  GPA-LAST (prio 0, ram): NAME @OFFSET": false if it is about something else. */
static bool
parse_piece(struct line line, const char *block, struct qemu_segment *piece)
{
	uint64_t last;

	if (!eat(&line, "  ") || !eat_hex(&line, &piece->gpa) || !eat(&line, "-") ||
	    !eat_hex(&line, &last) || !eat(&line, " (prio ") || !skip_to(&line, "): ") ||
	    !eat(&line, block) || !parse_tail(line, &piece->offset))
		return false;
	piece->probe = piece->gpa;
	return last >= piece->gpa && !ckd_add(&piece->size, last - piece->gpa, 1);
}

/* Joins a piece with what lies at the same distance between gpa and offset. */
static int
add_piece(struct segments *s, const struct qemu_segment *p, struct err *e)
{
	struct qemu_segment *g;
	uint64_t end;
	size_t i = 0;

	while (i < s->n && s->v[i].gpa - s->v[i].offset != p->gpa - p->offset)
		i++;
	g = &s->v[i];
	if (i == s->n) {
		if (s->n == SEGMENTS_MAX)
			return err_set(e, ERR_UNSUPPORTED,
			    "it lies in more than %d places of the guest's memory",
			    SEGMENTS_MAX);
		s->v[s->n] = *p;
		s->seen[s->n++] = p->size;
		return 0;
	}
	end = MAX(g->offset + g->size, p->offset + p->size);
	if (p->offset < g->offset) {
		g->offset = p->offset;
		g->gpa = p->gpa;
	}
	g->size = end - g->offset;
	if (p->size > s->seen[i]) {
		s->seen[i] = p->size;
		g->probe = p->probe;
	}
	return 0;
}

static int
by_size(const void *a, const void *b)
{
	const struct qemu_segment *x = a, *y = b;

	return (x->size < y->size) - (x->size > y->size);
}

static int
by_offset(const void *a, const void *b)
{
	const struct qemu_segment *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool
overlap(const struct qemu_segment *a, const struct qemu_segment *b)
{
	return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

/* Of two that show the same bytes only the larger one stays: the other is an alias. */
static void
drop_aliases(struct segments *s)
{
	size_t kept = 0;

	qsort(s->v, s->n, sizeof(*s->v), by_size);
	for (size_t i = 0; i < s->n; i++) {
		size_t k = 0;

		while (k < kept && !overlap(&s->v[i], &s->v[k]))
			k++;
		if (k == kept)
			s->v[kept++] = s->v[i];
	}
	s->n = kept;
	qsort(s->v, s->n, sizeof(*s->v), by_offset);
}

/* Stretches the segments over what is hidden, so that they cover the block. */
static int
close_gaps(struct segments *s, uint64_t size, struct err *e)
{
	if (s->n == 0 || s->v[0].gpa < s->v[0].offset)
		return err_set(e, ERR_UNSUPPORTED, "it is not in the guest's memory");
	s->v[0].gpa -= s->v[0].offset;
	s->v[0].size += s->v[0].offset;
	s->v[0].offset = 0;
	for (size_t i = 0; i < s->n; i++) {
		uint64_t end = i + 1 < s->n ? s->v[i + 1].offset : size;

		s->v[i].size = end - s->v[i].offset;
		if (ckd_add(&end, s->v[i].gpa, s->v[i].size))
			return err_set(e, ERR_CORRUPT, "it ends behind the address space");
	}
	return 0;
}

static int
collect(const char *text, const char *block, uint64_t size, struct segments *s, struct err *e)
{
	struct qemu_segment piece;
	bool wanted = false;
	struct line line;
	uint64_t end;

	while (next_line(&text, &line)) {
		if (eat(&line, "FlatView #"))
			wanted = false;
		else if (eat(&line, " AS \"memory\","))
			wanted = true;
		else if (wanted && parse_piece(line, block, &piece)) {
			if (ckd_add(&end, piece.offset, piece.size) || end > size)
				return err_set(e, ERR_CORRUPT,
				    "\"info mtree\" shows bytes up to %" PRIu64
				    " of a block of %" PRIu64,
				    end, size);
			if (add_piece(s, &piece, e) == -1)
				return -1;
		}
	}
	drop_aliases(s);
	return close_gaps(s, size, e);
}

int
qemu_text_segments(const char *text, const char *block, uint64_t size,
    struct qemu_segment **out, size_t *n, struct err *e)
{
	uint64_t seen[SEGMENTS_MAX];
	struct segments s = { .seen = seen };

	s.v = calloc(SEGMENTS_MAX, sizeof(*s.v));
	if (s.v == NULL)
		return err_sys(e, "segments");
	if (collect(text, block, size, &s, e) == -1) {
		free(s.v);
		return -1;
	}
	*out = s.v;
	*n = s.n;
	return 0;
}

int
qemu_text_hva(const char *text, const char *block, uint64_t *hva, struct err *e)
{
	struct line line;
	uint64_t gpa;

	if (next_line(&text, &line) && eat(&line, "Host virtual address for 0x") &&
	    eat_hex(&line, &gpa) && eat(&line, " (") && eat(&line, block) &&
	    eat(&line, ") is 0x") && eat_hex(&line, hva))
		return 0;
	return err_set(e, ERR_CORRUPT, "\"gpa2hva\" does not say where the block is");
}
