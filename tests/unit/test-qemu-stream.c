/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "format/layout.h"
#include "tap.h"
#include "vmm/qemu/mapped.h"
#include "vmm/qemu/stream.h"

/*
 * Streams are written here from QEMU's description of them (migration/savevm.c and ram.c),
 * and what comes out is compared byte by byte with the stream that is wanted.
 */
#define PAGE 4096

struct bytes {
	uint8_t v[1 << 18];
	size_t n;
};

static void
add(struct bytes *b, const void *from, size_t len)
{
	if (len > sizeof(b->v) - b->n)
		abort();
	memcpy(b->v + b->n, from, len);
	b->n += len;
}

static void
add8(struct bytes *b, unsigned value)
{
	uint8_t v = (uint8_t)value;

	add(b, &v, 1);
}

static void
add32(struct bytes *b, uint32_t value)
{
	uint8_t v[4];

	be32enc(v, value);
	add(b, v, 4);
}

static void
add64(struct bytes *b, uint64_t value)
{
	uint8_t v[8];

	be64enc(v, value);
	add(b, v, 8);
}

static void
add_name(struct bytes *b, const char *name)
{
	add8(b, (unsigned)strlen(name));
	add(b, name, strlen(name));
}

static void
add_file(struct bytes *b)
{
	add32(b, 0x5145564d);
	add32(b, 3);
	add8(b, 7);
	add32(b, 10);
	add(b, "pc-q35-9.0", 10);
}

static void
add_capabilities(struct bytes *b, const char *one, const char *two)
{
	add8(b, 5);
	add_name(b, "configuration/capabilities");
	add32(b, 1);
	add32(b, two != NULL ? 2 : 1);
	add_name(b, one);
	if (two != NULL)
		add_name(b, two);
}

static void
add_uuid(struct bytes *b)
{
	add8(b, 5);
	add_name(b, "configuration/uuid");
	add32(b, 1);
	add(b, "0123456789abcdef", 16);
}

static void
add_section(struct bytes *b, unsigned type, const char *name)
{
	add8(b, type);
	add32(b, 2);
	if (name == NULL)
		return;
	add_name(b, name);
	add32(b, 0);
	add32(b, 4);
}

static void
add_block(struct bytes *b, const char *name, uint64_t size, uint64_t gpa)
{
	add_name(b, name);
	add64(b, size);
	add64(b, gpa);
}

static void
add_end(struct bytes *b)
{
	add64(b, 0x10);
	add8(b, 0x7e);
	add32(b, 2);
}

/* Name NULL: the same block. */
static void
add_page(struct bytes *b, const char *name, uint64_t offset, int fill)
{
	uint8_t page[PAGE];

	add64(b, offset | (fill != 0 ? 0x08 : 0x02) | (name == NULL ? 0x20 : 0));
	if (name != NULL)
		add_name(b, name);
	memset(page, fill, sizeof(page));
	add(b, page, fill != 0 ? sizeof(page) : 1);
}

static void
add_devices(struct bytes *b)
{
	static const uint8_t end[] = { 0, 6, 0, 0, 0, 2, '{', '}' };

	add8(b, 4);
	add(b, "what a device says \x01\x02\x03\x7e", 23);
	add(b, end, sizeof(end));
}

/* ---- what comes out ---- */

struct result {
	struct bytes out;
	const char *ours;
	const struct bytes *in; /* of a mapped-ram file */
	struct err e;
	bool good;
	size_t nblocks, jumped;
	uint64_t records;
};

static int
on_put(void *arg, const void *buf, size_t len, struct err *e)
{
	struct result *r = arg;

	(void)e;
	add(&r->out, buf, len);
	return 0;
}

static int
on_block(void *arg, struct qemu_stream_block *b, struct err *e)
{
	struct result *r = arg;

	(void)e;
	b->ours = strcmp(b->name, r->ours) == 0;
	if (b->ours && !b->has_gpa)
		b->gpa = 0x1000000;
	return 0;
}

