/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/qemu/stream.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/endian.h>

#include "base/ckd.h"

/*
 * The stream, all big endian (QEMU: migration/savevm.c, migration/ram.c):
 *
 *	"QEVM", version 3
 *	configuration	machine, and subsections: page size, capabilities, UUID
 *	sections	START, PART and END of "ram"; commands in between
 *	…		devices; not looked at
 *
 * A section of RAM is a list of words, each the offset of a page with flags in its low
 * bits: the list of blocks, pages, the end.
 */
#define FILE_MAGIC 0x5145564d
#define FILE_VERSION 3

enum {
	SECTION_EOF = 0x00,
	SECTION_START = 0x01,
	SECTION_PART = 0x02,
	SECTION_END = 0x03,
	SECTION_FULL = 0x04,
	SUBSECTION = 0x05,
	SECTION_CONFIGURATION = 0x07,
	SECTION_COMMAND = 0x08,
	SECTION_FOOTER = 0x7e,
};

enum {
	RAM_ZERO = 0x02,
	RAM_MEM_SIZE = 0x04,
	RAM_PAGE = 0x08,
	RAM_EOS = 0x10,
	RAM_CONTINUE = 0x20,
};

#define IGNORE_SHARED "x-ignore-shared"
#define MAPPED_RAM "mapped-ram"

#define BLOCKS_MAX 4096
#define CAPABILITIES_MAX 64
#define NAME_MAX_LEN 255
#define MAPPED_HEADER 28
#define MAPPED_VERSION 1
#define PAGE_BITS_MIN 12
#define PAGE_BITS_MAX 16

/* The longest thing that is looked at as a whole: a block of the list. */
#define TOKEN_MAX (NAME_MAX_LEN + 8 + 8 + MAPPED_HEADER)

struct qemu_stream {
	struct qemu_stream_hooks hooks;
	uint64_t at; /* in the file: of the next byte that is fed */

	/* What is awaited: `need` bytes for `step`, behind `bulk` bytes that pass. */
	int (*step)(struct qemu_stream *s, struct err *e);
	uint8_t token[TOKEN_MAX];
	size_t have, need;
	uint64_t bulk;
	bool bulk_out; /* they are put, not left out */
	bool through; /* all the rest is put */

	/* Configuration. */
	char machine[NAME_MAX_LEN + 1];
	uint32_t page_size;
	unsigned capabilities; /* that are still to come */
	unsigned kept; /* of those that came: to be put */
	struct {
		char name[NAME_MAX_LEN + 1];
	} capability[CAPABILITIES_MAX];
	bool has_capabilities, ignore_shared, mapped;

	/* RAM. */
	uint8_t type; /* of the section */
	uint8_t name_len; /* of what comes next */
	bool has_ram, listed, complete;
	uint32_t ram_id; /* of the section */
	uint64_t left; /* bytes of blocks that the list still lacks */
	uint64_t word; /* the page whose block is awaited */
	struct qemu_stream_block *blocks; /* owned */
	size_t nblocks;
	struct qemu_stream_block *in, *out; /* that "the same block" means */
};

static int
corrupt(const struct qemu_stream *s, struct err *e, const char *what)
{
	return err_set(e, ERR_CORRUPT, "migration stream: %s at byte %" PRIu64, what, s->at);
}

static int
put(struct qemu_stream *s, const void *buf, size_t len, struct err *e)
{
	return s->hooks.put(s->hooks.arg, buf, len, e);
}

static int
put_byte(struct qemu_stream *s, uint8_t value, struct err *e)
{
	return put(s, &value, 1, e);
}

static int
put_be32(struct qemu_stream *s, uint32_t value, struct err *e)
{
	uint8_t buf[4];

	be32enc(buf, value);
	return put(s, buf, sizeof(buf), e);
}

static int
put_be64(struct qemu_stream *s, uint64_t value, struct err *e)
{
	uint8_t buf[8];

	be64enc(buf, value);
	return put(s, buf, sizeof(buf), e);
}

/* A length in one byte, and the text. */
static int
put_name(struct qemu_stream *s, const char *name, struct err *e)
{
	size_t len = strlen(name);

	if (put_byte(s, (uint8_t)len, e) == -1)
		return -1;
	return put(s, name, len, e);
}

