/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "fuzz.h"
#include "vmm/cloud-hypervisor/memory.h"
#include "vmm/cloud-hypervisor/wire.h"

/* What a peer says: headers, and the JSON of Config. */

static void
try_headers(const uint8_t bytes[CH_HEADER_SIZE])
{
	uint8_t again[CH_HEADER_SIZE];
	struct err e = ERR_INIT;
	struct ch_request r;
	uint64_t length;
	bool good;

	if (ch_request_parse(&r, bytes, &e) == 0) {
		must(r.length <= CH_PAYLOAD_MAX);
		must(strcmp(ch_command_name(r.command), "unknown") != 0);
		ch_request_format(again, r.command, r.length);
		must(again[0] == bytes[0] && memcmp(again + 8, bytes + 8, 8) == 0);
	}
	if (ch_response_parse(&good, &length, bytes, &e) == 0) {
		ch_response_format(again, good, length);
		must(again[0] == bytes[0] && memcmp(again + 8, bytes + 8, 8) == 0);
	}
}

/* Mappings that are taken can be relied on. */
static void
check(const struct ch_memory *m)
{
	must(m->n != 0 && m->n <= CH_MAPPINGS_MAX);
	for (size_t i = 0; i < m->n; i++) {
		const struct ch_mapping *p = &m->v[i];

		must(p->size != 0 && p->gpa + p->size > p->gpa);
		must((p->gpa | p->size) % 4096 == 0 && p->size % p->page_size == 0);
		must(i == 0 || p[-1].gpa + p[-1].size <= p->gpa);
		must(ch_memory_find(m, p->gpa, p->size) == p);
		must(ch_memory_find(m, p->gpa + 1, p->size) == NULL);
	}
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	bool whole = ch_json_is_whole(data, size);
	struct err e = ERR_INIT;
	struct ch_memory m;

	if (size >= CH_HEADER_SIZE)
		try_headers(data);
	if (ch_memory_parse(&m, data, size, &e) == -1)
		return 0;
	check(&m);
	/* It is an object; only white space may be around it. */
	must(whole || data[0] != '{' || data[size - 1] != '}');
	ch_memory_fini(&m);
	return 0;
}
