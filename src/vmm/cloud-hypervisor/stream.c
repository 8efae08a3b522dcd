/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/stream.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/ckd.h"
#include "base/fdio.h"
#include "memory/create.h"

#define PAGE_SIZE 4096
#define STEP (256u << 10) /* bytes that are received at a time */

struct piece {
	int fd; /* owned */
	bitmap_word *written; /* pages of 4 KiB that are there; mapped, or MAP_FAILED */
};

struct ch_stream {
	const struct ch_memory *memory;
	struct piece *pieces; /* one for each mapping */
	uint8_t *buf; /* STEP bytes */
};

static int
new_piece(struct piece *p, const struct ch_mapping *m, struct err *e)
{
	/* Mapped: it costs what is used of it, however large the VMM says that it is. */
	p->written = mmap(NULL, bitmap_bytes(m->size / PAGE_SIZE), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->written == MAP_FAILED)
		return err_sys(e, "slot %u", m->slot);
	return memory_create("gmem-stream", MEMORY_MEMFD, m->size, 0, &p->fd, e);
}

int
ch_stream_new(struct ch_stream **out, const struct ch_memory *m, struct err *e)
{
	struct ch_stream *s = calloc(1, sizeof(*s));

	if (s != NULL) {
		s->memory = m;
		s->pieces = calloc(m->n, sizeof(*s->pieces));
		s->buf = malloc(STEP);
	}
	if (s == NULL || s->pieces == NULL || s->buf == NULL) {
		ch_stream_free(s);
		return err_sys(e, "memory of the VM");
	}
	for (size_t i = 0; i < m->n; i++)
		s->pieces[i] = (struct piece){ .fd = -1, .written = MAP_FAILED };
	for (size_t i = 0; i < m->n; i++)
		if (new_piece(&s->pieces[i], &m->v[i], e) == -1) {
			ch_stream_free(s);
			return -1;
		}
	*out = s;
	return 0;
}

void
ch_stream_free(struct ch_stream *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; s->pieces != NULL && i < s->memory->n; i++) {
		fd_close(&s->pieces[i].fd);
		if (s->pieces[i].written != MAP_FAILED)
			munmap(s->pieces[i].written,
			    bitmap_bytes(s->memory->v[i].size / PAGE_SIZE));
	}
	free(s->pieces);
	free(s->buf);
	free(s);
}

static bool
is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* Whether a page has to be written: zeros over nothing are there already. */
static bool
is_wanted(const struct piece *p, uint64_t page, const uint8_t *bytes)
{
	return !is_zero(bytes) || bitmap_test(p->written, page);
}

/* Pages of a piece, from byte `offset` on. */
static int
put_pages(struct piece *p, uint64_t offset, const uint8_t *bytes, uint64_t len, struct err *e)
{
	uint64_t at = 0, run;

	while (at < len) {
		uint64_t first = (offset + at) / PAGE_SIZE;

		for (run = 0; at + run < len; run += PAGE_SIZE) {
			uint64_t page = (offset + at + run) / PAGE_SIZE;

			if (!is_wanted(p, page, bytes + at + run))
				break;
			bitmap_claim(p->written, page);
		}
		if (run != 0 &&
		    fd_pwrite_full(p->fd, bytes + at, run, first * PAGE_SIZE, e) == -1)
			return err_wrap(e, "keeping memory of the VM");
		at += MAX(run, (uint64_t)PAGE_SIZE);
	}
	return 0;
}

/* The bytes of a range that lies in mapping m. */
static int
receive_piece(struct ch_stream *s, const struct ch_link *link, const struct ch_mapping *m,
    uint64_t gpa, uint64_t len, struct err *e)
{
	struct piece *p = &s->pieces[m - s->memory->v];

	for (uint64_t done = 0, n; done < len; done += n) {
		n = MIN(len - done, (uint64_t)STEP);
		if (ch_link_read(link, s->buf, n, NULL, "guest's memory", e) == -1 ||
		    put_pages(p, gpa - m->gpa + done, s->buf, n, e) == -1)
			return -1;
	}
	return 0;
}

/* Mappings may lie next to each other: a range may go on in the next. */
static int
receive_range(struct ch_stream *s, const struct ch_link *link, struct ch_range r, struct err *e)
{
	while (r.length != 0) {
		const struct ch_mapping *m = ch_memory_find(s->memory, r.gpa, 0);
		uint64_t n;

		if (m == NULL)
			return err_set(e, ERR_CORRUPT,
			    "the VMM sent memory at %#" PRIx64 ", where there is none", r.gpa);
		n = MIN(r.length, m->size - (r.gpa - m->gpa));
		if (receive_piece(s, link, m, r.gpa, n, e) == -1)
			return -1;
		r.gpa += n;
		r.length -= n;
	}
	return 0;
}

int
ch_stream_receive(
    struct ch_stream *s, const struct ch_link *link, uint64_t length, struct err *e)
{
	uint8_t *table = ch_link_read_new(link, length, "ranges of memory", e);
	int r = table != NULL ? 0 : -1;

	for (uint64_t at = 0; r == 0 && at < length; at += CH_RANGE_SIZE) {
		struct ch_range range;

		ch_range_parse(&range, table + at);
		if (range.length == 0 || (range.gpa | range.length) % PAGE_SIZE != 0)
			r = err_set(e, ERR_CORRUPT,
			    "the VMM sent %" PRIu64 " bytes of memory at %#" PRIx64
			    ": no whole pages",
			    range.length, range.gpa);
		else
			r = receive_range(s, link, range, e);
	}
	free(table);
	return r == 0 ? 0 : err_wrap(e, "Memory");
}

int
ch_stream_take(struct ch_stream *s, size_t i)
{
	int fd = s->pieces[i].fd;

	s->pieces[i].fd = -1;
	return fd;
}