/* What was awaited, as it came. */
static int
put_token(struct qemu_stream *s, struct err *e)
{
	return put(s, s->token, s->have, e);
}

static int
await(struct qemu_stream *s, size_t need, int (*step)(struct qemu_stream *s, struct err *e))
{
	s->need = need;
	s->step = step;
	return 0;
}

/* The same behind bytes that are passed on, or left out. */
static int
await_behind(struct qemu_stream *s, uint64_t bulk, bool out, size_t need,
    int (*step)(struct qemu_stream *s, struct err *e))
{
	s->bulk = bulk;
	s->bulk_out = out;
	return await(s, need, step);
}

/* Text of the token: printable, since it is shown. */
static int
get_text(
    struct qemu_stream *s, size_t from, size_t len, char to[NAME_MAX_LEN + 1], struct err *e)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t c = s->token[from + i];

		if (c < 0x20 || c > 0x7e)
			return corrupt(s, e, "a name that is no text");
		to[i] = (char)c;
	}
	to[len] = '\0';
	return 0;
}

/* ---- RAM ---- */

static int step_type(struct qemu_stream *s, struct err *e);
static int step_word(struct qemu_stream *s, struct err *e);
static int step_block_len(struct qemu_stream *s, struct err *e);

static int
step_footer(struct qemu_stream *s, struct err *e)
{
	if (be32dec(s->token) != s->ram_id)
		return corrupt(s, e, "a section ends as another one");
	return put_token(s, e) == -1 ? -1 : await(s, 1, step_type);
}

/* Old machines have no footers. */
static int
step_behind_section(struct qemu_stream *s, struct err *e)
{
	if (s->token[0] != SECTION_FOOTER)
		return step_type(s, e);
	return put_token(s, e) == -1 ? -1 : await(s, 4, step_footer);
}

/* One byte behind RAM_ZERO. */
static int
step_zero(struct qemu_stream *s, struct err *e)
{
	if (s->token[0] != 0)
		return corrupt(s, e, "a page of zeros that are none");
	if (!s->in->ours && put_token(s, e) == -1)
		return -1;
	return await(s, 8, step_word);
}

static int
put_page_header(struct qemu_stream *s, struct qemu_stream_block *b, uint64_t offset,
    unsigned flags, struct err *e)
{
	bool same = s->out == b;

	s->out = b;
	if (put_be64(s, offset | flags | (same ? (unsigned)RAM_CONTINUE : 0), e) == -1)
		return -1;
	return same ? 0 : put_name(s, b->name, e);
}

/* A page of s->in. */
static int
take_page(struct qemu_stream *s, struct err *e)
{
	uint64_t offset = align_down(s->word, s->page_size);
	unsigned flags = (unsigned)s->word & (RAM_ZERO | RAM_PAGE);
	struct qemu_stream_block *b = s->in;

	if (offset >= b->size)
		return corrupt(s, e, "a page beyond its block");
	b->records++;
	if (!b->ours && put_page_header(s, b, offset, flags, e) == -1)
		return -1;
	if (flags == RAM_ZERO)
		return await(s, 1, step_zero);
	return await_behind(s, s->page_size, !b->ours, 8, step_word);
}

static int
step_page_name(struct qemu_stream *s, struct err *e)
{
	char name[NAME_MAX_LEN + 1];

	if (get_text(s, 0, s->have, name, e) == -1)
		return -1;
	for (size_t i = 0; i < s->nblocks; i++) {
		if (strcmp(s->blocks[i].name, name) == 0) {
			s->in = &s->blocks[i];
			return take_page(s, e);
		}
	}
	return corrupt(s, e, "a page of a block that was not listed");
}

static int
step_page_len(struct qemu_stream *s, struct err *e)
{
	if (s->token[0] == 0)
		return corrupt(s, e, "a block without a name");
	return await(s, s->token[0], step_page_name);
}

static int
start_page(struct qemu_stream *s, struct err *e)
{
	if (s->mapped || !s->listed)
		return corrupt(s, e, "a page where none belongs");
	if ((s->word & RAM_CONTINUE) == 0)
		return await(s, 1, step_page_len);
	if (s->in == NULL)
		return corrupt(s, e, "a page of no block");
	return take_page(s, e);
}

