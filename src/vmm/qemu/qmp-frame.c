/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/qmp-frame.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/json-read.h"

#define ROOM_MIN 4096

char *
qmp_frame_room(struct qmp_frame *f, size_t *room, struct err *e)
{
	size_t size;
	char *buf;

	if (f->start > 0) {
		memmove(f->buf, f->buf + f->start, f->len - f->start);
		f->len -= f->start;
		f->scanned -= f->start;
		f->start = 0;
	}
	if (f->size - f->len < ROOM_MIN) {
		size = f->size > 0 ? f->size * 2 : 4 * ROOM_MIN;
		buf = realloc(f->buf, size);
		if (buf == NULL) {
			err_sys(e, "message from the VMM");
			return NULL;
		}
		f->buf = buf;
		f->size = size;
	}
	*room = f->size - f->len;
	return f->buf + f->len;
}

void
qmp_frame_filled(struct qmp_frame *f, size_t n)
{
	f->len += n;
}

void
qmp_frame_fini(struct qmp_frame *f)
{
	free(f->buf);
	*f = (struct qmp_frame){ 0 };
}

/* Inside a message: true if c is its last byte. */
static bool
scan_inside(struct qmp_frame *f, char c)
{
	if (f->in_string) {
		if (f->escaped)
			f->escaped = false;
		else if (c == '\\')
			f->escaped = true;
		else if (c == '"')
			f->in_string = false;
		return false;
	}
	if (c == '"')
		f->in_string = true;
	else if (c == '{' || c == '[')
		f->depth++;
	else if (c == '}' || c == ']')
		f->depth--;
	return f->depth == 0;
}

/* Between messages: skips white space, and when lenient the rest of a bad line. */
static int
scan_between(struct qmp_frame *f, bool lenient, struct err *e)
{
	char c = f->buf[f->scanned];
	char *eol;

	if (c == '{') {
		f->start = f->scanned;
		f->depth = 1;
	} else if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
		if (!lenient)
			return err_set(e, ERR_CORRUPT,
			    "the VMM sent what is not JSON (byte 0x%02x)", (unsigned char)c);
		eol = memchr(f->buf + f->scanned, '\n', f->len - f->scanned);
		f->scanned = eol != NULL ? (size_t)(eol - f->buf) : f->len - 1;
	}
	f->scanned++;
	if (f->depth == 0)
		f->start = f->scanned;
	return 0;
}

static int
decode(const char *text, size_t len, json_t **out, struct err *e)
{
	*out = json_read(text, len, 0, e);
	return *out != NULL ? 1 : err_wrap(e, "a message of %zu bytes from the VMM", len);
}

/* The end of a message was found. */
static int
cut(struct qmp_frame *f, json_t **out, struct err *e)
{
	const char *text = f->buf + f->start;
	size_t len = f->scanned - f->start;

	f->start = f->scanned;
	return decode(text, len, out, e);
}

/* A raw line end can't be in a string: the stream began inside of one. */
static bool
lost(const struct qmp_frame *f)
{
	return f->in_string && f->buf[f->scanned] == '\n';
}

int
qmp_frame_next(struct qmp_frame *f, bool lenient, json_t **out, struct err *e)
{
	int r;

	while (f->scanned < f->len) {
		if (f->depth == 0) {
			if (scan_between(f, lenient, e) == -1)
				return -1;
			continue;
		}
		if (lenient && lost(f)) {
			f->depth = 0;
			f->in_string = f->escaped = false;
			continue;
		}
		if (scan_inside(f, f->buf[f->scanned++])) {
			r = cut(f, out, e);
			if (r == 1 || !lenient)
				return r;
			continue;
		}
		if (f->depth > QMP_DEPTH_MAX)
			return err_set(e, ERR_CORRUPT,
			    "a message from the VMM is nested deeper than %d", QMP_DEPTH_MAX);
		if (f->scanned - f->start > QMP_MESSAGE_MAX)
			return err_set(e, ERR_CORRUPT,
			    "a message from the VMM has more than %u bytes", QMP_MESSAGE_MAX);
	}
	return 0;
}
