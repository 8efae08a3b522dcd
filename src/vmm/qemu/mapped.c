/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/mapped.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/stat.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/layout.h"

#define PIECE ((size_t)64 << 10)

/* The description of the state at the end, and libvirt's header, are within this. */
#define EDGE_MAX (UINT64_C(16) << 20)

#define DESCRIPTION 0x06
#define DESCRIPTION_HEAD 5 /* its number, and its length */

struct qemu_mapped {
	int fd; /* owned */
	uint64_t size; /* of the file, bytes */
	uint64_t base; /* where QEMU's part begins */
	const char *const *ids; /* borrowed while opening */
	size_t nids;
	char machine[256];
	uint32_t page_size;
	struct qemu_stream_block *blocks; /* owned */
	size_t nblocks;
	const struct qemu_stream_block **regions; /* owned; into blocks */
	size_t nregions;
};

/* One reading of the stream. */
struct pass {
	struct qemu_mapped *m;
	int (*sink)(void *arg, const void *buf, size_t len, struct err *e); /* or NULL */
	void *arg;
	uint8_t buf[PIECE];
	uint8_t bitmap[4096]; /* a piece of one */
};

/* ---- whose block it is ---- */

const char *
qemu_mapped_id(const struct qemu_stream_block *b)
{
	static const char objects[] = "/objects/";
	size_t len = sizeof(objects) - 1;

	return strncmp(b->name, objects, len) == 0 ? b->name + len : b->name;
}

static bool
ends_in(const char *name, const char *suffix)
{
	size_t len = strlen(name), cut = strlen(suffix);

	return len >= cut && strcmp(name + len - cut, suffix) == 0;
}

/*
 * A memory backend has a plain id; a device's block has the device's path in front,
 * "/rom@" is a file for the firmware, and what boards have themselves ends like these.
 */
static bool
looks_like_ram(const struct qemu_stream_block *b)
{
	static const char *const others[] = { ".bios", ".rom", ".vram", ".flash0", ".flash1" };
	const char *id = qemu_mapped_id(b);

	if (strchr(id, '/') != NULL || b->size == 0 || strcmp(id, "isa-bios") == 0)
		return false;
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (ends_in(id, others[i]))
			return false;
	return true;
}

static struct qemu_stream_block *
find_block(const struct qemu_mapped *m, const char *id)
{
	for (size_t i = 0; i < m->nblocks; i++)
		if (strcmp(m->blocks[i].name, id) == 0 ||
		    strcmp(qemu_mapped_id(&m->blocks[i]), id) == 0)
			return &m->blocks[i];
	return NULL;
}

/* The next region.  QEMU puts backends one behind the other, unless the stream knows better. */
static void
add_region(struct qemu_mapped *m, struct qemu_stream_block *b, uint64_t *gpa)
{
	b->ours = true;
	if (!b->has_gpa)
		b->gpa = *gpa;
	*gpa += b->size;
	m->regions[m->nregions++] = b;
}

static int
choose(struct qemu_mapped *m, struct err *e)
{
	struct qemu_stream_block *b;
	uint64_t gpa = 0;

	m->regions = calloc(MAX(m->nblocks, (size_t)1), sizeof(*m->regions));
	if (m->regions == NULL)
		return err_sys(e, "RAM blocks");
	for (size_t i = 0; i < m->nblocks && m->nids == 0; i++)
		if (looks_like_ram(&m->blocks[i]))
			add_region(m, &m->blocks[i], &gpa);
	for (size_t i = 0; i < m->nids; i++) {
		b = find_block(m, m->ids[i]);
		if (b == NULL || b->size == 0 || b->ours)
			return err_set(e, ERR_FAILED, "there is %s RAM block %.128s",
			    b != NULL && b->ours ? "only one" : "no", m->ids[i]);
		add_region(m, b, &gpa);
	}
	if (m->nregions == 0)
		return err_set(e, ERR_FAILED,
		    "no RAM block looks like the guest's: name it with --region");
	/* Before anybody makes that many names. */
	if (m->nregions > OBJECTS_MAX)
		return err_set(e, ERR_UNSUPPORTED,
		    "%zu RAM blocks look like the guest's, at most %u are allowed: name them "
		    "with --region",
		    m->nregions, OBJECTS_MAX);
	return 0;
}

/* ---- reading ---- */

static int
on_put(void *arg, const void *buf, size_t len, struct err *e)
{
	struct pass *p = arg;

	return p->sink != NULL ? p->sink(p->arg, buf, len, e) : 0;
}

