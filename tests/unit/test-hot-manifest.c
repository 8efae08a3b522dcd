/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "format/manifest.h"
#include "tap.h"

/* What a manifest may say of a hot section. */

static struct unknown unknown = { (const uint8_t *)"\x61x\x81\x07", 4, NULL };

/* Two regions, one of them with two hot pages of three; three pages were touched. */
static struct manifest
hot_manifest(struct object regions[2], struct hot_section *h)
{
	struct object region = {
		.name = "a", .kind = "memfd", .size = 40960, .page_size = 4096
	};

	regions[0] = region;
	region.name = "b";
	region.top = (struct link){ 500, 3, 600, 2, { 1 } };
	regions[1] = region;
	*h = (struct hot_section){
		.pages = { .name = "hot pages", .size = 8192, .top = { 200, 2, 99, 0, { 2 } } },
		.table = { .name = "hot table", .size = 24, .top = { 300, 1, 50, 0, { 3 } } },
		.has_trace = true,
		.trace = { 9, 8, 7 },
		.unknown = &unknown,
	};
	h->table.unknown = &unknown;
	return (struct manifest){
		.tool = "x", .codec = "zstd", .regions = regions, .nregions = 2, .hot = h
	};
}

static void
test_manifest(void)
{
	struct object regions[2];
	struct hot_section h;
	struct manifest m = hot_manifest(regions, &h), back;
	struct cbor_out out, again = { 0 };
	struct err e = ERR_INIT;
	bool good;

	good = manifest_encode(&out, &m, &e) == 0 &&
	       manifest_decode(&back, out.buf, out.len, &e) == 0;
	ok(good && back.hot != NULL && back.hot->pages.size == 8192 &&
		back.hot->table.size == 24 &&
		memcmp(&back.hot->pages.top, &h.pages.top, sizeof(h.pages.top)) == 0 &&
		memcmp(&back.hot->table.top, &h.table.top, sizeof(h.table.top)) == 0 &&
		back.hot->has_trace && memcmp(back.hot->trace, h.trace, DIGEST_SIZE) == 0,
	    "a hot section in a manifest: %s", e.msg);
	ok(good && manifest_encode(&again, &back, &e) == 0 && again.len == out.len &&
		memcmp(again.buf, out.buf, out.len) == 0,
	    "comes back, with the keys that are not known");
	manifest_free(&back);
	cbor_out_free(&again);
	for (size_t n = 0; good && n < out.len; n++) {
		good = manifest_decode(&back, out.buf, n, &e) == -1;
		manifest_free(&back);
	}
	ok(good, "and not if it is cut");
	cbor_out_free(&out);
}

#define SPOIL(name, ...)                                                                       \
	static void spoil_##name(struct manifest *m, struct hot_section *h)                    \
	{                                                                                      \
		(void)m;                                                                       \
		(void)h;                                                                       \
		__VA_ARGS__;                                                                   \
	}

SPOIL(nothing, )
SPOIL(few, m->regions[1].top.hot = 1)
SPOIL(many, m->regions[0].top = (struct link){ 600, 1, 0, 1, { 1 } })
SPOIL(other, m->regions[0].top = m->regions[1].top; m->regions[1].top = (struct link){ 0 })
SPOIL(no_pages, h->pages.size = 0; h->pages.top = (struct link){ 0 })
SPOIL(odd_pages, h->pages.size = 8191)
SPOIL(hole, h->pages.top.stored = 1)
SPOIL(over, h->table.size = 8)
SPOIL(hot_table, h->table.top.hot = 1; h->table.top.bytes = 0)
SPOIL(zero_table, h->table.top = (struct link){ 0 })
SPOIL(states, m->states = m->regions + 1; m->nstates = 1; m->nregions = 1;
      m->states[0].page_size = 0)

static void
test_manifests(void)
{
	static const struct {
		const char *name;
		void (*spoil)(struct manifest *m, struct hot_section *h);
		const char *says;
	} cases[] = {
		{ "nothing wrong", spoil_nothing, NULL },
		{ "a hot page too few", spoil_few, "1 hot pages, the hot section has 2" },
		{ "a hot page too many", spoil_many, "3 hot pages, the hot section has 2" },
		{ "hot pages of another region", spoil_other, NULL },
		{ "hot pages, and no bytes of them", spoil_no_pages, "section has 0" },
		{ "a part of a page", spoil_odd_pages, "hot pages of 8191 bytes" },
		{ "a hot page that is not stored", spoil_hole, "1 of 2 hot pages" },
		{ "more pages than the table has", spoil_over, "for a table of 1" },
		{ "a table of hot pages", spoil_hot_table, "its own pages are hot" },
		{ "a table of zeros, which is for its reader", spoil_zero_table, NULL },
		{ "a state with hot pages", spoil_states, "states: b: has hot pages" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct object regions[2];
		struct hot_section h;
		struct manifest m = hot_manifest(regions, &h);
		struct cbor_out out = { 0 };
		struct err e = ERR_INIT;
		int rc;

		cases[i].spoil(&m, &h);
		rc = manifest_encode(&out, &m, &e);
		ok(cases[i].says == NULL ? rc == 0
					 : rc == -1 && strstr(e.msg, cases[i].says) != NULL,
		    "a manifest with %s: %s", cases[i].name, e.msg);
		cbor_out_free(&out);
	}
}

int
main(void)
{
	test_manifest();
	test_manifests();
	return done();
}
