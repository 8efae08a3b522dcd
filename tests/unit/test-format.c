/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "format/cbor.h"
#include "format/header.h"
#include "format/manifest.h"
#include "format/node.h"
#include "format/trailer.h"
#include "tap.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- header ---- */

static void
reseal(uint8_t buf[HEADER_SIZE])
{
	uint8_t blank[HEADER_SIZE];

	header_for_root(blank, buf);
	le64enc(buf + HEADER_SIZE - 8, hash_checksum(blank, HEADER_SIZE - 8));
}

static void
test_header_round_trip(void)
{
	static const enum image_state states[] = { IMAGE_PARTIAL, IMAGE_COMPLETE,
		IMAGE_STREAMED };
	static const char names[] = "PARTDONESTRM";

	for (unsigned i = 0; i < 3; i++) {
		struct header h = { states[i], 65536, 0, UINT64_C(0xf00) << 40 }, back;
		struct err e = ERR_INIT;
		uint8_t buf[HEADER_SIZE];

		header_encode(buf, &h);
		ok(memcmp(buf + HEADER_STATE_OFFSET, names + (size_t)4 * i, 4) == 0 &&
			header_decode(&back, buf, &e) == 0 && back.state == h.state &&
			back.chunk_size == 65536 && back.incompat == 0 &&
			back.compat == h.compat,
		    "header of state %.4s, compat bits are taken: %s", names + (size_t)4 * i,
		    e.msg);
	}
}

/* Sets `len` bytes at `off`, seals, and wants this error. */
static void
header_case(const char *name, unsigned off, const char *bytes, unsigned len, enum err_kind kind,
    const char *says)
{
	struct header h = { IMAGE_COMPLETE, 65536, 0, 0 };
	struct err e = ERR_INIT;
	uint8_t buf[HEADER_SIZE];

	header_encode(buf, &h);
	memcpy(buf + off, bytes, len);
	reseal(buf);
	ok(header_decode(&h, buf, &e) == -1 && e.kind == kind && strstr(e.msg, says) != NULL,
	    "header, %s: %s", name, e.msg);
}

