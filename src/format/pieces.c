/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "format/pieces.h"

#include <stdlib.h>

#define NOBODY SIZE_MAX

/*
 * All ends of pieces cut the line into strips; each strip goes to the first
 * piece that wants it.  next leads over strips that have an owner.
 */
struct strips {
	uint64_t *cuts; /* n, in order, each once; strip i is [cuts[i], cuts[i + 1]) */
	size_t n;
	size_t *owner, *next;
};

static int
compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int
strips_init(struct strips *s, const struct piece *list, size_t n)
{
	size_t k = 0;

	s->cuts = calloc(2 * n + 1, sizeof(*s->cuts));
	s->owner = calloc(2 * n + 1, sizeof(*s->owner));
	s->next = calloc(2 * n + 1, sizeof(*s->next));
	if (s->cuts == NULL || s->owner == NULL || s->next == NULL)
		return -1;
	for (size_t i = 0; i < n; i++) {
		s->cuts[k++] = list[i].from;
		s->cuts[k++] = list[i].from + list[i].len;
	}
	qsort(s->cuts, k, sizeof(*s->cuts), compare_numbers);
	for (size_t i = 0; i < k; i++)
		if (s->n == 0 || s->cuts[i] != s->cuts[s->n - 1])
			s->cuts[s->n++] = s->cuts[i];
	for (size_t i = 0; i <= s->n; i++) {
		s->owner[i] = NOBODY;
		s->next[i] = i;
	}
	return 0;
}

static void
strips_free(struct strips *s)
{
	free(s->cuts);
	free(s->owner);
	free(s->next);
}

static size_t
find_cut(const struct strips *s, uint64_t at)
{
	size_t low = 0, high = s->n;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (s->cuts[mid] <= at)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* The first strip from i on that nobody owns. */
static size_t
find_free(struct strips *s, size_t i)
{
	while (s->next[i] != i) {
		s->next[i] = s->next[s->next[i]];
		i = s->next[i];
	}
	return i;
}

static void
own(struct strips *s, const struct piece *p, size_t number)
{
	size_t end;

	if (p->len == 0)
		return;
	end = find_cut(s, p->from + p->len);
	for (size_t i = find_free(s, find_cut(s, p->from)); i < end; i = find_free(s, i)) {
		s->owner[i] = number;
		s->next[i] = i + 1;
	}
}

static void
collect(struct pieces *p, const struct strips *s, const struct piece *list)
{
	for (size_t i = 0; i + 1 < s->n; i++) {
		const struct piece *from = s->owner[i] == NOBODY ? NULL : &list[s->owner[i]];
		uint64_t len = s->cuts[i + 1] - s->cuts[i];

		if (from == NULL)
			continue;
		if (i > 0 && s->owner[i - 1] == s->owner[i])
			p->list[p->n - 1].len += len;
		else
			p->list[p->n++] = (struct piece){ s->cuts[i], len,
				from->to + (s->cuts[i] - from->from) };
	}
}

int
pieces_make(struct pieces *p, const struct piece *list, size_t n, struct err *e)
{
	struct strips s = { .n = 0 };

	*p = (struct pieces){ .list = calloc(2 * n + 1, sizeof(*p->list)) };
	if (p->list == NULL || strips_init(&s, list, n) == -1) {
		strips_free(&s);
		return err_set(e, ERR_FAILED, "out of memory");
	}
	for (size_t i = 0; i < n; i++)
		own(&s, &list[i], i);
	collect(p, &s, list);
	strips_free(&s);
	return 0;
}

void
pieces_free(struct pieces *p)
{
	free(p->list);
	*p = (struct pieces){ .list = NULL };
}

static bool
holds(const struct piece *p, uint64_t at)
{
	return at >= p->from && at - p->from < p->len;
}

bool
pieces_find(struct pieces *p, uint64_t at, uint64_t *to)
{
	size_t low = 0, high = p->n;

	if (p->n == 0)
		return false;
	if (!holds(&p->list[p->last], at)) {
		while (high - low > 1) {
			size_t mid = low + (high - low) / 2;

			if (p->list[mid].from <= at)
				low = mid;
			else
				high = mid;
		}
		p->last = low;
	}
	if (!holds(&p->list[p->last], at))
		return false;
	*to = p->list[p->last].to + (at - p->list[p->last].from);
	return true;
}
