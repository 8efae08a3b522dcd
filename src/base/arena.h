/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BASE_ARENA_H
#define GMEM_BASE_ARENA_H

#include <stddef.h>

/* Memory that is given back all at once.  Zero-initialise; arena_free at the end. */
struct arena {
	struct arena_block *blocks;
};

/* Zeroed, aligned memory that lives as long as the arena, or NULL (errno ENOMEM). */
void *arena_alloc(struct arena *a, size_t len);
void *arena_array(struct arena *a, size_t n, size_t size);

/* A NUL-terminated copy of len bytes, or of a string. */
char *arena_strndup(struct arena *a, const void *text, size_t len);
char *arena_strdup(struct arena *a, const char *text);

void arena_free(struct arena *a);

#endif
