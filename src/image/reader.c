/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/reader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/mman.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "codec/codec.h"
#include "image/watch.h"

/* 512 leaves cover 4 GiB of a guest at 64 KiB chunks; the memory comes as it is used. */
#define CACHE_NODES 512u

/* A node is only what it was verified as: by this link, at this place in a tree. */
struct node_key {
	struct link link;
	uint32_t level, children;
};

struct image_reader {
	const struct image *img;
	struct decoder *dec;
	uint8_t *record; /* mapped, record_size: the record that is loaded */
	size_t record_size;
	uint8_t *pages; /* mapped, chunk size: what is decoded of it */
	uint8_t *cache; /* mapped, CACHE_NODES frames of verified nodes */
	struct node_key cache_key[CACHE_NODES]; /* offset 0: none */
	uint64_t behind; /* where the index may be readable again, after an error */
	/* The chunk that was loaded last. */
	bool ready; /* without an error, and from our own memory */
	const uint8_t *loaded; /* its record: ours, or the caller's */
	uint8_t *content; /* its pages: ours, or where the caller wants them */
	const struct object *object;
	uint64_t chunk;
	uint64_t record_offset;
	uint32_t npages; /* that it stores */
	uint32_t decoded; /* pages [0, decoded) were asked for */
	uint32_t checked; /* pages [0, checked) were compared with their sums */
	uint64_t single[CHUNK_PAGES_MAX / 64]; /* pages checked out of order */
	struct image_reader_stats stats;
	struct read_mark mark;
};

