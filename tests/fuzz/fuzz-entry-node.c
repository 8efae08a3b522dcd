/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "format/node.h"
#include "fuzz.h"

/*
 * Input: chunk size (as a power), level, children, a link, and what is there of a node.  What
 * is taken is written again as the same bytes, and a node counts what it holds.
 */
#define FIXED (3 + LINK_SIZE)

static void
try_entries(const uint8_t node[NODE_SIZE], const struct geometry *g, struct link *sum)
{
	for (uint32_t i = 0; i < g->leaf_fanout; i++) {
		const uint8_t *buf = node + (size_t)i * g->entry_size;
		uint8_t again[NODE_SIZE];
		struct err e = ERR_INIT;
		struct entry en;

		if (entry_decode(&en, buf, g, &e) == -1) {
			must(e.kind == ERR_CORRUPT);
			continue;
		}
		entry_encode(again, &en, g);
		must(memcmp(buf, again, g->entry_size) == 0);
		must(entry_stored(&en, g) <= g->pages);
		must((en.length != 0) == (entry_stored(&en, g) != 0));
		must(en.length <= record_length_max(g->pages));
		must(entry_stored(&en, g) + entry_hot(&en, g) <= g->pages);
		sum->stored += entry_stored(&en, g) + entry_hot(&en, g);
		sum->hot += entry_hot(&en, g);
		sum->bytes += en.length;
	}
}

static void
try_links(const uint8_t node[NODE_SIZE], struct link *sum)
{
	for (uint32_t i = 0; i < NODE_FANOUT; i++) {
		uint8_t again[LINK_SIZE];
		struct err e = ERR_INIT;
		struct link l;

		link_decode(&l, node + (size_t)i * LINK_SIZE);
		link_encode(again, &l);
		must(memcmp(node + (size_t)i * LINK_SIZE, again, LINK_SIZE) == 0);
		if (link_check(&l, &e) == -1) {
			must(e.kind == ERR_CORRUPT);
			continue;
		}
		sum->stored += l.stored;
		sum->bytes += l.bytes;
		sum->hot += l.hot;
	}
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct link link, sum = { 0 };
	uint8_t node[NODE_SIZE] = { 0 };
	struct err e = ERR_INIT;
	unsigned level, children, fanout;
	struct geometry g;

	if (size < FIXED || geometry_init(&g, 4096u << data[0] % 10, &e) == -1)
		return 0;
	memcpy(node, data + FIXED, size - FIXED < NODE_SIZE ? size - FIXED : NODE_SIZE);
	level = data[1] % 3;
	fanout = level == 0 ? g.leaf_fanout : NODE_FANOUT;
	children = data[2] % (fanout + 1);
	link_decode(&link, data + 3);
	if (level == 0)
		try_entries(node, &g, &sum);
	else
		try_links(node, &sum);
	if (node_check(node, level, children, &link, &g, &e) == 0)
		must(sum.stored == link.stored && sum.bytes == link.bytes &&
		     sum.hot == link.hot);
	else
		must(e.kind == ERR_CORRUPT);
	/* With the counts put right, so that the rest is looked at. */
	link.stored = sum.stored;
	link.bytes = sum.bytes;
	link.hot = sum.hot;
	node_check(node, level, fanout, &link, &g, &e);
	return 0;
}
