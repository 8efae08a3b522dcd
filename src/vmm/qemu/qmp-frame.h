/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_QMP_FRAME_H
#define GMEM_VMM_QMP_FRAME_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Above any honest reply: query-qmp-schema of QEMU 7.2 has 200 KB. */
#define QMP_MESSAGE_MAX (16u << 20)
#define QMP_DEPTH_MAX 64

/*
 * Cuts a byte stream into JSON objects.  By braces, not by lines: a monitor
 * with pretty=on spreads a message over many.  All zero is empty.
 */
struct qmp_frame {
	char *buf; /* owned */
	size_t size; /* of buf */
	size_t len; /* bytes in buf */
	size_t start; /* where the current message begins */
	size_t scanned; /* the bytes before this one were looked at */
	unsigned depth;
	bool in_string, escaped;
};

/* Where up to *room (never 0) further bytes go, borrowed; NULL is an error. */
char *qmp_frame_room(struct qmp_frame *f, size_t *room, struct err *e);
void qmp_frame_filled(struct qmp_frame *f, size_t n);

/*
 * The next whole object (the caller's): 1, or 0 if more bytes are needed, or -1
 * for what is no JSON object, or too long, or too deep.  If lenient, the first
 * of these is skipped instead.
 */
int qmp_frame_next(struct qmp_frame *f, bool lenient, json_t **out, struct err *e);

/* Frees the buffer and forgets everything. */
void qmp_frame_fini(struct qmp_frame *f);

#endif