static int
on_pages(void *arg, struct qemu_stream *s, struct err *e)
{
	struct result *r = arg;
	const struct qemu_stream_block *b;
	size_t n;

	b = qemu_stream_blocks(s, &n);
	for (size_t i = 0; i < n; i++) {
		for (uint64_t page = 0; !b[i].ours && page < b[i].size / PAGE; page++) {
			const uint8_t *map = r->in->v + b[i].bitmap;
			bool set = (map[page / 8] >> page % 8 & 1) != 0;

			if (qemu_stream_page(s, &b[i], page * PAGE,
				set ? r->in->v + b[i].pages + page * PAGE : NULL, e) == -1)
				return -1;
		}
	}
	return 0;
}

/* In pieces of so many bytes. */
static void
run(struct result *r, const struct bytes *in, size_t piece, bool jump)
{
	const struct qemu_stream_hooks hooks = {
		.arg = r,
		.put = on_put,
		.block = on_block,
		.pages = on_pages,
	};
	struct qemu_stream *s;
	size_t at = 0;

	r->e = (struct err)ERR_INIT;
	r->out.n = 0;
	r->in = in;
	r->jumped = 0;
	r->good = false;
	if (qemu_stream_new(&s, &hooks, &r->e) == -1)
		return;
	while (at < in->n) {
		size_t n = MIN(piece, in->n - at), gap = 0;

		if (qemu_stream_feed(s, in->v + at, n, &r->e) == -1)
			break;
		if (jump)
			gap = (size_t)qemu_stream_jump(s);
		r->jumped += gap;
		at += n + gap;
	}
	r->good = at >= in->n && qemu_stream_end(s, &r->e) == 0;
	r->records = 0;
	for (size_t i = 0; i < (qemu_stream_blocks(s, &r->nblocks), r->nblocks); i++)
		r->records += qemu_stream_blocks(s, &r->nblocks)[i].records;
	qemu_stream_free(s);
}

static bool
same(const struct bytes *a, const struct bytes *b)
{
	return a->n == b->n && memcmp(a->v, b->v, a->n) == 0;
}

/* The same whatever the pieces are, and taken again as it came out. */
static void
wants(const char *name, const struct bytes *in, const char *ours, const struct bytes *out)
{
	static const size_t pieces[] = { sizeof(in->v), 4096, 7, 1 };
	static struct result r;
	static struct bytes again;

	r.ours = ours;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		run(&r, in, pieces[i], false);
		ok(r.good && same(&r.out, out), "%s, by %zu: %s", name, pieces[i], r.e.msg);
	}
	again = r.out;
	run(&r, &again, 100, false);
	ok(r.good && same(&r.out, &again), "%s, what came out again: %s", name, r.e.msg);
}

/* The front of all plain streams: two blocks. */
static void
begin_plain(struct bytes *b)
{
	b->n = 0;
	add_file(b);
	add_capabilities(b, "x-ignore-shared", NULL);
	add_uuid(b);
	add_section(b, 1, "ram");
	add64(b, 6 * PAGE | 4);
	add_block(b, "ram0", 4 * PAGE, 0x5000);
	add_block(b, "pc.bios", 2 * PAGE, 0xfffe0000);
}