/* What mapped-ram has behind each block: where its pages are. */
static int
get_mapping(
    struct qemu_stream *s, struct qemu_stream_block *b, const uint8_t *header, struct err *e)
{
	uint64_t npages = b->size / s->page_size, end;

	if (be32dec(header) != MAPPED_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
		    "mapped-ram version %" PRIu32 " (block %s) is not known", be32dec(header),
		    b->name);
	b->bitmap = be64dec(header + 12);
	b->pages = be64dec(header + 20);
	if (s->ignore_shared && b->bitmap == 0 && b->pages == 0)
		return err_set(e, ERR_UNSUPPORTED,
		    "block %s is not in the file (" IGNORE_SHARED ")", b->name);
	if (be64dec(header + 4) != s->page_size)
		return corrupt(s, e, "a block with pages of another size");
	/* The bitmap consists of 64-bit words. */
	if (b->bitmap < s->at || ckd_add(&end, b->bitmap, div_up(npages, 64) * 8) ||
	    b->pages < end || b->pages % s->page_size != 0 ||
	    ckd_add(&end, b->pages, b->size) || end > INT64_MAX)
		return corrupt(s, e, "a block whose pages are nowhere");
	return 0;
}

static int
put_block(struct qemu_stream *s, const struct qemu_stream_block *b, struct err *e)
{
	if (put_name(s, b->name, e) == -1 || put_be64(s, b->size, e) == -1)
		return -1;
	return put_be64(s, b->gpa, e);
}

/* The list goes on, or a page. */
static int
behind_block(struct qemu_stream *s, uint64_t gap)
{
	if (s->left > 0)
		return await_behind(s, gap, false, 1, step_block_len);
	s->listed = true;
	return await_behind(s, gap, false, 8, step_word);
}

static struct qemu_stream_block *
add_block(struct qemu_stream *s, struct err *e)
{
	struct qemu_stream_block *b;

	if (s->nblocks == BLOCKS_MAX) {
		err_set(e, ERR_UNSUPPORTED, "more than %d RAM blocks", BLOCKS_MAX);
		return NULL;
	}
	/* Room doubles; pages that would point into it come after the list. */
	if ((s->nblocks & (s->nblocks - 1)) == 0) {
		size_t room = MAX(s->nblocks * 2, (size_t)1);

		b = realloc(s->blocks, room * sizeof(*b));
		if (b == NULL) {
			err_sys(e, "RAM blocks");
			return NULL;
		}
		s->blocks = b;
	}
	b = &s->blocks[s->nblocks];
	*b = (struct qemu_stream_block){ 0 };
	return b;
}

/* A block of the list: name, size, and what the capabilities add. */
static int
step_block(struct qemu_stream *s, struct err *e)
{
	const uint8_t *p = s->token + s->name_len;
	struct qemu_stream_block *b = add_block(s, e);

	if (b == NULL || get_text(s, 0, s->name_len, b->name, e) == -1)
		return -1;
	for (size_t i = 0; i < s->nblocks; i++)
		if (strcmp(s->blocks[i].name, b->name) == 0)
			return corrupt(s, e, "a block that is listed twice");
	b->size = be64dec(p);
	p += 8;
	if (b->size > s->left || b->size % s->page_size != 0)
		return corrupt(s, e, "a block of impossible size");
	if (s->ignore_shared) {
		b->gpa = be64dec(p);
		b->has_gpa = true;
		p += 8;
	}
	if (s->mapped && get_mapping(s, b, p, e) == -1)
		return -1;
	s->left -= b->size;
	s->nblocks++;
	if (s->hooks.block != NULL && s->hooks.block(s->hooks.arg, b, e) == -1)
		return -1;
	if (put_block(s, b, e) == -1)
		return -1;
	return behind_block(s, s->mapped ? b->pages + b->size - s->at : 0);
}

static int
step_block_len(struct qemu_stream *s, struct err *e)
{
	s->name_len = s->token[0];
	if (s->name_len == 0)
		return corrupt(s, e, "a block without a name");
	return await(s,
	    s->name_len + 8u + (s->ignore_shared ? 8u : 0) + (s->mapped ? MAPPED_HEADER : 0),
	    step_block);
}

