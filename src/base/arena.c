/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/arena.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"

#define BLOCK_SIZE ((size_t)16 << 10)

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	alignas(max_align_t) unsigned char bytes[];
};

static struct arena_block *
block_new(size_t size)
{
	struct arena_block *b;
	size_t need;

	if (ckd_add(&need, sizeof(*b), size)) {
		errno = ENOMEM;
		return NULL;
	}
	b = calloc(1, need);
	if (b != NULL)
		b->size = size;
	return b;
}

void *
arena_alloc(struct arena *a, size_t len)
{
	struct arena_block *b = a->blocks;
	void *p;

	if (ckd_add(&len, len, alignof(max_align_t) - 1)) {
		errno = ENOMEM;
		return NULL;
	}
	len = align_down(len, alignof(max_align_t));
	if (b == NULL || b->size - b->used < len) {
		b = block_new(MAX(len, BLOCK_SIZE));
		if (b == NULL)
			return NULL;
		b->next = a->blocks;
		a->blocks = b;
	}
	p = b->bytes + b->used;
	b->used += len;
	return p;
}

void *
arena_array(struct arena *a, size_t n, size_t size)
{
	size_t len;

	if (ckd_mul(&len, n, size)) {
		errno = ENOMEM;
		return NULL;
	}
	return arena_alloc(a, len);
}

char *
arena_strndup(struct arena *a, const void *text, size_t len)
{
	char *s;

	s = arena_alloc(a, len + 1);
	if (s != NULL && len != 0)
		memcpy(s, text, len);
	return s;
}

char *
arena_strdup(struct arena *a, const char *text)
{
	return arena_strndup(a, text, strlen(text));
}

void
arena_free(struct arena *a)
{
	while (a->blocks != NULL) {
		struct arena_block *b = a->blocks;

		a->blocks = b->next;
		free(b);
	}
}