/* What was chosen in the first pass holds for the second. */
static int
on_block(void *arg, struct qemu_stream_block *b, struct err *e)
{
	const struct pass *p = arg;

	(void)e;
	for (size_t i = 0; i < p->m->nblocks; i++) {
		/* Not find_block: another block's id may be this one's name. */
		const struct qemu_stream_block *known = &p->m->blocks[i];

		if (strcmp(known->name, b->name) == 0) {
			b->ours = known->ours;
			b->gpa = known->gpa;
		}
	}
	return 0;
}

/* Pages of one block, as far as one piece of the bitmap goes. */
static int
put_pages(struct pass *p, struct qemu_stream *s, const struct qemu_stream_block *b,
    uint64_t first, uint64_t n, struct err *e)
{
	uint32_t size = p->m->page_size;

	if (fd_pread_full(
		p->m->fd, p->bitmap, (size_t)div_up(n, 8), b->bitmap + first / 8, e) == -1)
		return -1;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t offset = (first + i) * size;
		bool present = (p->bitmap[i / 8] >> i % 8 & 1) != 0;

		if (present &&
		    fd_pread_full(p->m->fd, p->buf, size, b->pages + offset, e) == -1)
			return -1;
		if (qemu_stream_page(s, b, offset, present ? p->buf : NULL, e) == -1)
			return -1;
	}
	return 0;
}

/* Called while p->buf holds what was fed: it must not be overwritten. */
static int
on_pages(void *arg, struct qemu_stream *s, struct err *e)
{
	struct pass *from = arg, *p;
	const struct qemu_stream_block *b;
	size_t n;
	int r = 0;

	if (from->sink == NULL)
		return 0;
	p = malloc(sizeof(*p));
	if (p == NULL)
		return err_sys(e, "migration stream");
	p->m = from->m;
	b = qemu_stream_blocks(s, &n);
	for (size_t i = 0; r == 0 && i < n; i++) {
		const uint64_t npages = b[i].size / p->m->page_size;
		const uint64_t most = sizeof(p->bitmap) * 8;

		for (uint64_t at = 0; r == 0 && !b[i].ours && at < npages; at += most)
			r = put_pages(p, s, &b[i], at, MIN(most, npages - at), e);
	}
	free(p);
	return r;
}

/* Feeds all of the file but the pages. */
static int
feed(struct pass *p, struct qemu_stream *s, struct err *e)
{
	uint64_t at = p->m->base;
	size_t n;

	while (at < p->m->size) {
		n = (size_t)MIN(PIECE, p->m->size - at);
		if (fd_pread_full(p->m->fd, p->buf, n, at, e) == -1 ||
		    qemu_stream_feed(s, p->buf, n, e) == -1)
			return -1;
		at += n + qemu_stream_jump(s);
	}
	return qemu_stream_end(s, e);
}

/* Keeps what the first pass has found. */
static int
keep(struct qemu_mapped *m, const struct qemu_stream *s, struct err *e)
{
	const struct qemu_stream_block *b;

	if (!qemu_stream_mapped(s))
		return err_set(e, ERR_UNSUPPORTED, "it was written without mapped-ram");
	b = qemu_stream_blocks(s, &m->nblocks);
	m->blocks = calloc(MAX(m->nblocks, (size_t)1), sizeof(*b));
	if (m->blocks == NULL)
		return err_sys(e, "RAM blocks");
	memcpy(m->blocks, b, m->nblocks * sizeof(*b));
	m->page_size = qemu_stream_page_size(s);
	memcpy(m->machine, qemu_stream_machine(s), strlen(qemu_stream_machine(s)) + 1);
	return 0;
}

static int
run(struct qemu_mapped *m, int (*sink)(void *, const void *, size_t, struct err *), void *arg,
    struct err *e)
{
	struct qemu_stream_hooks hooks = {
		.base = m->base,
		.put = on_put,
		.block = on_block,
		.pages = on_pages,
	};
	struct qemu_stream *s = NULL;
	struct pass *p;
	int r = -1;

	p = malloc(sizeof(*p));
	if (p == NULL)
		return err_sys(e, "migration stream");
	p->m = m;
	p->sink = sink;
	p->arg = arg;
	hooks.arg = p;
	if (qemu_stream_new(&s, &hooks, e) == 0 && feed(p, s, e) == 0)
		r = sink == NULL ? keep(m, s, e) : 0;
	qemu_stream_free(s);
	free(p);
	return r;
}

/* ---- the edges of the file ---- */

/* Up to EDGE_MAX bytes from `from` on; *buf is malloc'd. */
static int
read_edge(const struct qemu_mapped *m, uint64_t from, uint8_t **buf, size_t *len, struct err *e)
{
	*len = (size_t)MIN(EDGE_MAX, m->size - from);
	*buf = malloc(MAX(*len, (size_t)1));
	if (*buf == NULL)
		return err_sys(e, "migration stream");
	if (fd_pread_full(m->fd, *buf, *len, from, e) == 0)
		return 0;
	free(*buf);
	return -1;
}