static int
start_list(struct qemu_stream *s, struct err *e)
{
	if (s->type != SECTION_START || s->listed || s->nblocks > 0)
		return corrupt(s, e, "a list of blocks where none belongs");
	if (!s->ignore_shared && !s->mapped)
		return err_set(e, ERR_UNSUPPORTED,
		    "the migration stream was written without " IGNORE_SHARED
		    " and without " MAPPED_RAM);
	s->left = align_down(s->word, s->page_size);
	if (s->left == 0)
		return corrupt(s, e, "no RAM");
	if (put_token(s, e) == -1)
		return -1;
	return await(s, 1, step_block_len);
}

static int
end_ram(struct qemu_stream *s, struct err *e)
{
	if (!s->listed)
		return corrupt(s, e, "RAM without a list of blocks");
	if (s->type == SECTION_END) {
		s->complete = true;
		if (s->mapped && s->hooks.pages == NULL)
			return err_set(e, ERR_UNSUPPORTED, "the stream is a mapped-ram file");
		if (s->mapped && s->hooks.pages(s->hooks.arg, s, e) == -1)
			return -1;
	}
	return put_token(s, e) == -1 ? -1 : await(s, 1, step_behind_section);
}

static int
step_word(struct qemu_stream *s, struct err *e)
{
	unsigned flags;

	s->word = be64dec(s->token);
	flags = (unsigned)(s->word & (s->page_size - 1));
	switch (flags & ~(unsigned)RAM_CONTINUE) {
	case RAM_MEM_SIZE:
		return start_list(s, e);
	case RAM_ZERO:
	case RAM_PAGE:
		return start_page(s, e);
	case RAM_EOS:
		return end_ram(s, e);
	default:
		return err_set(e, ERR_UNSUPPORTED,
		    "RAM in the migration stream with flags 0x%x at byte %" PRIu64
		    " (compressed, xbzrle, multifd or RDMA): none of them is supported",
		    flags, s->at);
	}
}

/* ---- sections ---- */

static int
step_section_name(struct qemu_stream *s, struct err *e)
{
	char name[NAME_MAX_LEN + 1];

	if (get_text(s, 0, s->name_len, name, e) == -1)
		return -1;
	/* Nobody but its device knows where the state of a device ends. */
	if (s->type != SECTION_START || strcmp(name, "ram") != 0 || s->has_ram)
		return err_set(e, ERR_UNSUPPORTED,
		    "\"%s\" is in front of the end of RAM in the migration stream: "
		    "turn off what puts it there, or remove the device",
		    name);
	s->has_ram = true;
	return put_token(s, e) == -1 ? -1 : await(s, 8, step_word);
}

static int
step_section(struct qemu_stream *s, struct err *e)
{
	s->ram_id = be32dec(s->token);
	s->name_len = s->token[4];
	if (put_token(s, e) == -1)
		return -1;
	/* With the instance and the version. */
	return await(s, s->name_len + 8u, step_section_name);
}

static int
step_part(struct qemu_stream *s, struct err *e)
{
	if (!s->has_ram || be32dec(s->token) != s->ram_id)
		return corrupt(s, e, "a section that was not begun");
	return put_token(s, e) == -1 ? -1 : await(s, 8, step_word);
}

static int
step_command(struct qemu_stream *s, struct err *e)
{
	if (put_token(s, e) == -1)
		return -1;
	return await_behind(s, be16dec(s->token + 2), true, 1, step_type);
}

static int
step_type(struct qemu_stream *s, struct err *e)
{
	s->type = s->token[0];
	if (put_token(s, e) == -1)
		return -1;
	if (s->complete) {
		s->through = true;
		return 0;
	}
	switch (s->type) {
	case SECTION_START:
	case SECTION_FULL:
		return await(s, 5, step_section);
	case SECTION_PART:
	case SECTION_END:
		return await(s, 4, step_part);
	case SECTION_COMMAND:
		return await(s, 4, step_command);
	default:
		return corrupt(s, e, "something else than RAM");
	}
}

/* ---- configuration ---- */