static uint8_t *
map_memory(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void
unmap_memory(uint8_t *p, size_t len)
{
	if (p != NULL)
		munmap(p, len);
}

#define CACHE_SIZE ((size_t)CACHE_NODES * NODE_FRAME_SIZE)

int
image_reader_new(struct image_reader **out, const struct image *img, struct err *e)
{
	struct image_reader *r;

	r = calloc(1, sizeof(*r));
	if (r == NULL)
		return err_sys(e, "image reader");
	r->img = img;
	r->record_size = record_length_max(img->g.pages);
	r->record = map_memory(r->record_size);
	r->pages = map_memory(img->g.chunk_size);
	r->cache = map_memory(CACHE_SIZE);
	if (r->record == NULL || r->pages == NULL || r->cache == NULL) {
		err_sys(e, "image reader");
		image_reader_free(r);
		return -1;
	}
	if (decoder_new(&r->dec, e) == -1) {
		image_reader_free(r);
		return -1;
	}
	image_reads_add(img, &r->mark);
	*out = r;
	return 0;
}

void
image_reader_free(struct image_reader *r)
{
	if (r == NULL)
		return;
	image_reads_remove(r->img, &r->mark);
	decoder_free(r->dec);
	unmap_memory(r->record, r->record_size);
	unmap_memory(r->pages, r->img->g.chunk_size);
	unmap_memory(r->cache, CACHE_SIZE);
	free(r);
}

int
image_reader_lock(struct image_reader *r, struct err *e)
{
	if (mlock(r->pages, r->img->g.chunk_size) == -1)
		return err_sys(e, "lock %u bytes of memory (raise RLIMIT_MEMLOCK, ulimit -l)",
		    r->img->g.chunk_size);
	return 0;
}

void
image_reader_urgent(struct image_reader *r, bool urgent)
{
	atomic_store(&r->mark.urgent, urgent);
}

void
image_reader_reading(struct image_reader *r, uint64_t off, uint64_t len)
{
	read_mark_begin(&r->mark, off, len);
}

void
image_reader_has_read(struct image_reader *r)
{
	read_mark_end(&r->mark);
}

/* All that is read is read here, so that it is known what takes long. */
static int
read_file(struct image_reader *r, void *buf, size_t len, uint64_t off, struct err *e)
{
	int rc;

	read_mark_begin(&r->mark, off, len);
	rc = fd_pread_full(r->img->fd, buf, len, off, e);
	read_mark_end(&r->mark);
	return rc;
}

void
image_reader_stats(const struct image_reader *r, struct image_reader_stats *stats)
{
	*stats = r->stats;
}

/* ---- index ---- */

static int
node_load(struct image_reader *r, const struct node_key *key, uint8_t *frame, struct err *e)
{
	const struct link *link = &key->link;
	uint8_t digest[DIGEST_SIZE];

	if (link->offset > r->img->size || r->img->size - link->offset < NODE_FRAME_SIZE)
		return err_set(e, ERR_CORRUPT, "does not fit the file of %llu bytes",
		    (unsigned long long)r->img->size);
	if (read_file(r, frame, NODE_FRAME_SIZE, link->offset, e) == -1)
		return -1;
	r->stats.bytes_read += NODE_FRAME_SIZE;
	r->stats.reads++;
	hash_digest(digest, frame + SKIP_SIZE, NODE_SIZE);
	if (le32dec(frame) != SKIP_NODE || le32dec(frame + 4) != NODE_SIZE ||
	    memcmp(digest, link->digest, DIGEST_SIZE) != 0)
		return err_set(e, ERR_CORRUPT, "its hash is wrong");
	return node_check(frame + SKIP_SIZE, key->level, key->children, link, &r->img->g, e);
}

_Static_assert(sizeof(struct node_key) == LINK_SIZE + 8, "node_key has no padding");

/* The verified node of a key whose link is not empty. */
static int
node_get(
    struct image_reader *r, const struct node_key *key, const uint8_t **node, struct err *e)
{
	unsigned slot =
	    (unsigned)(key->link.offset * UINT64_C(0x9E3779B97F4A7C15) >> 40) % CACHE_NODES;
	struct node_key *cached = &r->cache_key[slot];
	uint8_t *frame = r->cache + (size_t)slot * NODE_FRAME_SIZE;

	if (memcmp(cached, key, sizeof(*key)) != 0) {
		cached->link.offset = 0;
		if (node_load(r, key, frame, e) == -1)
			return err_wrap(
			    e, "index node at byte %llu", (unsigned long long)key->link.offset);
		*cached = *key;
	}
	*node = frame + SKIP_SIZE;
	return 0;
}

static int
in_object(const struct image_reader *r, const struct object *o, struct err *e)
{
	err_wrap(e, "%s: %s", r->img->path, o->name);
	return err_damage(e);
}

/* Leaves below one child link of a node that is `level` levels above the leaves. */
static uint64_t
leaves_below(unsigned level)
{
	return UINT64_C(1) << (6 * (level - 1));
}

_Static_assert(NODE_FANOUT == 64, "leaves_below counts in sixth powers of two");

/* How many children the node above `leaf` has, `level` levels above the leaves. */
static uint32_t
node_children(const struct geometry *g, uint64_t size, unsigned level, uint64_t leaf)
{
	uint64_t chunks = geometry_chunks(g, size), below;

	if (level == 0)
		return (uint32_t)MIN(chunks - leaf * g->leaf_fanout, g->leaf_fanout);
	below = div_up(div_up(chunks, g->leaf_fanout), leaves_below(level));
	return (uint32_t)MIN(
	    below - leaf / (leaves_below(level) * NODE_FANOUT) * NODE_FANOUT, NODE_FANOUT);
}

/*
 * Walks down to the leaf of `chunk`.  On the way an empty link ends the walk:
 * *node is NULL then and *skip the first chunk behind the empty span.
 */
static int
leaf_find(struct image_reader *r, const struct object *o, uint64_t chunk, const uint8_t **node,
    uint64_t *skip, struct err *e)
{
	const struct geometry *g = &r->img->g;
	uint64_t leaf = chunk / g->leaf_fanout;
	struct node_key key = { .link = o->top, .level = index_height(g, o->size) };
	uint64_t span = key.level == 0 ? 1 : leaves_below(key.level) * NODE_FANOUT;

	*node = NULL;
	for (;; key.level--) {
		if (key.link.offset == 0) {
			*skip = (leaf / span + 1) * span * g->leaf_fanout;
			return 0;
		}
		key.children = node_children(g, o->size, key.level, leaf);
		r->behind = (leaf / span + 1) * span * g->leaf_fanout;
		if (node_get(r, &key, node, e) == -1)
			return -1;
		if (key.level == 0)
			return 0;
		span = leaves_below(key.level);
		link_decode(&key.link, *node + leaf / span % NODE_FANOUT * LINK_SIZE);
		*node = NULL;
	}
}

static int
leaf_entry(struct image_reader *r, const struct object *o, const uint8_t *node, uint64_t chunk,
    struct entry *en, struct err *e)
{
	const struct geometry *g = &r->img->g;
	uint64_t left;

	r->behind = chunk + 1;
	if (entry_decode(en, node + chunk % g->leaf_fanout * g->entry_size, g, e) == -1)
		return err_wrap(
		    e, "chunk at %#llx", (unsigned long long)(chunk * g->chunk_size));
	left = div_up(image_chunk_size(r->img, o, chunk), PAGE_GRANULE);
	if (entry_rank(en, (uint32_t)left) != entry_stored(en, g) ||
	    entry_hot_rank(en, (uint32_t)left) != entry_hot(en, g))
		return err_set(e, ERR_CORRUPT, "chunk at %#llx stores pages beyond the end",
		    (unsigned long long)(chunk * g->chunk_size));
	return 0;
}

int
image_reader_entry(struct image_reader *r, const struct object *o, uint64_t chunk,
    struct entry *en, struct err *e)
{
	const uint8_t *node;
	uint64_t skip;

	if (leaf_find(r, o, chunk, &node, &skip, e) == -1)
		return in_object(r, o, e);
	if (node == NULL) {
		memset(en, 0, sizeof(*en));
		return 0;
	}
	if (leaf_entry(r, o, node, chunk, en, e) == -1)
		return in_object(r, o, e);
	return 0;
}

int
image_reader_next(struct image_reader *r, const struct object *o, uint64_t from,
    uint64_t *chunk, struct entry *en, struct err *e)
{
	uint64_t n = image_chunks(r->img, o), skip;
	const uint8_t *node;

	while (from < n) {
		if (leaf_find(r, o, from, &node, &skip, e) == -1)
			return in_object(r, o, e);
		if (node == NULL) {
			from = skip;
			continue;
		}
		do {
			if (leaf_entry(r, o, node, from, en, e) == -1)
				return in_object(r, o, e);
			if (en->length != 0 || entry_hot(en, &r->img->g) != 0) {
				*chunk = from;
				return 1;
			}
			from++;
		} while (from < n && from % r->img->g.leaf_fanout != 0);
	}
	return 0;
}

uint64_t
image_reader_behind(const struct image_reader *r)
{
	return r->behind;
}

const struct image *
image_reader_image(const struct image_reader *r)
{
	return r->img;
}

uint32_t
image_reader_stored(const struct image_reader *r, const struct entry *en)
{
	return entry_stored(en, &r->img->g);
}

struct node_walk {
	const struct object *object;
	node_visit *visit;
	void *arg;
	uint64_t count;
};

/*
 * Leaves are only counted here: whoever reads their entries verifies them.  `leaf` is the
 * first one below the node.
 */
static int
count_nodes(struct image_reader *r, struct node_walk *w, struct node_key *key, uint64_t leaf,
    struct err *e)
{
	struct node_key child = { .level = key->level - 1 };
	uint8_t copy[NODE_SIZE];
	const uint8_t *node;

	w->count++;
	if (w->visit != NULL)
		w->visit(w->arg, key->link.offset);
	if (key->level == 0)
		return 0;
	key->children = node_children(&r->img->g, w->object->size, key->level, leaf);
	if (node_get(r, key, &node, e) == -1)
		return -1;
	/* The cache may drop the node while its children are visited. */
	memcpy(copy, node, NODE_SIZE);
	for (unsigned i = 0; i < key->children; i++) {
		link_decode(&child.link, copy + (size_t)i * LINK_SIZE);
		if (child.link.offset != 0 &&
		    count_nodes(r, w, &child, leaf + i * leaves_below(key->level), e) == -1)
			return -1;
	}
	return 0;
}

int
image_reader_nodes(struct image_reader *r, const struct object *o, node_visit *visit, void *arg,
    uint64_t *count, struct err *e)
{
	struct node_key key = { .link = o->top, .level = index_height(&r->img->g, o->size) };
	struct node_walk w = { .object = o, .visit = visit, .arg = arg };

	*count = 0;
	if (o->top.offset == 0)
		return 0;
	if (count_nodes(r, &w, &key, 0, e) == -1)
		return in_object(r, o, e);
	*count = w.count;
	return 0;
}

/* ---- records ---- */

static int
in_record(const struct image_reader *r, struct err *e)
{
	err_wrap(e, "%s: %s: chunk at %#llx: record at byte %llu", r->img->path,
	    r->object->name, (unsigned long long)(r->chunk * r->img->g.chunk_size),
	    (unsigned long long)r->record_offset);
	return err_damage(e);
}

static int
record_read(struct image_reader *r, const struct entry *en, struct err *e)
{
	if (en->length > r->record_size || en->offset > r->img->size ||
	    r->img->size - en->offset < en->length)
		return err_set(e, ERR_CORRUPT, "%u bytes do not fit the file of %llu",
		    en->length, (unsigned long long)r->img->size);
	r->stats.reads++;
	return read_file(r, r->record, en->length, en->offset, e);
}

static int
record_begin(struct image_reader *r, const struct entry *en, struct err *e)
{
	uint32_t sums = 4 * r->npages;

	r->stats.bytes_read += en->length;
	r->stats.chunks++;
	if (le32dec(r->loaded) != SKIP_SUMS || le32dec(r->loaded + 4) != sums ||
	    hash_checksum(r->loaded + SKIP_SIZE, sums) != en->checksum)
		return err_set(e, ERR_CORRUPT, "checksum of its page sums is wrong");
	return decoder_begin(r->dec, r->loaded + SKIP_SIZE + sums,
	    en->length - SKIP_SIZE - sums, r->content, (size_t)r->npages * PAGE_GRANULE, e);
}

static void
chunk_begin(
    struct image_reader *r, const struct object *o, uint64_t chunk, const struct entry *en)
{
	r->object = o;
	r->chunk = chunk;
	r->record_offset = en->offset;
	r->npages = entry_stored(en, &r->img->g);
	r->decoded = r->checked = 0;
	r->ready = false;
	memset(r->single, 0, sizeof(r->single));
}

int
image_reader_load(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, struct err *e)
{
	chunk_begin(r, o, chunk, en);
	r->loaded = r->record;
	r->content = r->pages;
	if (record_read(r, en, e) == -1 || record_begin(r, en, e) == -1)
		return in_record(r, e);
	r->ready = true;
	return 0;
}

int
image_reader_load_from(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, const void *record, void *pages, struct err *e)
{
	chunk_begin(r, o, chunk, en);
	r->loaded = record;
	r->content = pages;
	return record_begin(r, en, e) == -1 ? in_record(r, e) : 0;
}

int
image_reader_ensure(struct image_reader *r, const struct object *o, uint64_t chunk,
    const struct entry *en, struct err *e)
{
	if (r->ready && r->object == o && r->chunk == chunk)
		return 0;
	return image_reader_load(r, o, chunk, en, e);
}

static int
page_check(struct image_reader *r, uint32_t rank, struct err *e)
{
	const uint8_t *page = r->content + (size_t)rank * PAGE_GRANULE;
	uint32_t want = le32dec(r->loaded + SKIP_SIZE + (size_t)4 * rank);
	uint32_t sum;

	if ((r->single[rank / 64] >> (rank % 64) & 1) != 0)
		return 0;
	sum = hash_page_sum(page, PAGE_GRANULE);
	if (sum != want)
		return err_set(e, ERR_CORRUPT,
		    "page %u of %u: checksum is %08x, should be %08x", rank, r->npages, sum,
		    want);
	r->single[rank / 64] |= UINT64_C(1) << (rank % 64);
	return 0;
}

static int
decode_pages(struct image_reader *r, uint32_t upto, struct err *e)
{
	size_t have = 0;

	if (decoder_until(r->dec, (size_t)upto * PAGE_GRANULE, &have, e) == -1)
		return -1;
	if (upto > r->decoded) {
		r->stats.bytes_decoded += (uint64_t)(upto - r->decoded) * PAGE_GRANULE;
		r->decoded = upto;
	}
	return 0;
}

int
image_reader_page(struct image_reader *r, uint32_t rank, const uint8_t **page, struct err *e)
{
	if (decode_pages(r, rank + 1, e) == -1 || page_check(r, rank, e) == -1)
		return in_record(r, e);
	*page = r->content + (size_t)rank * PAGE_GRANULE;
	return 0;
}

int
image_reader_pages(struct image_reader *r, uint32_t upto, const uint8_t **pages, struct err *e)
{
	if (decode_pages(r, upto, e) == -1)
		return in_record(r, e);
	for (; r->checked < upto; r->checked++)
		if (page_check(r, r->checked, e) == -1)
			return in_record(r, e);
	*pages = r->content;
	return 0;
}

const uint8_t *
image_reader_record(const struct image_reader *r)
{
	return r->loaded;
}
