/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/writer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/header.h"
#include "format/trailer.h"
#include "image/content.h"
#include "image/out.h"

/*
 * The index tree of the object being written grows from the left.  Level 0
 * collects entries, level k links to nodes of level k-1.  A node is written
 * as soon as something to the right of it arrives, so at most one node of each
 * level is in memory.  The tree is as high as the object's size asks for; for
 * an object whose size is not known it is made as high as the content asks for.
 */
#define LEVELS_MAX 10

struct level {
	uint64_t number; /* which node of this level the buffer is */
	bool used; /* anything but zeros in it */
	struct link sum; /* of the counts below */
	uint8_t node[NODE_SIZE];
};

struct image_writer {
	struct out *out;
	struct geometry g;
	struct manifest manifest;
	bool hot; /* the header tells of a hot section */
	uint8_t header[HEADER_SIZE];
	struct object *object; /* being written, or NULL */
	uint64_t next_chunk;
	struct hash_stream *content; /* of the object, or NULL: no digests */
	bool digesting; /* the object */
	struct level levels[LEVELS_MAX];
};

static int
put(struct image_writer *w, const void *buf, size_t len, struct err *e)
{
	if (out_offset(w->out) + len > IMAGE_SIZE_MAX)
		return err_set(e, ERR_FAILED, "the image would be larger than 256 TiB");
	return out_write(w->out, buf, len, e);
}

static int
put_skip_head(struct image_writer *w, uint32_t magic, size_t len, struct err *e)
{
	uint8_t head[SKIP_SIZE];

	le32enc(head, magic);
	le32enc(head + 4, (uint32_t)len);
	return put(w, head, sizeof(head), e);
}

int
image_writer_new(
    struct image_writer **out, const char *path, const struct image_params *p, struct err *e)
{
	struct header h = {
		.state = IMAGE_PARTIAL,
		.chunk_size = p->chunk_size,
		.incompat = p->hot ? INCOMPAT_HOT : 0,
	};
	struct image_writer *w;

	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return err_sys(e, "image writer");
	w->hot = p->hot;
	if (p->digest && (w->content = hash_stream_new()) == NULL) {
		err_sys(e, "image writer");
		goto fail;
	}
	w->manifest.level = p->level;
	w->manifest.tool = "gmem " PACKAGE_VERSION;
	w->manifest.codec = "zstd";
	w->manifest.regions =
	    arena_array(&w->manifest.arena, OBJECTS_MAX, sizeof(struct object));
	w->manifest.states =
	    arena_array(&w->manifest.arena, OBJECTS_MAX, sizeof(struct object));
	if (w->manifest.regions == NULL || w->manifest.states == NULL) {
		err_sys(e, "image writer");
		goto fail;
	}
	if (geometry_init(&w->g, p->chunk_size, e) == -1 ||
	    out_open(&w->out, path, p->replace, e) == -1)
		goto fail;
	if (!out_seekable(w->out))
		h.state = IMAGE_STREAMED;
	header_encode(w->header, &h);
	if (put(w, w->header, HEADER_SIZE, e) == -1)
		goto fail;
	*out = w;
	return 0;
fail:
	image_writer_free(w);
	return -1;
}

const struct geometry *
image_writer_geometry(const struct image_writer *w)
{
	return &w->g;
}

struct manifest *
image_writer_manifest(struct image_writer *w)
{
	return &w->manifest;
}

uint64_t
image_writer_size(const struct image_writer *w)
{
	return out_offset(w->out);
}

static void
level_reset(struct level *l, uint64_t number)
{
	memset(l, 0, sizeof(*l));
	l->number = number;
}

/* Writes the node of a level, if there is anything in it, and describes it in *link. */
static int
level_flush(struct image_writer *w, struct level *l, struct link *link, struct err *e)
{
	memset(link, 0, sizeof(*link));
	if (!l->used)
		return 0;
	*link = l->sum;
	link->offset = out_offset(w->out);
	hash_digest(link->digest, l->node, NODE_SIZE);
	if (put_skip_head(w, SKIP_NODE, NODE_SIZE, e) == -1)
		return -1;
	return put(w, l->node, NODE_SIZE, e);
}

