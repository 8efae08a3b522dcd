/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_FORMAT_MANIFEST_H
#define GMEM_FORMAT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "format/cbor.h"
#include "format/node.h"

/* Where a piece of a region lies in the guest physical address space. */
struct segment {
	uint64_t gpa, offset, size; /* bytes */
};

/* Keys of a map that this version does not know: kept, encoded, for a rewrite. */
struct unknown {
	const uint8_t *bytes;
	size_t len;
	struct unknown *next;
};

/* Anything with an index: a memory region, or a blob of VMM state. */
struct object {
	const char *name;
	const char *kind; /* regions: memfd, hugetlb, file, guest_memfd; states: free */
	uint64_t size; /* bytes; what is behind it in the last page is zero */
	uint32_t page_size; /* of the memory it was, at least 4096; regions only */
	struct link top; /* of its index tree */
	struct segment *segments;
	size_t nsegments;
	bool has_digest; /* of its content: image/content.h */
	uint8_t digest[DIGEST_SIZE];
	struct unknown *unknown;
};

/*
 * The hot section: pages that a guest needs first.  Names and kinds of its objects are
 * for messages and not in the file.
 */
struct hot_section {
	struct object pages; /* their bytes in the order of first touch; size 0: none stored */
	struct object table; /* what they are: HOT_ENTRY_SIZE bytes each */
	bool has_trace;
	uint8_t trace[DIGEST_SIZE]; /* root hash of the image that was recorded; a note */
	struct unknown *unknown;
};

struct pair {
	const char *key, *value;
};

struct pairs {
	struct pair *list;
	size_t n;
};

/*
 * What an image says about itself.  Strings and arrays live in the arena;
 * manifest_free gives everything back.
 */
struct manifest {
	struct arena arena;
	const char *tool; /* "gmem 0.1.0" */
	const char *created; /* RFC 3339, or NULL */
	const char *codec; /* "zstd" */
	int level;
	struct object *regions;
	size_t nregions;
	struct object *states;
	size_t nstates;
	struct hot_section *hot; /* or NULL */
	struct pairs vmm; /* facts about the VMM: kind, version, machine… */
	const char **command; /* its command line, if known */
	size_t ncommand;
	struct pairs annotations;
	struct unknown *unknown;
};

void manifest_free(struct manifest *m);

/*
 * Deterministic CBOR; the bytes belong to the caller (cbor_out_free).  A
 * manifest that manifest_decode would refuse is ERR_FAILED.
 */
int manifest_encode(struct cbor_out *out, const struct manifest *m, struct err *e);

/*
 * m is zeroed first and is to be freed also after an error.  Takes nothing but
 * deterministic CBOR and checks it with manifest_check.  Strings are copied,
 * so buf may go.
 */
int manifest_decode(struct manifest *m, const void *buf, size_t len, struct err *e);

/*
 * Every limit: that names differ, that segments lie in their region, that texts
 * are UTF-8, that tops agree with sizes.  ERR_CORRUPT, or ERR_UNSUPPORTED for a codec.
 */
int manifest_check(const struct manifest *m, struct err *e);

#define HOT_ENTRY_SIZE 8u /* bytes of an entry of the table */

/* An empty section in the manifest's arena, with its names; NULL: out of memory. */
struct hot_section *manifest_new_hot(struct manifest *m);

/* What can be checked of one object before its index and a state's size are known. */
int object_check(const struct object *o, bool state, struct err *e);

/* The region or state of that name, or NULL. */
const struct object *manifest_region(const struct manifest *m, const char *name);
const struct object *manifest_state(const struct manifest *m, const char *name);

/* The value of a key, or NULL. */
const char *pairs_get(const struct pairs *p, const char *key);

/* Names are 1 to 255 bytes of printable ASCII without '/', '{', '}' or '='. */
bool manifest_name_ok(const char *name);

#endif
