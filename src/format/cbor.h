/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_CBOR_H
#define GMEM_FORMAT_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The part of CBOR (RFC 8949) that manifests use, over libcbor's streaming
 * encoder and decoder: definite lengths, text keys, no recursion on input.
 */

/* Bytes that grow; a failed allocation is remembered and reported once. */
struct cbor_out {
	uint8_t *buf; /* owned; cbor_out_free */
	size_t len, cap;
	bool failed;
	bool repeated; /* a map got the same key twice */
};

void cbor_out_free(struct cbor_out *out);
void cbor_put_uint(struct cbor_out *out, uint64_t value);
void cbor_put_int(struct cbor_out *out, int64_t value);
void cbor_put_text(struct cbor_out *out, const char *text);
void cbor_put_bytes(struct cbor_out *out, const void *bytes, size_t len);
void cbor_put_array(struct cbor_out *out, size_t n);
void cbor_put_raw(struct cbor_out *out, const void *encoded, size_t len);

/*
 * A map in deterministic order (RFC 8949 §4.2.1): give the pairs in any order,
 * each as cbor_map_key and then exactly one value; cbor_map_end sorts them.
 */
struct cbor_map {
	struct cbor_out *out;
	size_t start; /* where the pairs begin in out */
	size_t *pairs; /* owned: offsets of the keys */
	size_t n, cap;
};

void cbor_map_begin(struct cbor_map *map, struct cbor_out *out);
void cbor_map_key(struct cbor_map *map, const char *key);
/* A pair that is already encoded (kept from an image that was read). */
void cbor_map_raw(struct cbor_map *map, const void *pair, size_t len);
void cbor_map_end(struct cbor_map *map);

/* Input that is not trusted; borrowed. */
struct cbor_in {
	const uint8_t *p;
	size_t left;
};

enum cbor_kind {
	CBOR_UINT,
	CBOR_NEGINT,
	CBOR_BYTES,
	CBOR_TEXT,
	CBOR_ARRAY,
	CBOR_MAP,
	CBOR_OTHER
};

struct cbor_item {
	enum cbor_kind kind;
	uint64_t
	    value; /* of an integer (−1 − value if negative); items of array, pairs of map */
	const uint8_t *data; /* of bytes or text: value bytes of it, not terminated */
};

/*
 * Reads one item head (and the content of a string), in its shortest form.
 * Every count fits what is left, and text is UTF-8.
 */
int cbor_get(struct cbor_in *in, struct cbor_item *item, struct err *e);

/* The same, and it must be of this kind; `what` names it in the error. */
int cbor_expect(struct cbor_in *in, enum cbor_kind kind, struct cbor_item *item,
    const char *what, struct err *e);

/*
 * Reads the key of a map's next pair: a text that sorts behind *key, the one
 * before (data NULL at the first), so that no key comes twice.
 */
int cbor_next_key(struct cbor_in *in, struct cbor_item *key, const char *what, struct err *e);

/* Whether the bytes are UTF-8. */
bool cbor_text_ok(const void *text, size_t len);

/* Steps over one whole value, at most `depth` deep. */
int cbor_skip(struct cbor_in *in, unsigned depth, struct err *e);

#endif