static int step_behind_configuration(struct qemu_stream *s, struct err *e);

static int
step_page_bits(struct qemu_stream *s, struct err *e)
{
	uint32_t bits = be32dec(s->token);

	if (bits < PAGE_BITS_MIN || bits > PAGE_BITS_MAX)
		return err_set(e, ERR_UNSUPPORTED, "pages of 2^%" PRIu32 " bytes", bits);
	s->page_size = UINT32_C(1) << bits;
	return put_token(s, e) == -1 ? -1 : await(s, 1, step_behind_configuration);
}

static int
step_uuid(struct qemu_stream *s, struct err *e)
{
	return put_token(s, e) == -1 ? -1 : await(s, 1, step_behind_configuration);
}

/* Their list: what was on, but x-ignore-shared instead of mapped-ram. */
static int
put_capabilities(struct qemu_stream *s, struct err *e)
{
	bool add = !s->ignore_shared;

	if (put_be32(s, s->kept + add, e) == -1 || (add && put_name(s, IGNORE_SHARED, e) == -1))
		return -1;
	for (unsigned i = 0; i < s->kept; i++)
		if (put_name(s, s->capability[i].name, e) == -1)
			return -1;
	return await(s, 1, step_behind_configuration);
}

static int step_capability_len(struct qemu_stream *s, struct err *e);

static int
next_capability(struct qemu_stream *s, struct err *e)
{
	if (s->capabilities == 0)
		return put_capabilities(s, e);
	s->capabilities--;
	return await(s, 1, step_capability_len);
}

static int
step_capability(struct qemu_stream *s, struct err *e)
{
	char *name = s->capability[s->kept].name;

	if (get_text(s, 0, s->have, name, e) == -1)
		return -1;
	if (strcmp(name, MAPPED_RAM) == 0) {
		s->mapped = true;
	} else {
		s->ignore_shared |= strcmp(name, IGNORE_SHARED) == 0;
		s->kept++;
	}
	return next_capability(s, e);
}

static int
step_capability_len(struct qemu_stream *s, struct err *e)
{
	if (s->token[0] == 0)
		return corrupt(s, e, "a capability without a name");
	return await(s, s->token[0], step_capability);
}

static int
step_capabilities(struct qemu_stream *s, struct err *e)
{
	s->capabilities = be32dec(s->token);
	if (s->has_capabilities)
		return corrupt(s, e, "capabilities again");
	s->has_capabilities = true;
	if (s->capabilities > CAPABILITIES_MAX)
		return err_set(
		    e, ERR_UNSUPPORTED, "%u migration capabilities", s->capabilities);
	return next_capability(s, e);
}

static int
step_subsection_name(struct qemu_stream *s, struct err *e)
{
	static const struct {
		const char *name;
		size_t need;
		int (*step)(struct qemu_stream *s, struct err *e);
	} known[] = {
		{ "configuration/target-page-bits", 4, step_page_bits },
		{ "configuration/capabilities", 4, step_capabilities },
		{ "configuration/uuid", 16, step_uuid },
	};
	char name[NAME_MAX_LEN + 1];
	uint32_t version = be32dec(s->token + s->name_len);

	if (get_text(s, 0, s->name_len, name, e) == -1 || put_token(s, e) == -1)
		return -1;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (version == 1 && strcmp(name, known[i].name) == 0)
			return await(s, known[i].need, known[i].step);
	return err_set(e, ERR_UNSUPPORTED,
	    "\"%s\" version %" PRIu32 " in the migration stream is not known", name, version);
}

static int
step_subsection_len(struct qemu_stream *s, struct err *e)
{
	s->name_len = s->token[0];
	return put_token(s, e) == -1 ? -1 : await(s, s->name_len + 4u, step_subsection_name);
}

static int
step_behind_configuration(struct qemu_stream *s, struct err *e)
{
	if (s->token[0] != SUBSECTION)
		return step_type(s, e);
	return put_token(s, e) == -1 ? -1 : await(s, 1, step_subsection_len);
}

static int
step_machine(struct qemu_stream *s, struct err *e)
{
	if (get_text(s, 0, s->have, s->machine, e) == -1 || put_token(s, e) == -1)
		return -1;
	return await(s, 1, step_behind_configuration);
}