static void
test_header_refused(void)
{
	struct header h = { IMAGE_COMPLETE, 65536, 0, 0 };
	struct err e = ERR_INIT;
	uint8_t buf[HEADER_SIZE];
	unsigned refused = 0;

	header_case("another magic", 0, "\x51", 1, ERR_CORRUPT, "not a gmem image");
	header_case("another name", 8, "gmem-ing", 8, ERR_CORRUPT, "not a gmem image");
	header_case("a longer frame", 4, "\x79", 1, ERR_CORRUPT, "frame has 121 bytes");
	header_case("major 2", 16, "\2", 1, ERR_UNSUPPORTED, "image format 2");
	header_case("major 0", 16, "\0", 1, ERR_UNSUPPORTED, "image format 0");
	header_case("a state of nothing", 24, "Done", 4, ERR_CORRUPT, "state 446f6e65");
	header_case("reserved byte 20", 20, "\1", 1, ERR_CORRUPT, "reserved");
	header_case("reserved byte 48", 48, "\1", 1, ERR_CORRUPT, "reserved");
	header_case("reserved byte 119", 119, "\1", 1, ERR_CORRUPT, "reserved");
	header_case("an unknown feature", 39, "\x80", 1, ERR_UNSUPPORTED,
	    "unknown features 0x8000000000000000");
	header_case("reserved features", 32, "\xf", 1, ERR_UNSUPPORTED, "features 0xd");
	header_case("chunk size 0", 28, "\0\0\0\0", 4, ERR_UNSUPPORTED, "chunk size 0");
	header_case("chunk size 2048", 28, "\0\x8\0\0", 4, ERR_UNSUPPORTED, "chunk size 2048");
	header_case("chunk size 12288", 28, "\0\x30\0\0", 4, ERR_UNSUPPORTED, "size 12288");
	header_case(
	    "chunk size 4 MiB", 28, "\0\0\x40\0", 4, ERR_UNSUPPORTED, "chunk size 4194304");
	header_encode(buf, &h);
	le16enc(buf + 16, 7);
	ok(header_decode(&h, buf, &e) == -1 && e.kind == ERR_UNSUPPORTED,
	    "the version is said before the checksum: %s", e.msg);
	header_encode(buf, &h);
	le16enc(buf + 18, 3);
	reseal(buf);
	ok(header_decode(&h, buf, &e) == 0, "a later minor version is read");
	header_encode(buf, &h);
	for (unsigned bit = 0; bit < HEADER_SIZE * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		refused += header_decode(&h, buf, &e) == -1;
		buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	ok(refused == HEADER_SIZE * 8, "%u of %d bit flips of a header are refused", refused,
	    HEADER_SIZE * 8);
}

/* ---- trailer ---- */

static const struct trailer a_trailer = {
	.file_size = 128 + 8 + 50 + 128,
	.manifest_offset = 128,
	.manifest_length = 50,
	.manifest_digest = { 1, 2, 3 },
	.root = { 4, 5, 6 },
};

static void
trailer_case(const char *name, struct trailer t, uint64_t size, int reserved, const char *says)
{
	struct err e = ERR_INIT;
	uint8_t buf[TRAILER_SIZE];

	trailer_encode(buf, &t);
	if (reserved != 0) {
		buf[reserved] ^= 1;
		le64enc(buf + 120, hash_checksum(buf, 120));
	}
	ok(trailer_decode(&t, buf, size, &e) == -1 && e.kind == ERR_CORRUPT &&
		strstr(e.msg, says) != NULL,
	    "trailer, %s: %s", name, e.msg);
}

static void
test_trailer(void)
{
	struct trailer t = a_trailer, back;
	struct err e = ERR_INIT;
	uint8_t buf[TRAILER_SIZE];
	unsigned refused = 0;

	trailer_encode(buf, &t);
	ok(trailer_present(buf) && trailer_decode(&back, buf, t.file_size, &e) == 0 &&
		memcmp(&t, &back, sizeof(t)) == 0,
	    "trailer round trip: %s", e.msg);
	for (unsigned bit = 0; bit < TRAILER_SIZE * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		refused += trailer_decode(&back, buf, t.file_size, &e) == -1;
		buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	ok(refused == TRAILER_SIZE * 8, "%u of %d bit flips of a trailer are refused", refused,
	    TRAILER_SIZE * 8);
	trailer_case("a shorter file", t, t.file_size - 1, 0, "its trailer says 314");
	trailer_case("reserved byte 104", t, t.file_size, 104, "reserved");
	trailer_case("reserved byte 119", t, t.file_size, 119, "reserved");
	trailer_case("a longer frame", t, t.file_size, 4, "length");
	t.manifest_offset = 127;
	trailer_case("manifest in the header", t, t.file_size, 0, "does not fit");
	t.manifest_offset = UINT64_MAX - 100;
	trailer_case("manifest behind everything", t, t.file_size, 0, "does not fit");
	t = a_trailer;
	t.manifest_length = 49;
	trailer_case("a gap in front of the trailer", t, t.file_size, 0, "does not fit");
	t.manifest_length = UINT64_MAX - 7;
	trailer_case("manifest of 2^64 bytes", t, t.file_size, 0, "does not fit");
	t.manifest_length = MANIFEST_SIZE_MAX + 1;
	t.file_size = 128 + 8 + t.manifest_length + 128;
	trailer_case("manifest over its limit", t, t.file_size, 0, "does not fit");
	t.file_size = IMAGE_SIZE_MAX + 1;
	trailer_case("file over its limit", t, t.file_size, 0, "too large");
}

static void
test_root(void)
{
	struct header part = { IMAGE_PARTIAL, 65536, 0, 0 }, done_ = part, other = part;
	uint8_t a[HEADER_SIZE], b[HEADER_SIZE], c[HEADER_SIZE];
	uint8_t ra[DIGEST_SIZE], rb[DIGEST_SIZE], rc[DIGEST_SIZE], digest[DIGEST_SIZE] = { 9 };

	done_.state = IMAGE_STREAMED;
	other.chunk_size = 4096;
	header_encode(a, &part);
	header_encode(b, &done_);
	header_encode(c, &other);
	root_digest(ra, a, digest);
	root_digest(rb, b, digest);
	root_digest(rc, c, digest);
	ok(memcmp(ra, rb, DIGEST_SIZE) == 0, "the root does not depend on the state");
	ok(memcmp(ra, rc, DIGEST_SIZE) != 0, "but on the rest of the header");
	digest[31] = 1;
	root_digest(rb, a, digest);
	ok(memcmp(ra, rb, DIGEST_SIZE) != 0, "and on the manifest");
}

/* ---- geometry, entries, links, nodes ---- */

static const struct {
	uint32_t chunk, mask, entry, fanout;
} geometries[] = {
	{ 4096, 4, 32, 128 },
	{ 8192, 4, 32, 128 },
	{ 16384, 4, 32, 128 },
	{ 32768, 4, 32, 128 },
	{ 65536, 4, 32, 128 },
	{ 131072, 4, 32, 128 },
	{ 262144, 8, 64, 64 },
	{ 524288, 16, 64, 64 },
	{ 1048576, 32, 128, 32 },
	{ 2097152, 64, 256, 16 },
};

static void
test_geometry(void)
{
	struct geometry g = { 0 };
	struct err e = ERR_INIT;

	for (size_t i = 0; i < COUNT(geometries); i++)
		ok(geometry_init(&g, geometries[i].chunk, &e) == 0 &&
			g.pages == geometries[i].chunk / 4096 &&
			g.mask_size == geometries[i].mask &&
			g.entry_size == geometries[i].entry &&
			g.leaf_fanout == geometries[i].fanout,
		    "chunks of %u: masks of %u, entries of %u, %u in a leaf",
		    geometries[i].chunk, g.mask_size, g.entry_size, g.leaf_fanout);
}

static void
test_entry_round_trip(uint32_t chunk)
{
	struct entry en = { .offset = 4711, .length = 2000, .checksum = UINT64_MAX - 3 }, back;
	struct err e = ERR_INIT;
	uint8_t buf[256];
	struct geometry g;
	uint32_t last, stored;

	if (geometry_init(&g, chunk, &e) == -1)
		abort();
	last = g.pages - 1;
	en.stored[0] = 1;
	en.stored[last / 64] |= UINT64_C(1) << (last % 64);
	stored = last == 0 ? 1 : 2;
	memset(buf, 0xff, sizeof(buf));
	entry_encode(buf, &en, &g);
	ok(entry_decode(&back, buf, &g, &e) == 0 && memcmp(&en, &back, sizeof(en)) == 0 &&
		entry_stored(&back, &g) == stored && entry_is_stored(&back, last) &&
		entry_rank(&back, last) == stored - 1 && entry_rank(&back, 0) == 0 &&
		(g.entry_size == sizeof(buf) || buf[g.entry_size] == 0xff),
	    "entry of a chunk of %u: %s", chunk, e.msg);
}

struct entry_case {
	const char *name;
	uint64_t offset;
	uint32_t length;
	uint64_t checksum, stored;
	unsigned reserved; /* a byte that is set to 1 */
	const char *says;
};

static void
test_entry_refused(void)
{
	static const struct entry_case cases[] = {
		{ "a record without pages", 200, 0, 0, 0, 0, "record but no pages" },
		{ "a length without pages", 0, 9, 0, 0, 0, "record but no pages" },
		{ "a checksum without pages", 0, 0, 9, 0, 0, "record but no pages" },
		{ "pages at byte 0", 0, 100, 9, 1, 0, "points at byte 0" },
		{ "pages in the header", 127, 100, 9, 1, 0, "points at byte 127" },
		{ "pages beyond any file", IMAGE_SIZE_MAX + 1, 99, 9, 1, 0, "points at byte" },
		{ "a record of its sums only", 200, 12, 9, 1, 0, "12 bytes for 1 pages" },
		{ "a record that is too long", 200, 1 << 20, 9, 1, 0, "bytes for 1 pages" },
		{ "pages behind the chunk", 200, 100, 9, 1 << 16, 0, "beyond its chunk" },
		{ "flags", 200, 100, 9, 1, 12, "reserved" },
		{ "flags, last bit", 200, 100, 9, 1, 15, "reserved" },
		{ "inherited pages", 200, 100, 9, 2, 28, "reserved" },
		{ "a record of hot pages", 200, 100, 9, 1, 28, "record but no pages" },
		{ "its last byte", 0, 0, 0, 0, 31, "reserved" },
	};
	struct err e = ERR_INIT;
	struct geometry g;

	if (geometry_init(&g, 65536, &e) == -1)
		abort();
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct entry_case *c = &cases[i];
		struct entry en = { c->offset, c->length, c->checksum, { c->stored }, { 0 } };
		uint8_t buf[32];

		entry_encode(buf, &en, &g);
		if (c->reserved != 0)
			buf[c->reserved] = 1;
		ok(entry_decode(&en, buf, &g, &e) == -1 && e.kind == ERR_CORRUPT &&
			strstr(e.msg, c->says) != NULL,
		    "entry with %s: %s", c->name, e.msg);
	}
}

static void
test_link(void)
{
	static const struct {
		const char *name;
		struct link link;
		bool good;
	} cases[] = {
		{ "nothing", { 0 }, true },
		{ "a node", { 128, 5, 600, 0, { 1 } }, true },
		{ "no node but pages", { 0, 5, 0, 0, { 0 } }, false },
		{ "no node but bytes", { 0, 0, 5, 0, { 0 } }, false },
		{ "no node but a hash", { 0, 0, 0, 0, { 1 } }, false },
		{ "no node but hot pages", { 0, 0, 0, 5, { 0 } }, false },
		{ "a node without pages", { 128, 0, 600, 0, { 1 } }, false },
		{ "a node without bytes", { 128, 5, 0, 0, { 1 } }, false },
		{ "a node with a hot page", { 128, 5, 600, 1, { 1 } }, true },
		{ "a node with hot pages only", { 128, 5, 0, 5, { 1 } }, true },
		{ "a node with records of no pages", { 128, 5, 600, 5, { 1 } }, false },
		{ "a node with pages of no records", { 128, 5, 0, 4, { 1 } }, false },
		{ "a node with inherited pages", { 128, 5, 600, 6, { 1 } }, false },
		{ "a node in the header", { 64, 5, 600, 0, { 1 } }, false },
		{ "a node beyond any file", { IMAGE_SIZE_MAX + 1, 5, 600, 0, { 1 } }, false },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct err e = ERR_INIT;
		uint8_t buf[LINK_SIZE];
		struct link back;

		link_encode(buf, &cases[i].link);
		link_decode(&back, buf);
		ok(memcmp(&back, &cases[i].link, sizeof(back)) == 0 &&
			(link_check(&back, &e) == 0) == cases[i].good &&
			(cases[i].good || e.kind == ERR_CORRUPT),
		    "link to %s: %s", cases[i].name, e.msg);
	}
}

static void
node_case(const char *name, const uint8_t *node, unsigned level, unsigned children,
    struct link sum, const char *says)
{
	struct err e = ERR_INIT;
	struct geometry g;
	int rc;

	if (geometry_init(&g, 65536, &e) == -1)
		abort();
	rc = node_check(node, level, children, &sum, &g, &e);
	ok(says == NULL ? rc == 0
			: rc == -1 && e.kind == ERR_CORRUPT && strstr(e.msg, says) != NULL,
	    "%s: %s", name, e.msg);
}

static void
test_node(void)
{
	struct entry en = { .offset = 999, .length = 500, .stored = { 7 } };
	struct link child = { .offset = 8888, .stored = 6, .bytes = 1000 };
	struct link sum = { .stored = 6, .bytes = 1000 };
	struct err e = ERR_INIT;
	uint8_t node[NODE_SIZE];
	struct geometry g;

	if (geometry_init(&g, 65536, &e) == -1)
		abort();
	memset(node, 0, sizeof(node));
	entry_encode(node, &en, &g);
	entry_encode(node + (size_t)9 * g.entry_size, &en, &g);
	node_case("leaf", node, 0, 128, sum, NULL);
	node_case("leaf, the last one", node, 0, 10, sum, NULL);
	node_case("leaf behind the end", node, 0, 9, sum, "behind the end");
	sum.stored--;
	node_case("leaf with more pages than its link", node, 0, 128, sum, "6 pages");
	sum.stored++;
	sum.bytes++;
	node_case("leaf with fewer bytes than its link", node, 0, 128, sum, "1000 bytes");
	node[12] = 1;
	node_case("leaf with a bad entry", node, 0, 128, sum, "reserved");
	memset(node, 0, sizeof(node));
	link_encode(node, &child);
	link_encode(node + (size_t)63 * LINK_SIZE, &child);
	sum = (struct link){ .stored = 12, .bytes = 2000 };
	node_case("inner node", node, 1, 64, sum, NULL);
	node_case("inner node behind the end", node, 1, 63, sum, "behind the end");
	sum.bytes = 1999;
	node_case("inner node, other sums", node, 1, 64, sum, "12 pages in 2000");
	sum.stored = 5;
	node_case("inner node, a child too large", node, 1, 64, sum, "more than its parent");
	node[0] = node[1] = 0;
	node_case("inner node with a bad link", node, 1, 64, sum, "not all zeros");
}

static void
test_height(void)
{
	static const struct {
		uint64_t size;
		unsigned height;
	} cases[] = {
		{ 1, 0 },
		{ UINT64_C(8) << 20, 0 },
		{ (UINT64_C(8) << 20) + 1, 1 },
		{ UINT64_C(512) << 20, 1 },
		{ (UINT64_C(512) << 20) + 1, 2 },
		{ UINT64_C(32) << 30, 2 },
		{ (UINT64_C(32) << 30) + 1, 3 },
		{ UINT64_C(2) << 40, 3 },
		{ OBJECT_SIZE_MAX, 4 },
	};
	struct err e = ERR_INIT;
	struct geometry g;

	if (geometry_init(&g, 65536, &e) == -1)
		abort();
	for (size_t i = 0; i < COUNT(cases); i++)
		ok(index_height(&g, cases[i].size) == cases[i].height,
		    "%llu bytes have %u levels above the leaves",
		    (unsigned long long)cases[i].size, cases[i].height);
}

/* ---- manifest: what may be said ---- */

static struct segment segments[2] = { { 0, 0, 4096 }, { 1 << 20, 4096, 4096 } };
static struct object region = { .name = "ram",
	.kind = "memfd",
	.size = 8192,
	.page_size = 4096,
	.top = { 128, 2, 600, 0, { 1 } },
	.segments = segments,
	.nsegments = 2 };
static struct object state = {
	.name = "device", .kind = "qemu", .size = 5, .top = { 0, 0, 0, 0, { 0 } }
};
static struct pair pairs[2] = { { "b", "two" }, { "aa", "gr\xc3\xbc\xc3\x9f"
							"e" } };
static const char *arguments[] = { "qemu", "-m", "" };

/* A manifest with everything in it, over objects of the caller's. */
static struct manifest
full(struct object *regions, struct object *states)
{
	regions[0] = region;
	states[0] = state;
	states[0].has_digest = true;
	memset(states[0].digest, 0xd1, DIGEST_SIZE);
	return (struct manifest){
		.tool = "gmem test",
		.created = "2024-01-02T03:04:05Z",
		.codec = "zstd",
		.level = -3,
		.regions = regions,
		.nregions = 1,
		.states = states,
		.nstates = 1,
		.vmm = { pairs, 1 },
		.command = arguments,
		.ncommand = 3,
		.annotations = { pairs, 2 },
	};
}

static bool
same_object(const struct object *a, const struct object *b)
{
	return strcmp(a->name, b->name) == 0 && strcmp(a->kind, b->kind) == 0 &&
	       a->size == b->size && a->page_size == b->page_size &&
	       memcmp(&a->top, &b->top, sizeof(a->top)) == 0 && a->nsegments == b->nsegments &&
	       (a->nsegments == 0 || memcmp(a->segments, b->segments,
					 a->nsegments * sizeof(*a->segments)) == 0) &&
	       a->has_digest == b->has_digest && memcmp(a->digest, b->digest, DIGEST_SIZE) == 0;
}

static void
test_manifest_round_trip(void)
{
	struct object regions[1], states[1];
	struct manifest m = full(regions, states), back;
	struct cbor_out out, again;
	struct err e = ERR_INIT;
	bool good;

	ok(manifest_encode(&out, &m, &e) == 0, "a manifest is encoded: %s", e.msg);
	good = manifest_decode(&back, out.buf, out.len, &e) == 0;
	ok(good && strcmp(back.tool, m.tool) == 0 && strcmp(back.created, m.created) == 0 &&
		strcmp(back.codec, m.codec) == 0 && back.level == -3,
	    "and decoded: %s", e.msg);
	ok(good && back.nregions == 1 && same_object(&back.regions[0], &region) &&
		back.nstates == 1 && same_object(&back.states[0], &states[0]),
	    "regions and states come back");
	ok(good && back.vmm.n == 1 && back.annotations.n == 2 &&
		strcmp(pairs_get(&back.annotations, "aa"), pairs[1].value) == 0 &&
		strcmp(pairs_get(&back.annotations, "b"), "two") == 0 &&
		pairs_get(&back.annotations, "c") == NULL && back.ncommand == 3 &&
		strcmp(back.command[1], "-m") == 0,
	    "so do texts");
	ok(good && manifest_region(&back, "ram") == &back.regions[0] &&
		manifest_state(&back, "device") == &back.states[0] &&
		manifest_state(&back, "ram") == NULL,
	    "objects are found by name");
	ok(good && manifest_encode(&again, &back, &e) == 0 && again.len == out.len &&
		memcmp(again.buf, out.buf, out.len) == 0,
	    "the same bytes when it is encoded again");
	manifest_free(&back);
	cbor_out_free(&out);
	cbor_out_free(&again);
}

static char long_text[TEXT_LENGTH_MAX + 2];
static struct pair many_pairs[PAIRS_MAX + 1];
static const char *many_arguments[ARGUMENTS_MAX + 1];
static struct segment many_segments[SEGMENTS_MAX + 1];
static struct object many_objects[OBJECTS_MAX + 1];

/* Each spoils one thing. */
#define SPOIL(name, statement)                                                                 \
	static void spoil_##name(struct manifest *m)                                           \
	{                                                                                      \
		(void)m;                                                                       \
		statement;                                                                     \
	}

SPOIL(nothing, )
SPOIL(codec, m->codec = "lz4")
SPOIL(codec_name, m->codec = "\033[2J")
SPOIL(level, m->level = LEVEL_MAX + 1)
SPOIL(level_low, m->level = -(int)LEVEL_MAX - 1)
SPOIL(tool, m->tool = long_text)
SPOIL(created, m->created = "\xff")
SPOIL(no_regions, m->nregions = 0)
SPOIL(name_empty, m->regions[0].name = "")
SPOIL(name_slash, m->regions[0].name = "a/b")
SPOIL(name_space, m->regions[0].name = "a b")
SPOIL(name_brace, m->regions[0].name = "a{")
SPOIL(name_equals, m->states[0].name = "a=b")
SPOIL(name_control, m->states[0].name = "\033c")
SPOIL(name_not_ascii, m->states[0].name = "\xc3\xbc")
SPOIL(name_longest, m->states[0].name = long_text + sizeof(long_text) - 1 - NAME_LENGTH_MAX)
SPOIL(name_long, m->states[0].name = long_text + sizeof(long_text) - 2 - NAME_LENGTH_MAX)
SPOIL(kind_long, m->states[0].kind = long_text + sizeof(long_text) - 2 - NAME_LENGTH_MAX)
SPOIL(kind_utf8, m->regions[0].kind = "\xc0\x80")
SPOIL(size_0, m->states[0].size = 0)
SPOIL(size_max, m->regions[0].size = OBJECT_SIZE_MAX)
SPOIL(size_over, m->regions[0].size = OBJECT_SIZE_MAX + 1)
SPOIL(page_0, m->regions[0].page_size = 0)
SPOIL(page_2048, m->regions[0].page_size = 2048)
SPOIL(page_12288, m->regions[0].page_size = 12288)
SPOIL(page_1g, m->regions[0].page_size = 1u << 30)
SPOIL(page_2g, m->regions[0].page_size = 1u << 31)
SPOIL(state_pages, m->states[0].page_size = 4096)
SPOIL(state_segments, m->states[0].segments = segments; m->states[0].nsegments = 1)
SPOIL(top_stored, m->regions[0].top.stored = 3)
SPOIL(top_bytes, m->regions[0].top.bytes = IMAGE_SIZE_MAX + 1)
SPOIL(top_inherited, m->regions[0].top.hot = m->regions[0].top.stored + 1)
SPOIL(top_hot, m->regions[0].top.hot = 1; m->regions[0].top.stored = 2)
SPOIL(top_empty, m->regions[0].top.offset = 0)
SPOIL(top_header, m->regions[0].top.offset = 100)
SPOIL(segments_out, segments[1].size++)
SPOIL(segments_wrap, segments[1].offset = UINT64_MAX)
SPOIL(segments_gpa, segments[1].gpa = UINT64_MAX)
SPOIL(segments_empty, segments[0].size = 0)
SPOIL(segments_max, m->regions[0].segments = many_segments;
      m->regions[0].nsegments = SEGMENTS_MAX)
SPOIL(segments_over, m->regions[0].segments = many_segments;
      m->regions[0].nsegments = SEGMENTS_MAX + 1)
SPOIL(objects_max, m->regions = many_objects; m->nregions = OBJECTS_MAX)
SPOIL(objects_over, m->regions = many_objects; m->nregions = OBJECTS_MAX + 1)
SPOIL(objects_twice, m->regions = many_objects; m->nregions = 2;
      many_objects[1].name = many_objects[0].name)
SPOIL(states_over, m->states = many_objects; m->nstates = OBJECTS_MAX + 1)
SPOIL(pairs_max, m->annotations = ((struct pairs){ many_pairs, PAIRS_MAX }))
SPOIL(pairs_over, m->annotations = ((struct pairs){ many_pairs, PAIRS_MAX + 1 }))
SPOIL(vmm_over, m->vmm = ((struct pairs){ many_pairs, PAIRS_MAX + 1 }))
SPOIL(pairs_twice, pairs[0].key = "aa")
SPOIL(key_long, pairs[0].key = long_text + sizeof(long_text) - 2 - NAME_LENGTH_MAX)
SPOIL(key_utf8, pairs[0].key = "\xed\xa0\x80")
SPOIL(value_longest, pairs[0].value = long_text + 1)
SPOIL(value_long, pairs[0].value = long_text)
SPOIL(value_utf8, pairs[0].value = "a\xf4\x90\x80\x80")
SPOIL(command_max, m->command = many_arguments; m->ncommand = ARGUMENTS_MAX)
SPOIL(command_over, m->command = many_arguments; m->ncommand = ARGUMENTS_MAX + 1)
SPOIL(argument_long, many_arguments[0] = long_text; m->command = many_arguments;
      m->ncommand = 1)
SPOIL(argument_utf8, many_arguments[0] = "\xe0\x9f\x80"; m->command = many_arguments;
      m->ncommand = 1)

struct spoil {
	const char *name;
	void (*spoil)(struct manifest *m);
	const char *says; /* NULL: it is good */
};

static const struct spoil spoils[] = {
	{ "as it is", spoil_nothing, NULL },
	{ "codec lz4", spoil_codec, "codec \"lz4\"" },
	{ "a codec that is no name", spoil_codec_name, "codec is no name" },
	{ "level over its limit", spoil_level, "level 1000001" },
	{ "level under its limit", spoil_level_low, "level -1000001" },
	{ "tool over its limit", spoil_tool, "tool: a text of 65536 bytes" },
	{ "created not UTF-8", spoil_created, "created: a text that is not UTF-8" },
	{ "no regions", spoil_no_regions, NULL },
	{ "an empty name", spoil_name_empty, "name" },
	{ "a name with a slash", spoil_name_slash, "name" },
	{ "a name with a space", spoil_name_space, "name" },
	{ "a name with a brace", spoil_name_brace, "name" },
	{ "a name with an equals sign", spoil_name_equals, "name" },
	{ "a name with a control character", spoil_name_control, "name" },
	{ "a name that is not ASCII", spoil_name_not_ascii, "name" },
	{ "the longest name", spoil_name_longest, NULL },
	{ "a name over its limit", spoil_name_long, "name" },
	{ "a kind over its limit", spoil_kind_long, "kind: a text of 256 bytes" },
	{ "a kind that is not UTF-8", spoil_kind_utf8, "not UTF-8" },
	{ "an empty state", spoil_size_0, "is empty" },
	{ "the largest region", spoil_size_max, NULL },
	{ "a region over its limit", spoil_size_over, "too many" },
	{ "page size 0", spoil_page_0, "page_size 0" },
	{ "page size 2048", spoil_page_2048, "page_size 2048" },
	{ "page size 12288", spoil_page_12288, "page_size 12288" },
	{ "page size 1 GiB", spoil_page_1g, NULL },
	{ "page size 2 GiB", spoil_page_2g, "page_size 2147483648" },
	{ "a state with a page size", spoil_state_pages, "a state with pages" },
	{ "a state with segments", spoil_state_segments, "a state with pages or seg" },
	{ "more pages than fit", spoil_top_stored, "does not fit its size" },
	{ "more bytes than fit", spoil_top_bytes, "does not fit its size" },
	{ "inherited pages", spoil_top_inherited, "without a parent" },
	{ "a hot page without a section", spoil_top_hot, "without a hot section" },
	{ "pages but no index", spoil_top_empty, "not all zeros" },
	{ "an index in the header", spoil_top_header, "points at byte 100" },
	{ "a segment that is too long", spoil_segments_out, "segment 1 does not fit" },
	{ "a segment that wraps", spoil_segments_wrap, "segment 1 does not fit" },
	{ "a segment whose address wraps", spoil_segments_gpa, "segment 1 does not fit" },
	{ "an empty segment", spoil_segments_empty, "segment 0 does not fit" },
	{ "as many segments as may be", spoil_segments_max, NULL },
	{ "a segment too many", spoil_segments_over, "257" },
	{ "as many regions as may be", spoil_objects_max, NULL },
	{ "a region too many", spoil_objects_over, "257" },
	{ "a state too many", spoil_states_over, "257" },
	{ "two regions of one name", spoil_objects_twice, "twice" },
	{ "as many annotations as may be", spoil_pairs_max, NULL },
	{ "an annotation too many", spoil_pairs_over, "1025" },
	{ "a fact too many", spoil_vmm_over, "1025" },
	{ "an annotation twice", spoil_pairs_twice, "a key twice" },
	{ "a key over its limit", spoil_key_long, "a text of 256 bytes" },
	{ "a key with a surrogate", spoil_key_utf8, "not UTF-8" },
	{ "the longest value", spoil_value_longest, NULL },
	{ "a value over its limit", spoil_value_long, "a text of 65536 bytes" },
	{ "a value beyond U+10FFFF", spoil_value_utf8, "not UTF-8" },
	{ "as many arguments as may be", spoil_command_max, NULL },
	{ "an argument too many", spoil_command_over, "65536" },
	{ "an argument over its limit", spoil_argument_long, "a text of 65536 bytes" },
	{ "an argument in a longer form than need be", spoil_argument_utf8, "not UTF-8" },
};

static void
fill_many(void)
{
	static char names[PAIRS_MAX + 1][8];

	memset(long_text, 'x', sizeof(long_text) - 1);
	for (unsigned i = 0; i <= PAIRS_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "n%u", i);
		many_pairs[i] = (struct pair){ names[i], "" };
		if (i <= OBJECTS_MAX)
			many_objects[i] = (struct object){
				.name = names[i], .kind = "k", .size = 1, .page_size = 4096
			};
		if (i <= SEGMENTS_MAX)
			many_segments[i] = (struct segment){ i, 0, 1 };
	}
	for (unsigned i = 0; i <= ARGUMENTS_MAX; i++)
		many_arguments[i] = "";
}

