/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_FIELDS_H
#define GMEM_FORMAT_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "codec/hash.h"
#include "format/cbor.h"
#include "format/manifest.h"

/*
 * The values in the maps of manifests and traces, and maps themselves: by a table of keys,
 * required or not, others are kept.  What is read is copied into the arena; `what` names it in
 * errors.
 */

/* A key, and how its value is read; `to` is the structure that the key belongs to. */
struct field {
	const char *name; /* NULL: the end of the table, which has 64 at most */
	int (*decode)(struct arena *arena, void *to, struct cbor_in *in, struct err *e);
	bool required;
};

int field_get_map(struct arena *arena, void *to, const struct field *fields,
    struct unknown **unknown, const char *what, struct cbor_in *in, struct err *e);

/* The head of an array or map of at most max items. */
int field_get_count(size_t *n, enum cbor_kind kind, size_t max, const char *what,
    struct cbor_in *in, struct err *e);

int field_get_uint(
    uint64_t *to, uint64_t max, const char *what, struct cbor_in *in, struct err *e);
int field_get_text(
    struct arena *arena, const char **to, const char *what, struct cbor_in *in, struct err *e);

/* A text that was read: refused if there is a NUL in it. */
int field_copy_text(struct arena *arena, const char **to, const struct cbor_item *text,
    const char *what, struct err *e);

int field_get_digest(
    uint8_t to[DIGEST_SIZE], const char *what, struct cbor_in *in, struct err *e);

/* The segments of an object; max: of their offsets and sizes. */
int field_get_segments(
    struct arena *arena, struct object *o, uint64_t max, struct cbor_in *in, struct err *e);

int field_no_memory(struct err *e);

/* Pairs of a map; a text that is NULL is left out. */
void field_put_text(struct cbor_map *map, const char *key, const char *value);
void field_put_uint(struct cbor_map *map, const char *key, uint64_t value);
void field_put_segments(struct cbor_map *map, const struct object *o); /* if it has any */
void field_put_unknown(struct cbor_map *map, const struct unknown *u);

#endif
