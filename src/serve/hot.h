/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_HOT_H
#define GMEM_SERVE_HOT_H

#include "image/hot.h"
#include "serve/scatter.h"

/* The hot pages of the image that is served. */
struct hot {
	const struct hot_list *list; /* with at least one page that is stored */
	uint32_t *number; /* of each page of the hot object: which of the list it is */
};

/* Sets s->hot; NULL if the image has none.  To be closed also on failure. */
int hot_open(struct server *s, struct err *e);
void hot_close(struct server *s);

/* What a filler needs for them, if there are any. */
int hot_filler_init(struct filler *f, bool faults, struct err *e);
void hot_filler_fini(struct filler *f);

/* Adds what its readers have read. */
void hot_count(const struct filler *f, struct image_reader_stats *sum);

/* ERR_CORRUPT: the hot pages' object does not have its page `at`. */
int hot_not_stored(const struct server *s, uint64_t at, struct err *e);

/* ERR_CORRUPT unless all hot pages of a chunk are among the hot pages: nobody else has them. */
int hot_check(const struct server *s, size_t object, uint64_t chunk, const struct entry *en,
    struct err *e);

/* Gives the page at `off`, which is hot and which the filler of a fault has taken. */
int hot_fault(struct filler *f, size_t object, uint64_t off, struct err *e);

/* The rest of a chunk that a fault has loaded: 1, 0 if there is none, -1.  Between faults. */
int hot_pending(struct filler *f, struct err *e);

/* Gives what is not taken yet of a chunk of the hot pages. */
int hot_fill(struct filler *f, uint64_t chunk, const struct entry *en, stat_counter *count,
    struct err *e);

#endif