static void
test_plain(void)
{
	static struct bytes in, out;

	begin_plain(&in);
	add_end(&in);
	/* A command in between, with three bytes. */
	add(&in, "\x08\x00\x01\x00\x03xyz", 8);
	out = in;
	add_section(&in, 2, NULL);
	add_section(&out, 2, NULL);
	add_page(&in, "ram0", 0, 1);
	add_page(&in, NULL, PAGE, 0);
	add_page(&in, "pc.bios", 0, 2);
	add_page(&out, "pc.bios", 0, 2);
	add_page(&in, NULL, PAGE, 0);
	add_page(&out, NULL, PAGE, 0);
	add_page(&in, "ram0", 2 * PAGE, 0);
	add_end(&in);
	add_end(&out);
	add_section(&in, 3, NULL);
	add_section(&out, 3, NULL);
	add_page(&in, NULL, 3 * PAGE, 3);
	add_page(&in, "pc.bios", 0, 4);
	/* Between the two is nothing any more. */
	add_page(&out, NULL, 0, 4);
	add_end(&in);
	add_end(&out);
	add_devices(&in);
	add_devices(&out);
	wants("a plain stream", &in, "ram0", &out);
	wants("of which nothing is ours", &in, "none", &in);
}

/* A machine without footers, all pages in the first section. */
static void
test_old(void)
{
	static struct bytes in, out;

	begin_plain(&in);
	add_page(&in, "pc.bios", 0, 9);
	out = in;
	add_page(&in, "ram0", PAGE, 8);
	add64(&in, 0x10);
	add64(&out, 0x10);
	add_section(&in, 3, NULL);
	add_section(&out, 3, NULL);
	add64(&in, 0x10);
	add64(&out, 0x10);
	add_devices(&in);
	add_devices(&out);
	wants("without footers", &in, "ram0", &out);
}

static void
fill(struct bytes *b, size_t upto)
{
	while (b->n < upto)
		add8(b, 0xee);
}

/* The header of a block, its bitmap, and its pages; those not in the bitmap are rubbish. */
static void
add_mapping(struct bytes *b, unsigned npages, unsigned bitmap)
{
	size_t at = b->n + 28, pages = align_up(at + 8, PAGE);

	add32(b, 1);
	add64(b, PAGE);
	add64(b, at);
	add64(b, pages);
	add8(b, bitmap);
	fill(b, pages);
	for (unsigned i = 0; i < npages; i++) {
		uint8_t page[PAGE];

		memset(page, (int)(0x40 + i), sizeof(page));
		add(b, page, sizeof(page));
	}
}

static void
begin_mapped(struct bytes *in, struct bytes *out, bool gpas)
{
	uint64_t gpa = gpas ? 0x77000 : 0x1000000;

	in->n = out->n = 0;
	add_file(in);
	add_file(out);
	if (gpas)
		add_capabilities(in, "x-ignore-shared", "mapped-ram");
	else
		add_capabilities(in, "mapped-ram", NULL);
	add_capabilities(out, "x-ignore-shared", NULL);
	add_section(in, 1, "ram");
	add_section(out, 1, "ram");
	add64(in, 5 * PAGE | 4);
	add64(out, 5 * PAGE | 4);
	add_name(in, "ram0");
	add64(in, 3 * PAGE);
	if (gpas)
		add64(in, gpa);
	add_mapping(in, 3, 5);
	add_block(out, "ram0", 3 * PAGE, gpa);
	add_name(in, "vga.vram");
	add64(in, 2 * PAGE);
	if (gpas)
		add64(in, 0x123000);
	add_mapping(in, 2, 2);
	add_block(out, "vga.vram", 2 * PAGE, gpas ? 0x123000 : 0);
}

static void
end_mapped(struct bytes *in, struct bytes *out)
{
	add_end(in);
	add_end(out);
	add_section(in, 3, NULL);
	add_section(out, 3, NULL);
	add_page(out, "vga.vram", 0, 0);
	add_page(out, NULL, PAGE, 0x41);
	add_end(in);
	add_end(out);
	add_devices(in);
	add_devices(out);
}

static void
test_mapped(void)
{
	static struct bytes in, out;
	static struct result r = { .ours = "ram0" };

	for (int gpas = 0; gpas < 2; gpas++) {
		begin_mapped(&in, &out, gpas != 0);
		end_mapped(&in, &out);
		wants(gpas ? "mapped-ram with addresses" : "mapped-ram", &in, "ram0", &out);
		run(&r, &in, 16, true);
		ok(r.good && same(&r.out, &out) && r.jumped > 5 * (size_t)PAGE,
		    "mapped-ram, jumping over %zu bytes: %s", r.jumped, r.e.msg);
	}
}