static int
step_machine_len(struct qemu_stream *s, struct err *e)
{
	uint32_t len = be32dec(s->token);

	if (len == 0 || len > NAME_MAX_LEN)
		return corrupt(s, e, "a machine without a name");
	return put_token(s, e) == -1 ? -1 : await(s, len, step_machine);
}

/* Old machines have no configuration, but then no capabilities either. */
static int
step_configuration(struct qemu_stream *s, struct err *e)
{
	if (s->token[0] != SECTION_CONFIGURATION)
		return step_type(s, e);
	return put_token(s, e) == -1 ? -1 : await(s, 4, step_machine_len);
}

static int
step_file(struct qemu_stream *s, struct err *e)
{
	if (be32dec(s->token) != FILE_MAGIC)
		return err_set(e, ERR_CORRUPT, "this is no migration stream of QEMU");
	if (be32dec(s->token + 4) != FILE_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
		    "version %" PRIu32 " of migration streams is not known",
		    be32dec(s->token + 4));
	return put_token(s, e) == -1 ? -1 : await(s, 1, step_configuration);
}

/* ---- the outside ---- */

int
qemu_stream_new(struct qemu_stream **out, const struct qemu_stream_hooks *hooks, struct err *e)
{
	struct qemu_stream *s;

	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return err_sys(e, "migration stream");
	s->hooks = *hooks;
	s->at = hooks->base;
	s->page_size = UINT32_C(1) << PAGE_BITS_MIN;
	*out = s;
	return await(s, 8, step_file);
}

void
qemu_stream_free(struct qemu_stream *s)
{
	if (s == NULL)
		return;
	free(s->blocks);
	free(s);
}

/* As much as is of one kind; what was taken, or -1. */
static ssize_t
take(struct qemu_stream *s, const uint8_t *from, size_t len, struct err *e)
{
	size_t n;

	if (s->bulk > 0 || s->through) {
		n = s->through ? len : (size_t)MIN(len, s->bulk);
		if ((s->through || s->bulk_out) && put(s, from, n, e) == -1)
			return -1;
		s->bulk -= s->through ? 0 : n;
		s->at += n;
		return (ssize_t)n;
	}
	n = MIN(len, s->need - s->have);
	memcpy(s->token + s->have, from, n);
	s->have += n;
	s->at += n;
	if (s->have < s->need)
		return (ssize_t)n;
	if (s->step(s, e) == -1)
		return -1;
	s->have = 0;
	return (ssize_t)n;
}

int
qemu_stream_feed(struct qemu_stream *s, const void *buf, size_t len, struct err *e)
{
	const uint8_t *from = buf;

	while (len > 0) {
		ssize_t n = take(s, from, len, e);

		if (n == -1)
			return -1;
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

uint64_t
qemu_stream_jump(struct qemu_stream *s)
{
	uint64_t gap = s->bulk_out ? 0 : s->bulk;

	s->bulk -= gap;
	s->at += gap;
	return gap;
}

int
qemu_stream_end(const struct qemu_stream *s, struct err *e)
{
	if (s->through)
		return 0;
	return err_set(e, ERR_CORRUPT,
	    "the migration stream ends at byte %" PRIu64 ", before the state of devices",
	    s->at);
}

int
qemu_stream_page(struct qemu_stream *s, const struct qemu_stream_block *b, uint64_t offset,
    const void *page, struct err *e)
{
	struct qemu_stream_block *block = &s->blocks[b - s->blocks];

	if (put_page_header(s, block, offset, page != NULL ? RAM_PAGE : RAM_ZERO, e) == -1)
		return -1;
	return page != NULL ? put(s, page, s->page_size, e) : put_byte(s, 0, e);
}

bool
qemu_stream_mapped(const struct qemu_stream *s)
{
	return s->mapped;
}

uint32_t
qemu_stream_page_size(const struct qemu_stream *s)
{
	return s->page_size;
}

const char *
qemu_stream_machine(const struct qemu_stream *s)
{
	return s->machine;
}

const struct qemu_stream_block *
qemu_stream_blocks(const struct qemu_stream *s, size_t *n)
{
	*n = s->nblocks;
	return s->blocks;
}