/*
 * The writer refuses it, and the reader too: its bytes come from put_unchecked, the
 * encoder without the check.
 */
static void put_unchecked(struct cbor_out *out, const struct manifest *m);

static void
test_spoil(const struct spoil *s)
{
	struct object regions[1], states[1];
	struct segment saved[2] = { segments[0], segments[1] };
	struct pair saved_pairs[2] = { pairs[0], pairs[1] };
	struct manifest m = full(regions, states), back;
	struct cbor_out out = { 0 }, raw = { 0 };
	struct err written = ERR_INIT, read = ERR_INIT;
	int wrote, got;

	fill_many();
	if (s->spoil == spoil_states_over)
		for (unsigned i = 0; i <= OBJECTS_MAX; i++)
			many_objects[i].page_size = 0;
	s->spoil(&m);
	wrote = manifest_encode(&out, &m, &written);
	put_unchecked(&raw, &m);
	got = manifest_decode(&back, raw.buf, raw.len, &read);
	if (s->says == NULL)
		ok(wrote == 0 && got == 0 && out.len == raw.len &&
			memcmp(out.buf, raw.buf, raw.len) == 0,
		    "%s: %s%s", s->name, written.msg, read.msg);
	else
		ok(wrote == -1 && written.kind == ERR_FAILED && got == -1 &&
			(read.kind == ERR_CORRUPT || read.kind == ERR_UNSUPPORTED) &&
			strstr(written.msg, s->says) != NULL,
		    "%s: %.100s; read: %.100s", s->name, written.msg, read.msg);
	manifest_free(&back);
	cbor_out_free(&out);
	cbor_out_free(&raw);
	memcpy(segments, saved, sizeof(saved));
	memcpy(pairs, saved_pairs, sizeof(saved_pairs));
}