static void
level_add(struct level *l, const struct link *child)
{
	l->used = true;
	l->sum.stored += child->stored;
	l->sum.bytes += child->bytes;
	l->sum.hot += child->hot;
}

/* Makes node `number` of level k the current one: what is left of it goes up. */
static int
level_move(struct image_writer *w, unsigned k, uint64_t number, struct err *e)
{
	for (; k + 1 < LEVELS_MAX && w->levels[k].number != number; k++) {
		struct level *l = &w->levels[k], *up = &w->levels[k + 1];
		uint64_t slot = l->number % NODE_FANOUT;
		struct link link;

		if (level_flush(w, l, &link, e) == -1)
			return -1;
		/* l->number / NODE_FANOUT is still the current node above. */
		if (link.offset != 0) {
			link_encode(up->node + slot * LINK_SIZE, &link);
			level_add(up, &link);
		}
		level_reset(l, number);
		number /= NODE_FANOUT;
	}
	return 0;
}

static void
start(struct image_writer *w, struct object *o)
{
	w->object = o;
	w->next_chunk = 0;
	w->digesting = false;
	for (unsigned k = 0; k < LEVELS_MAX; k++)
		level_reset(&w->levels[k], 0);
}

int
image_writer_begin(struct image_writer *w, const struct object *o, bool state, struct err *e)
{
	struct manifest *m = &w->manifest;
	size_t *n = state ? &m->nstates : &m->nregions;
	struct object *to = (state ? m->states : m->regions) + *n;

	if (*n == OBJECTS_MAX)
		return err_set(e, ERR_FAILED, "more than %u %s", OBJECTS_MAX,
		    state ? "states" : "regions");
	if (object_check(o, state, e) == -1) {
		e->kind = ERR_FAILED;
		return -1;
	}
	if ((state ? manifest_state(m, o->name) : manifest_region(m, o->name)) != NULL)
		return err_set(e, ERR_FAILED, "two %s are called \"%s\"",
		    state ? "states" : "regions", o->name);
	*to = *o;
	to->name = arena_strdup(&m->arena, o->name);
	to->kind = arena_strdup(&m->arena, o->kind);
	to->segments = arena_array(&m->arena, o->nsegments, sizeof(*o->segments));
	if (to->name == NULL || to->kind == NULL || to->segments == NULL)
		return err_sys(e, "%s", o->name);
	if (o->nsegments != 0)
		memcpy(to->segments, o->segments, o->nsegments * sizeof(*o->segments));
	(*n)++;
	start(w, to);
	w->digesting = w->content != NULL && !o->has_digest;
	if (w->digesting)
		content_begin(w->content);
	return 0;
}

bool
image_writer_wants_content(const struct image_writer *w)
{
	return w->digesting;
}

void
image_writer_content(struct image_writer *w, const uint8_t *items, size_t len)
{
	hash_stream_add(w->content, items, len);
}

int
image_writer_begin_hot(
    struct image_writer *w, enum image_hot_object which, uint64_t size, struct err *e)
{
	struct manifest *m = &w->manifest;
	struct object *to;

	if (!w->hot)
		return err_set(e, ERR_FAILED, "a hot section was not announced");
	if (m->hot == NULL)
		m->hot = manifest_new_hot(m);
	if (m->hot == NULL)
		return err_sys(e, "hot section");
	to = which == HOT_OBJECT_PAGES ? &m->hot->pages : &m->hot->table;
	to->size = size;
	start(w, to);
	return 0;
}

