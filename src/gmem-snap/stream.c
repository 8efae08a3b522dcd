/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "image/content.h"
#include "image/pack.h"

struct stream {
	struct image_writer *writer; /* borrowed */
	uint32_t chunk_size;
	struct packer *packer;
	uint8_t *chunk; /* gathered so far */
	size_t have;
	uint8_t *record;
	uint8_t *items; /* image/content.h */
	uint64_t done; /* bytes of whole chunks before that */
};

int
stream_new(struct stream **out, struct image_writer *writer, int level, struct err *e)
{
	const struct geometry *g = image_writer_geometry(writer);
	struct stream *s;

	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return err_sys(e, "VMM state");
	s->writer = writer;
	s->chunk_size = g->chunk_size;
	s->chunk = malloc(g->chunk_size);
	s->record = malloc(packer_bound(g));
	s->items = malloc(content_items_max(g));
	if (s->chunk == NULL || s->record == NULL || s->items == NULL)
		err_sys(e, "VMM state");
	if (s->chunk == NULL || s->record == NULL || s->items == NULL ||
	    packer_new(&s->packer, g, level, e) == -1) {
		stream_free(s);
		return -1;
	}
	*out = s;
	return 0;
}

void
stream_free(struct stream *s)
{
	if (s == NULL)
		return;
	packer_free(s->packer);
	free(s->chunk);
	free(s->record);
	free(s->items);
	free(s);
}

int
stream_begin(struct stream *s, const char *name, const char *kind, struct err *e)
{
	const struct object o = { .name = name, .kind = kind };

	s->have = 0;
	s->done = 0;
	return image_writer_begin(s->writer, &o, true, e);
}

static int
flush(struct stream *s, struct err *e)
{
	uint64_t chunk = s->done / s->chunk_size;
	struct entry en;

	if (packer_pack(s->packer, s->chunk, s->have, &en, s->record, e) == -1 ||
	    image_writer_chunk(s->writer, chunk, &en, s->record, e) == -1)
		return -1;
	if (image_writer_wants_content(s->writer))
		image_writer_content(s->writer, s->items,
		    content_of_chunk(s->items, image_writer_geometry(s->writer), chunk,
			s->chunk, s->have, &en));
	s->done += s->have;
	s->have = 0;
	return 0;
}

int
stream_put(struct stream *s, const void *buf, size_t len, struct err *e)
{
	const uint8_t *from = buf;

	while (len > 0) {
		size_t n = MIN(len, s->chunk_size - s->have);

		memcpy(s->chunk + s->have, from, n);
		s->have += n;
		from += n;
		len -= n;
		if (s->have == s->chunk_size && flush(s, e) == -1)
			return -1;
	}
	return 0;
}

int
stream_end(struct stream *s, struct err *e)
{
	if (s->have > 0 && flush(s, e) == -1)
		return -1;
	if (s->done == 0)
		return err_set(e, ERR_FAILED, "is empty");
	return image_writer_end(s->writer, s->done, e);
}