/* ---- an encoder of manifests that checks nothing ---- */

static void
put_text(struct cbor_map *map, const char *key, const char *value)
{
	cbor_map_key(map, key);
	cbor_put_text(map->out, value);
}

static void
put_pairs(struct cbor_map *top, const char *key, const struct pairs *p)
{
	struct cbor_map map;

	cbor_map_key(top, key);
	cbor_map_begin(&map, top->out);
	for (size_t i = 0; i < p->n; i++)
		put_text(&map, p->list[i].key, p->list[i].value);
	cbor_map_end(&map);
}

static void
put_object(struct cbor_out *out, const struct object *o)
{
	uint8_t top[LINK_SIZE];
	struct cbor_map map;

	cbor_map_begin(&map, out);
	put_text(&map, "name", o->name);
	put_text(&map, "kind", o->kind);
	cbor_map_key(&map, "size");
	cbor_put_uint(out, o->size);
	cbor_map_key(&map, "index");
	link_encode(top, &o->top);
	cbor_put_bytes(out, top, sizeof(top));
	if (o->page_size != 0) {
		cbor_map_key(&map, "page_size");
		cbor_put_uint(out, o->page_size);
	}
	if (o->nsegments != 0) {
		cbor_map_key(&map, "segments");
		cbor_put_array(out, o->nsegments);
		for (size_t i = 0; i < o->nsegments; i++) {
			cbor_put_array(out, 3);
			cbor_put_uint(out, o->segments[i].gpa);
			cbor_put_uint(out, o->segments[i].offset);
			cbor_put_uint(out, o->segments[i].size);
		}
	}
	if (o->has_digest) {
		cbor_map_key(&map, "sha256");
		cbor_put_bytes(out, o->digest, DIGEST_SIZE);
	}
	cbor_map_end(&map);
}