/* ---- what is wrong ---- */

static void
fails(const char *name, const struct bytes *in, enum err_kind kind, const char *says)
{
	static struct result r;

	r.ours = "ram0";
	run(&r, in, sizeof(in->v), false);
	ok(!r.good && r.e.kind == kind && strstr(r.e.msg, says) != NULL, "%s: %s", name,
	    r.e.msg);
}

static void
test_wrong(void)
{
	static struct bytes b;

	b.n = 0;
	add(&b, "GMEMGMEMGMEM", 12);
	fails("another file", &b, ERR_CORRUPT, "no migration stream");
	b.n = 0;
	add32(&b, 0x5145564d);
	add32(&b, 2);
	fails("an old version", &b, ERR_UNSUPPORTED, "version 2");

	b.n = 0;
	add_file(&b);
	add_uuid(&b);
	add_section(&b, 1, "ram");
	add64(&b, PAGE | 4);
	fails("without x-ignore-shared", &b, ERR_UNSUPPORTED, "without x-ignore-shared");

	b.n = 0;
	add_file(&b);
	add_capabilities(&b, "x-ignore-shared", NULL);
	add_section(&b, 1, "dirty-bitmap");
	fails("something else first", &b, ERR_UNSUPPORTED, "\"dirty-bitmap\" is in front");

	b.n = 0;
	add_file(&b);
	add_capabilities(&b, "x-ignore-shared", NULL);
	add_section(&b, 4, "0000:00:03.0/virtio-mem");
	fails("a device first", &b, ERR_UNSUPPORTED, "virtio-mem\" is in front");

	b.n = 0;
	add_file(&b);
	add_capabilities(&b, "x-ignore-shared", NULL);
	add_capabilities(&b, "x-ignore-shared", NULL);
	fails("capabilities twice", &b, ERR_CORRUPT, "capabilities again");

	b.n = 0;
	add_file(&b);
	add8(&b, 5);
	add_name(&b, "configuration/new");
	add32(&b, 1);
	fails("something new", &b, ERR_UNSUPPORTED, "\"configuration/new\" version 1");

	begin_plain(&b);
	add_page(&b, "ram0", 4 * PAGE, 1);
	fails("a page beyond its block", &b, ERR_CORRUPT, "beyond its block");
	begin_plain(&b);
	add_page(&b, "ram1", 0, 1);
	fails("a page of no block", &b, ERR_CORRUPT, "not listed");
	begin_plain(&b);
	add_page(&b, NULL, 0, 1);
	fails("a page of the block before the first", &b, ERR_CORRUPT, "of no block");
	begin_plain(&b);
	add64(&b, 0x40);
	fails("xbzrle", &b, ERR_UNSUPPORTED, "flags 0x40");
	begin_plain(&b);
	add64(&b, PAGE | 4);
	fails("a second list", &b, ERR_CORRUPT, "where none belongs");
	begin_plain(&b);
	add64(&b, 0x10);
	add8(&b, 0x7e);
	add32(&b, 3);
	fails("a footer of another section", &b, ERR_CORRUPT, "ends as another");
	begin_plain(&b);
	add_end(&b);
	add8(&b, 2);
	add32(&b, 5);
	fails("another section goes on", &b, ERR_CORRUPT, "was not begun");
	begin_plain(&b);
	add_end(&b);
	add8(&b, 0);
	fails("no end of RAM", &b, ERR_CORRUPT, "something else than RAM");

	b.n = 0;
	add_file(&b);
	add_capabilities(&b, "x-ignore-shared", NULL);
	add_section(&b, 1, "ram");
	add64(&b, 2 * PAGE | 4);
	add_block(&b, "ram0", PAGE, 0);
	add_block(&b, "ram0", PAGE, 0);
	fails("a block twice", &b, ERR_CORRUPT, "listed twice");
	b.n -= 21;
	add_block(&b, "ram1", 2 * PAGE, 0);
	fails("more than all", &b, ERR_CORRUPT, "impossible size");
}