int
image_writer_chunk(struct image_writer *w, uint64_t chunk, const struct entry *en,
    const void *record, struct err *e)
{
	struct entry placed = *en;
	struct level *leaf = &w->levels[0];
	uint32_t hot = entry_hot(en, &w->g);
	struct link sum = {
		.stored = entry_stored(en, &w->g) + hot,
		.bytes = en->length,
		.hot = hot,
	};
	uint64_t size = w->object->size != 0 ? w->object->size : OBJECT_SIZE_MAX;

	if (chunk < w->next_chunk)
		return err_set(e, ERR_FAILED, "chunk %llu comes after %llu",
		    (unsigned long long)chunk, (unsigned long long)w->next_chunk);
	if (chunk >= geometry_chunks(&w->g, size))
		return err_set(e, ERR_FAILED, "%s: chunk %llu is behind the end",
		    w->object->name, (unsigned long long)chunk);
	w->next_chunk = chunk + 1;
	if (en->length == 0 && hot == 0)
		return 0;
	if (level_move(w, 0, chunk / w->g.leaf_fanout, e) == -1)
		return -1;
	placed.offset = en->length != 0 ? out_offset(w->out) : 0;
	if (put(w, record, en->length, e) == -1)
		return -1;
	entry_encode(leaf->node + chunk % w->g.leaf_fanout * w->g.entry_size, &placed, &w->g);
	level_add(leaf, &sum);
	return 0;
}

int
image_writer_end(struct image_writer *w, uint64_t size, struct err *e)
{
	struct object *o = w->object;
	unsigned height;
	struct link top;

	if (size != 0)
		o->size = size;
	if (o->size == 0)
		return err_set(e, ERR_FAILED, "%s: is empty", o->name);
	if (o->size > OBJECT_SIZE_MAX || w->next_chunk > geometry_chunks(&w->g, o->size))
		return err_set(e, ERR_FAILED, "%s: %llu chunks do not fit %llu bytes", o->name,
		    (unsigned long long)w->next_chunk, (unsigned long long)o->size);
	height = index_height(&w->g, o->size);
	/* Every node below the top moves out of the way, into it. */
	for (unsigned k = 0; k < height; k++) {
		struct level *l = &w->levels[k], *up = &w->levels[k + 1];

		if (level_flush(w, l, &top, e) == -1)
			return -1;
		if (top.offset != 0) {
			link_encode(up->node + l->number % NODE_FANOUT * LINK_SIZE, &top);
			level_add(up, &top);
		}
	}
	if (level_flush(w, &w->levels[height], &top, e) == -1)
		return -1;
	o->top = top;
	if (w->digesting) {
		content_end(w->content, o->size, o->digest);
		o->has_digest = true;
	}
	w->object = NULL;
	return 0;
}

static int
write_end(struct image_writer *w, const struct cbor_out *manifest, uint8_t root[DIGEST_SIZE],
    struct err *e)
{
	struct trailer t = {
		.manifest_offset = out_offset(w->out),
		.manifest_length = manifest->len,
	};
	uint8_t buf[TRAILER_SIZE];

	if (put_skip_head(w, SKIP_MANIFEST, manifest->len, e) == -1 ||
	    put(w, manifest->buf, manifest->len, e) == -1)
		return -1;
	t.file_size = out_offset(w->out) + TRAILER_SIZE;
	hash_digest(t.manifest_digest, manifest->buf, manifest->len);
	root_digest(t.root, w->header, t.manifest_digest);
	memcpy(root, t.root, DIGEST_SIZE);
	trailer_encode(buf, &t);
	return put(w, buf, sizeof(buf), e);
}

int
image_writer_commit(struct image_writer *w, uint8_t root[DIGEST_SIZE], struct err *e)
{
	uint8_t state[HEADER_STATE_SIZE];
	struct cbor_out manifest;
	int rc;

	if (w->hot != (w->manifest.hot != NULL))
		return err_set(e, ERR_FAILED, "a hot section was announced and not written");
	if (manifest_encode(&manifest, &w->manifest, e) == -1)
		return -1;
	rc = write_end(w, &manifest, root, e);
	cbor_out_free(&manifest);
	if (rc == -1)
		return -1;
	header_encode_state(state, IMAGE_COMPLETE);
	if (out_seekable(w->out) &&
	    out_patch(w->out, state, sizeof(state), HEADER_STATE_OFFSET, e) == -1)
		return -1;
	return out_commit(w->out, e);
}

bool
image_writer_published(const struct image_writer *w)
{
	return out_published(w->out);
}

void
image_writer_free(struct image_writer *w)
{
	if (w == NULL)
		return;
	out_free(w->out);
	hash_stream_free(w->content);
	manifest_free(&w->manifest);
	free(w);
}