static void
put_objects(struct cbor_map *map, const char *key, const struct object *list, size_t n)
{
	cbor_map_key(map, key);
	cbor_put_array(map->out, n);
	for (size_t i = 0; i < n; i++)
		put_object(map->out, &list[i]);
}

static void
put_unchecked(struct cbor_out *out, const struct manifest *m)
{
	struct cbor_map map;

	cbor_map_begin(&map, out);
	put_text(&map, "tool", m->tool);
	put_text(&map, "created", m->created);
	put_text(&map, "codec", m->codec);
	cbor_map_key(&map, "level");
	cbor_put_int(out, m->level);
	put_objects(&map, "regions", m->regions, m->nregions);
	put_objects(&map, "states", m->states, m->nstates);
	put_pairs(&map, "vmm", &m->vmm);
	cbor_map_key(&map, "command");
	cbor_put_array(out, m->ncommand);
	for (size_t i = 0; i < m->ncommand; i++)
		cbor_put_text(out, m->command[i]);
	put_pairs(&map, "annotations", &m->annotations);
	cbor_map_end(&map);
}

/* ---- manifest: how it is said ---- */

/* Encoded pairs of a smallest manifest, in order. */
#define P_TOOL "\x64tool\x61t"
#define P_CODEC                                                                                \
	"\x65"                                                                                 \
	"codec\x64zstd"