/* Where the header of the first block is in what begin_mapped writes. */
static void
test_wrong_mapped(void)
{
	static struct bytes in, out, b;
	size_t header;

	begin_mapped(&in, &out, false);
	end_mapped(&in, &out);
	header = (size_t)((uint8_t *)memmem(in.v, in.n, "ram0", 4) - in.v) + 12;
	b = in;
	be32enc(b.v + header, 2);
	fails("mapped-ram, version 2", &b, ERR_UNSUPPORTED, "version 2 (block ram0)");
	b = in;
	be64enc(b.v + header + 4, 8192);
	fails("mapped-ram, other pages", &b, ERR_CORRUPT, "another size");
	b = in;
	be64enc(b.v + header + 12, 8);
	fails("mapped-ram, a bitmap before", &b, ERR_CORRUPT, "are nowhere");
	b = in;
	be64enc(b.v + header + 20, UINT64_MAX - PAGE + 1);
	fails("mapped-ram, pages far away", &b, ERR_CORRUPT, "are nowhere");
	b = in;
	be64enc(b.v + header + 20, be64dec(b.v + header + 20) + 1);
	fails("mapped-ram, pages at an odd place", &b, ERR_CORRUPT, "are nowhere");
}

/* As newer QEMUs write it: a block that x-ignore-shared leaves out has its header only. */
static void
test_left_out(void)
{
	static struct bytes in, out;

	begin_mapped(&in, &out, true);
	in.n = (size_t)((uint8_t *)memmem(in.v, in.n, "vga.vram", 8) - in.v) + 8 + 16;
	add32(&in, 1);
	add64(&in, PAGE);
	add64(&in, 0);
	add64(&in, 0);
	fails("mapped-ram, a block left out", &in, ERR_UNSUPPORTED,
	    "block vga.vram is not in the file (x-ignore-shared)");
	begin_mapped(&in, &out, false);
	in.n = (size_t)((uint8_t *)memmem(in.v, in.n, "vga.vram", 8) - in.v) + 8 + 8;
	add32(&in, 1);
	add64(&in, PAGE);
	add64(&in, 0);
	add64(&in, 0);
	fails("but not without x-ignore-shared", &in, ERR_CORRUPT, "are nowhere");
}

/* ---- whole files ---- */

/* Appends it to the file; how long that is. */
static uint64_t
append(int fd, struct bytes *b, uint64_t at)
{
	if (pwrite(fd, b->v, b->n, (off_t)at) != (ssize_t)b->n)
		abort();
	at += b->n;
	b->n = 0;
	return at;
}

static int
open_file(struct qemu_mapped **m, int fd, const char *const *ids, size_t n, struct err *e)
{
	char path[32];

	*e = (struct err)ERR_INIT;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return qemu_mapped_open(m, path, ids, n, e);
}