/* libvirt puts a header and its own description of the VM in front. */
static int
find_base(struct qemu_mapped *m, struct err *e)
{
	static const char start[] = "QEVM\0\0\0\3\a";
	const uint8_t *found;
	uint8_t *buf;
	size_t len;
	int r = 0;

	if (read_edge(m, 0, &buf, &len, e) == -1)
		return -1;
	if (len > 16 && memcmp(buf, "LibvirtQemudPart", 16) == 0) {
		r = err_set(e, ERR_INCOMPLETE, "libvirt has not finished it");
	} else if (len > 16 && memcmp(buf, "LibvirtQemudSave", 16) == 0) {
		found = memmem(buf, len, start, sizeof(start) - 1);
		if (found != NULL)
			m->base = (uint64_t)(found - buf);
		else
			r = err_set(e, ERR_UNSUPPORTED,
			    "libvirt saved it in another format: use virsh save "
			    "--image-format sparse");
	}
	free(buf);
	return r;
}

/*
 * A file that was cut in the state of a device would only be noticed when it is loaded.  Its
 * last part is a description of all the rest, in JSON, which tells its length.
 */
static int
check_tail(const struct qemu_mapped *m, struct err *e)
{
	uint8_t *buf;
	bool whole = false;
	size_t len;

	if (read_edge(m, m->size - MIN(EDGE_MAX, m->size), &buf, &len, e) == -1)
		return -1;
	/* A block device may be longer. */
	while (len > 0 && buf[len - 1] == 0)
		len--;
	for (size_t i = 0; i + DESCRIPTION_HEAD < len && !whole; i++)
		whole = buf[i] == DESCRIPTION && buf[i + DESCRIPTION_HEAD] == '{' &&
			be32dec(buf + i + 1) == len - i - DESCRIPTION_HEAD;
	free(buf);
	if (whole)
		return 0;
	return err_set(e, ERR_CORRUPT,
	    "its end is not that of a migration stream: it was cut, or QEMU did not finish it");
}

/* ---- the outside ---- */

static int
open_file(struct qemu_mapped *m, const char *path, struct err *e)
{
	struct stat st;

	/* Not to wait for whoever might write to a pipe. */
	m->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (m->fd == -1 || fstat(m->fd, &st) == -1)
		return err_sys(e, "open");
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_FAILED, "is not a file");
	m->size = (uint64_t)st.st_size;
	return 0;
}

int
qemu_mapped_open(
    struct qemu_mapped **out, const char *path, const char *const *ids, size_t n, struct err *e)
{
	struct qemu_mapped *m;

	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return err_sys(e, "%s", path);
	m->fd = -1;
	m->ids = ids;
	m->nids = n;
	if (open_file(m, path, e) == -1 || find_base(m, e) == -1 ||
	    run(m, NULL, NULL, e) == -1 || check_tail(m, e) == -1 || choose(m, e) == -1) {
		qemu_mapped_close(m);
		return err_wrap(e, "%s", path);
	}
	*out = m;
	return 0;
}

void
qemu_mapped_close(struct qemu_mapped *m)
{
	if (m == NULL)
		return;
	fd_close(&m->fd);
	free(m->regions);
	free(m->blocks);
	free(m);
}

const char *
qemu_mapped_machine(const struct qemu_mapped *m)
{
	return m->machine;
}

const struct qemu_stream_block *const *
qemu_mapped_regions(const struct qemu_mapped *m, size_t *n)
{
	*n = m->nregions;
	return m->regions;
}

int
qemu_mapped_source(struct qemu_mapped *m, size_t i, struct memory_source **out, struct err *e)
{
	const struct qemu_stream_block *b = m->regions[i];
	size_t len = (size_t)div_up(b->size / m->page_size, 8);
	uint8_t *bitmap;
	int fd;

	bitmap = malloc(len);
	if (bitmap == NULL)
		return err_sys(e, "RAM %s", b->name);
	fd = -1;
	if (fd_pread_full(m->fd, bitmap, len, b->bitmap, e) == 0) {
		fd = fcntl(m->fd, F_DUPFD_CLOEXEC, 0);
		if (fd == -1)
			err_sys(e, "RAM %s", b->name);
	}
	if (fd == -1) {
		free(bitmap);
		return -1;
	}
	return memory_source_open_pages(out, fd, b->pages, b->size, bitmap, m->page_size, e);
}

int
qemu_mapped_state(struct qemu_mapped *m,
    int (*sink)(void *arg, const void *buf, size_t len, struct err *e), void *arg,
    struct err *e)
{
	return run(m, sink, arg, e);
}