#define P_LEVEL "\x65level\1"
#define P_STATES "\x66states\x80"
#define P_REGIONS "\x67regions\x80"
#define SMALLEST P_TOOL P_CODEC P_LEVEL P_STATES P_REGIONS

/* …and of a smallest state. */
#define ZEROS "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define P_KIND "\x64kind\x61k"
#define P_NAME "\x64name\x61n"
#define P_SIZE "\x64size\1"
#define P_INDEX "\x65index\x58\x40" ZEROS ZEROS
#define STATE(head, pairs) "\xa5" P_TOOL P_CODEC P_LEVEL "\x66states\x81" head pairs P_REGIONS

struct raw {
	const char *name, *bytes;
	size_t len;
	const char *says; /* NULL: it is read, and written again as the same bytes */
};

#define RAW(name, bytes, says)                                                                 \
	{                                                                                      \
		name, bytes, sizeof(bytes) - 1, says                                           \
	}

static const struct raw raws[] = {
	RAW("the smallest", "\xa5" SMALLEST, NULL),
	RAW("a state", STATE("\xa4", P_KIND P_NAME P_SIZE P_INDEX), NULL),
	RAW("unknown keys",
	    "\xa8"
	    "\x61x\xf6" P_TOOL "\x64zzzz\x18\x2a" P_CODEC P_LEVEL P_STATES P_REGIONS
	    "\x67unknown\xa1\x81\1\xfb\0\0\0\0\0\0\0\0",
	    NULL),
	RAW("unknown keys of an object",
	    STATE("\xa6", P_KIND P_NAME P_SIZE P_INDEX "\x67unknown\x43"
						       "abc"
						       "\x67"
						       "vnknown\x82\1\x20"),
	    NULL),
	RAW("the reserved key",
	    "\xa6" P_TOOL P_CODEC P_LEVEL "\x66parent"
	    "\xa0" P_STATES P_REGIONS,
	    NULL),
	RAW("nothing", "", "cut short"),
	RAW("no map", "\x80", "manifest is an array, not a map"),
	RAW("an empty map", "\xa0", "no \"tool\""),
	RAW("no tool", "\xa4" P_CODEC P_LEVEL P_STATES P_REGIONS, "no \"tool\""),
	RAW("no codec", "\xa4" P_TOOL P_LEVEL P_STATES P_REGIONS, "no \"codec\""),
	RAW("no level", "\xa4" P_TOOL P_CODEC P_STATES P_REGIONS, "no \"level\""),
	RAW("no states", "\xa4" P_TOOL P_CODEC P_LEVEL P_REGIONS, "no \"states\""),
	RAW("no regions", "\xa4" P_TOOL P_CODEC P_LEVEL P_STATES, "no \"regions\""),
	RAW("a state without kind", STATE("\xa3", P_NAME P_SIZE P_INDEX), "no \"kind\""),
	RAW("a state without name", STATE("\xa3", P_KIND P_SIZE P_INDEX), "no \"name\""),
	RAW("a state without size", STATE("\xa3", P_KIND P_NAME P_INDEX), "no \"size\""),
	RAW("a state without index", STATE("\xa3", P_KIND P_NAME P_SIZE), "no \"index\""),
	RAW("an index that is too short",
	    STATE("\xa4", P_KIND P_NAME P_SIZE "\x65index\x41"
					       "a"),
	    "index of 1 bytes"),
	RAW("a byte behind it", "\xa5" SMALLEST "\0", "1 bytes behind its end"),
	RAW("a pair less than announced", "\xa6" SMALLEST, "cut short"),
	RAW("a key twice", "\xa6" P_TOOL P_TOOL P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "a key twice"),
	RAW("an unknown key twice",
	    "\xa7"
	    "\x61x\1\x61x\1" SMALLEST,
	    "a key twice"),
	RAW("keys out of order", "\xa5" P_CODEC P_TOOL P_LEVEL P_STATES P_REGIONS,
	    "a key out of order"),
	RAW("a key that is no text", "\xa6\1\1" SMALLEST, "key is an unsigned integer"),
	RAW("a number longer than need be",
	    "\xa5" P_TOOL P_CODEC "\x65level\x18\1" P_STATES P_REGIONS, "shortest form"),
	RAW("a text with a longer head",
	    "\xa5"
	    "\x64tool\x78\1t" P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "shortest form"),
	RAW("a longer map head", "\xb8\x05" SMALLEST, "shortest form"),
	RAW("an indefinite map", "\xbf" SMALLEST "\xff", "indefinite length"),
	RAW("an indefinite text",
	    "\xa5"
	    "\x64tool\x7f\x61t\xff" P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "indefinite length"),
	RAW("a tag",
	    "\xa5"
	    "\x64tool\xc0\x61t" P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "a tag"),
	RAW("a text with a NUL",
	    "\xa5"
	    "\x64tool\x62t\0" P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "NUL"),
	RAW("a text that is not UTF-8",
	    "\xa5"
	    "\x64tool\x61\x80" P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "not UTF-8"),
	RAW("an unknown text that is not UTF-8",
	    "\xa6"
	    "\x61x\x61\x80" SMALLEST,
	    "not UTF-8"),
	RAW("a level that is a text", "\xa5" P_TOOL P_CODEC "\x65level\x61x" P_STATES P_REGIONS,
	    "level is not a small number"),
	RAW("a level that is too large",
	    "\xa5" P_TOOL P_CODEC "\x65level\x1a\x10\0\0\0" P_STATES P_REGIONS,
	    "level is not a small number"),
	RAW("an array of 2^64 - 1 items",
	    "\xa5" P_TOOL P_CODEC P_LEVEL
	    "\x66states\x9b\xff\xff\xff\xff\xff\xff\xff\xff" P_REGIONS,
	    "announces"),
	RAW("a map of 2^63 pairs",
	    "\xa5" P_TOOL P_CODEC P_LEVEL "\x66states\xbb\x80\0\0\0\0\0\0\0" P_REGIONS,
	    "announces"),
	RAW("a text of 2^64 - 1 bytes",
	    "\xa5"
	    "\x64tool\x7b\xff\xff\xff\xff\xff\xff\xff\xff" P_CODEC P_LEVEL P_STATES P_REGIONS,
	    "cut short"),
	RAW("nested as deep as may be",
	    "\xa6"
	    "\x61x\x81\x81\x81\x81\x81\x81\x81\x81\1" SMALLEST,
	    NULL),
	RAW("nested deeper",
	    "\xa6"
	    "\x61x\x81\x81\x81\x81\x81\x81\x81\x81\x81\1" SMALLEST,
	    "nested more than 8 deep"),
};