/* A block may be called as the id of another. */
static void
test_same_id(void)
{
	static const char *const ids[] = { "/objects/ram0" };
	int fd = memfd_create("mapped", MFD_CLOEXEC);
	static struct bytes in, out;
	static struct result r;
	struct qemu_mapped *m = NULL;

	add_file(&in);
	add_capabilities(&in, "mapped-ram", NULL);
	add_section(&in, 1, "ram");
	add64(&in, 5 * PAGE | 4);
	add_name(&in, ids[0]);
	add64(&in, 3 * PAGE);
	add_mapping(&in, 3, 5);
	add_name(&in, "ram0");
	add64(&in, 2 * PAGE);
	add_mapping(&in, 2, 2);
	add_end(&in);
	add_section(&in, 3, NULL);
	add_end(&in);
	add_devices(&in);
	append(fd, &in, 0);

	add_file(&out);
	add_capabilities(&out, "x-ignore-shared", NULL);
	add_section(&out, 1, "ram");
	add64(&out, 5 * PAGE | 4);
	add_block(&out, ids[0], 3 * PAGE, 0);
	add_block(&out, "ram0", 2 * PAGE, 0);
	add_end(&out);
	add_section(&out, 3, NULL);
	add_page(&out, "ram0", 0, 0);
	add_page(&out, NULL, PAGE, 0x41);
	add_end(&out);
	add_devices(&out);
	if (ok(open_file(&m, fd, ids, 1, &r.e) == 0, "a region by its full name: %s", r.e.msg))
		ok(qemu_mapped_state(m, on_put, &r, &r.e) == 0 && same(&r.out, &out),
		    "the block that is called as its id is in the state: %s", r.e.msg);
	qemu_mapped_close(m);
	close(fd);
}

/* So many blocks of a page each. */
static int
make_many(unsigned n)
{
	int fd = memfd_create("mapped", MFD_CLOEXEC);
	static struct bytes b;
	uint64_t at;

	add_file(&b);
	add_capabilities(&b, "mapped-ram", NULL);
	add_section(&b, 1, "ram");
	add64(&b, (uint64_t)n * PAGE | 4);
	at = append(fd, &b, 0);
	for (unsigned i = 0; i < n; i++) {
		char name[16];
		uint64_t bitmap, pages;

		snprintf(name, sizeof(name), "ram%u", i);
		add_name(&b, name);
		add64(&b, PAGE);
		bitmap = at + b.n + 28;
		pages = align_up(bitmap + 8, PAGE);
		add32(&b, 1);
		add64(&b, PAGE);
		add64(&b, bitmap);
		add64(&b, pages);
		append(fd, &b, at);
		at = pages + PAGE;
	}
	add_end(&b);
	add_section(&b, 3, NULL);
	add_end(&b);
	add_devices(&b);
	append(fd, &b, at);
	return fd;
}

static void
test_many(void)
{
	struct qemu_mapped *m = NULL;
	struct err e;
	size_t n = 0;
	int fd;

	fd = make_many(OBJECTS_MAX);
	if (ok(open_file(&m, fd, NULL, 0, &e) == 0, "as many blocks as regions: %s", e.msg))
		ok(qemu_mapped_regions(m, &n) != NULL && n == OBJECTS_MAX, "all are there");
	qemu_mapped_close(m);
	close(fd);
	m = NULL;
	fd = make_many(OBJECTS_MAX + 1);
	ok(open_file(&m, fd, NULL, 0, &e) == -1 && e.kind == ERR_UNSUPPORTED &&
		strstr(e.msg, "257 RAM blocks") != NULL,
	    "one more: %s", e.msg);
	qemu_mapped_close(m);
	close(fd);
}

/* Cut anywhere before the devices: never taken. */
static void
test_cut(void)
{
	static struct bytes in, cut;
	static struct result r = { .ours = "ram0" };
	size_t whole, taken = 0;

	begin_plain(&in);
	add_page(&in, "ram0", 0, 1);
	add_page(&in, "pc.bios", 0, 1);
	add_end(&in);
	add_section(&in, 3, NULL);
	add_end(&in);
	whole = in.n;
	add_devices(&in);
	for (size_t n = 0; n <= whole; n++) {
		cut = in;
		cut.n = n;
		run(&r, &cut, n + 1, false);
		taken += r.good || r.e.kind != ERR_CORRUPT;
	}
	ok(taken == 0, "a stream that ends before the devices, at each byte");
}

int
main(void)
{
	test_plain();
	test_old();
	test_mapped();
	test_wrong();
	test_wrong_mapped();
	test_left_out();
	test_same_id();
	test_many();
	test_cut();
	return done();
}
