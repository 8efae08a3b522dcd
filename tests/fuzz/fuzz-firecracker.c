/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "vmm/firecracker/message.h"

/* What is taken fits together, whatever it was. */
static void
check(const struct fc_regions *r)
{
	uint64_t sum = 0;

	must(r->n >= 1 && r->n <= FC_REGIONS_MAX);
	for (size_t i = 0; i < r->n; i++) {
		must(r->v[i].size != 0 && r->v[i].offset == sum);
		must(r->v[i].hva + r->v[i].size > r->v[i].hva);
		must((r->v[i].hva | r->v[i].size) % r->page_size == 0);
		sum += r->v[i].size;
	}
	must(sum == r->size);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	struct fc_regions *r = malloc(sizeof(*r));
	struct err e = ERR_INIT;
	size_t end = 0, earlier;
	int rc = fc_message_end((const char *)data, size, &end, &e);

	must(rc != 1 || (end >= 2 && end <= size));
	if (rc == 1)
		must(fc_message_end((const char *)data, end - 1, &earlier, &e) == 0);
	if (fc_message_parse((const char *)data, rc == 1 ? end : size, r, &e) == 0) {
		must(rc == 1);
		check(r);
	}
	free(r);
	return 0;
}