static void
test_raw(const struct raw *r)
{
	struct cbor_out again = { 0 };
	struct err e = ERR_INIT;
	struct manifest m;
	uint8_t *copy = malloc(r->len + 1);
	int rc;

	memcpy(copy, r->bytes, r->len);
	rc = manifest_decode(&m, copy, r->len, &e);
	/* The bytes may go. */
	memset(copy, 0xee, r->len);
	if (r->says != NULL)
		ok(rc == -1 && e.kind == ERR_CORRUPT && strstr(e.msg, r->says) != NULL,
		    "manifest, %s: %s", r->name, e.msg);
	else
		ok(rc == 0 && manifest_encode(&again, &m, &e) == 0 && again.len == r->len &&
			memcmp(again.buf, r->bytes, r->len) == 0,
		    "manifest, %s: the same bytes come back: %s", r->name, e.msg);
	manifest_free(&m);
	cbor_out_free(&again);
	free(copy);
}

/* Every truncation and single-bit flip: an error, or bytes that come back the same. */
static void
test_manifest_damage(void)
{
	struct object regions[1], states[1];
	struct manifest m = full(regions, states), back;
	struct cbor_out out, again;
	struct err e = ERR_INIT;
	unsigned cut = 0, same = 0, errors = 0;

	if (manifest_encode(&out, &m, &e) == -1)
		abort();
	for (size_t n = 0; n < out.len; n++) {
		cut += manifest_decode(&back, out.buf, n, &e) == -1;
		manifest_free(&back);
	}
	ok(cut == out.len, "%u of %zu truncations of a manifest are noticed", cut, out.len);
	for (size_t bit = 0; bit < out.len * 8; bit++) {
		out.buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		if (manifest_decode(&back, out.buf, out.len, &e) == -1)
			errors++;
		else if (manifest_encode(&again, &back, &e) == 0) {
			same +=
			    again.len == out.len && memcmp(again.buf, out.buf, out.len) == 0;
			cbor_out_free(&again);
		}
		manifest_free(&back);
		out.buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	ok(errors + same == out.len * 8, "%zu bit flips: %u errors, %u other manifests",
	    out.len * 8, errors, same);
	cbor_out_free(&out);
}

static void
test_too_large(void)
{
	static struct pair large[80];
	struct object regions[1], states[1];
	struct manifest m = full(regions, states);
	struct cbor_out out;
	struct err e = ERR_INIT;

	fill_many();
	for (unsigned i = 0; i < COUNT(large); i++)
		large[i] = (struct pair){ many_pairs[i].key, long_text + 1 };
	m.annotations = (struct pairs){ large, COUNT(large) };
	ok(manifest_encode(&out, &m, &e) == -1 && e.kind == ERR_FAILED &&
		strstr(e.msg, "at most 4194304") != NULL && out.buf == NULL,
	    "a manifest over its limit: %s", e.msg);
}

int
main(void)
{
	test_header_round_trip();
	test_header_refused();
	test_trailer();
	test_root();
	test_geometry();
	for (size_t i = 0; i < COUNT(geometries); i++)
		test_entry_round_trip(geometries[i].chunk);
	test_entry_refused();
	test_link();
	test_node();
	test_height();
	test_manifest_round_trip();
	for (size_t i = 0; i < COUNT(spoils); i++)
		test_spoil(&spoils[i]);
	for (size_t i = 0; i < COUNT(raws); i++)
		test_raw(&raws[i]);
	test_manifest_damage();
	test_too_large();
	return done();
}
