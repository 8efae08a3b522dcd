/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_PIECES_H
#define GMEM_FORMAT_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A table from ranges of numbers to other numbers. */
struct piece {
	uint64_t from, len, to; /* from + len fits; an empty piece is ignored */
};

struct pieces {
	struct piece *list; /* owned; in order, not overlapping */
	size_t n;
	size_t last; /* where something was found last: what comes next is likely to be there */
};

/*
 * Where pieces of the list overlap the first counts.  Takes n log n steps, whatever they are.
 * p is to be freed also after an error.
 */
int pieces_make(struct pieces *p, const struct piece *list, size_t n, struct err *e);
void pieces_free(struct pieces *p);

/* Where `at` leads to. */
bool pieces_find(struct pieces *p, uint64_t at, uint64_t *to);

#endif
