/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "reseal.h"

#include <string.h>
#include <sys/endian.h>

#include "format/header.h"
#include "format/manifest.h"
#include "format/node.h"
#include "format/trailer.h"

#define VISITS_MAX 200u /* nodes, so that a tree that links to itself ends */

struct sealer {
	uint8_t *image;
	size_t len;
	struct geometry g;
	bool counts;
	unsigned visits;
};

static void
seal_header(uint8_t *image)
{
	uint8_t blank[HEADER_SIZE];

	header_for_root(blank, image);
	le64enc(image + HEADER_SIZE - 8, hash_checksum(blank, HEADER_SIZE - 8));
}

/* Finds the manifest where the trailer says; its length, or 0. */
static size_t
find_manifest(const struct sealer *s, uint8_t **manifest)
{
	const uint8_t *trailer = s->image + s->len - TRAILER_SIZE;
	uint64_t off = le64dec(trailer + 24);
	size_t end = s->len - TRAILER_SIZE;

	if (off < HEADER_SIZE || off > end || end - off < SKIP_SIZE)
		return 0;
	*manifest = s->image + off + SKIP_SIZE;
	return end - off - SKIP_SIZE;
}

static void
seal_end(const struct sealer *s)
{
	uint8_t *trailer = s->image + s->len - TRAILER_SIZE, *manifest = NULL;
	size_t len = find_manifest(s, &manifest);

	if (len != 0) {
		le32enc(manifest - SKIP_SIZE, SKIP_MANIFEST);
		le32enc(manifest - 4, (uint32_t)len);
		le64enc(trailer + 32, len);
		hash_digest(trailer + 40, manifest, len);
	}
	le64enc(trailer + 16, s->len);
	root_digest(trailer + 72, s->image, trailer + 40);
	le64enc(trailer + TRAILER_SIZE - 8, hash_checksum(trailer, TRAILER_SIZE - 8));
}

static void
seal_entry(struct sealer *s, uint8_t *buf, struct link *sum)
{
	uint64_t off = le64dec(buf);
	struct entry en;
	struct err e;
	uint32_t sums;

	if (entry_decode(&en, buf, &s->g, &e) == -1)
		return;
	sums = 4 * entry_stored(&en, &s->g);
	sum->stored += sums / 4 + entry_hot(&en, &s->g);
	sum->hot += entry_hot(&en, &s->g);
	sum->bytes += en.length;
	if (sums != 0 && off < s->len && s->len - off >= SKIP_SIZE + sums)
		le64enc(buf + 16, hash_checksum(s->image + off + SKIP_SIZE, sums));
}

static void
seal_node(struct sealer *s, struct link *link, unsigned level)
{
	struct link sum = { 0 };
	uint8_t *node;

	if (link->offset < HEADER_SIZE || link->offset > s->len ||
	    s->len - link->offset < NODE_FRAME_SIZE || s->visits++ >= VISITS_MAX)
		return;
	node = s->image + link->offset + SKIP_SIZE;
	for (uint32_t i = 0; level == 0 && i < s->g.leaf_fanout; i++)
		seal_entry(s, node + (size_t)i * s->g.entry_size, &sum);
	for (uint32_t i = 0; level > 0 && i < NODE_FANOUT; i++) {
		struct link child;

		link_decode(&child, node + (size_t)i * LINK_SIZE);
		if (child.offset == 0)
			continue;
		seal_node(s, &child, level - 1);
		link_encode(node + (size_t)i * LINK_SIZE, &child);
		sum.stored += child.stored;
		sum.bytes += child.bytes;
		sum.hot += child.hot;
	}
	hash_digest(link->digest, node, NODE_SIZE);
	if (s->counts) {
		link->stored = sum.stored;
		link->bytes = sum.bytes;
		link->hot = sum.hot;
	}
}

/* The manifest says where the trees are; their tops are written back into it. */
static void
seal_index(struct sealer *s)
{
	struct cbor_out out = { 0 };
	uint8_t *bytes = NULL;
	size_t len = find_manifest(s, &bytes);
	struct manifest m = { 0 };
	struct err e = ERR_INIT;

	if (len == 0 || manifest_decode(&m, bytes, len, &e) == -1)
		goto out;
	for (size_t i = 0; i < m.nregions + m.nstates; i++) {
		struct object *o = i < m.nregions ? &m.regions[i] : &m.states[i - m.nregions];

		seal_node(s, &o->top, index_height(&s->g, o->size));
	}
	if (m.hot != NULL) {
		seal_node(s, &m.hot->pages.top, index_height(&s->g, m.hot->pages.size));
		seal_node(s, &m.hot->table.top, index_height(&s->g, m.hot->table.size));
	}
	if (manifest_encode(&out, &m, &e) == 0 && out.len == len)
		memcpy(bytes, out.buf, len);
out:
	cbor_out_free(&out);
	manifest_free(&m);
}

void
reseal(uint8_t *image, size_t len, enum reseal how)
{
	struct sealer s = { .image = image, .len = len, .counts = how >= RESEAL_COUNTS };
	struct err e;

	if (how == RESEAL_NOTHING || len < HEADER_SIZE + TRAILER_SIZE)
		return;
	seal_header(image);
	if (how >= RESEAL_INDEX && geometry_init(&s.g, le32dec(image + 28), &e) == 0)
		seal_index(&s);
	seal_end(&s);
}
