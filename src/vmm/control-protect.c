/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "format/layout.h"
#include "vmm/control-internal.h"

bool
control_can_protect(const struct control *c)
{
	return c->can_protect;
}

static int
check_mapping(const struct control *c, const struct gmem_mapping *m, struct err *e)
{
	uint64_t end;

	if (m->region >= c->nregions)
		return err_set(
		    e, ERR_CORRUPT, "region %u, there are %zu", m->region, c->nregions);
	if (m->length == 0 || (m->address | m->length | m->offset) % PAGE_GRANULE != 0 ||
	    ckd_add(&end, m->address, m->length))
		return err_set(e, ERR_CORRUPT, "%llu bytes at %#llx, offset %llu, are no pages",
		    (unsigned long long)m->length, (unsigned long long)m->address,
		    (unsigned long long)m->offset);
	if (ckd_add(&end, m->offset, m->length) || end > c->regions[m->region].size)
		return err_set(e, ERR_CORRUPT, "%llu bytes from %llu on, region %s has %llu",
		    (unsigned long long)m->length, (unsigned long long)m->offset,
		    c->regions[m->region].name, (unsigned long long)c->regions[m->region].size);
	return 0;
}

static int
check_others(const struct gmem_mapping *list, size_t n, struct err *e)
{
	const struct gmem_mapping *b = &list[n];

	for (size_t i = 0; i < n; i++)
		if (list[i].address < b->address + b->length &&
		    b->address < list[i].address + list[i].length)
			return err_set(e, ERR_CORRUPT, "it overlaps mapping %zu", i);
	return 0;
}

static int
check_mappings(const struct control *c, const struct reply *r, struct err *e)
{
	if (r->m.count == 0 || r->m.count > GMEM_MAPPINGS_MAX ||
	    r->more != r->m.count * sizeof(r->mappings[0]))
		return err_set(e, ERR_CORRUPT, "%u mappings, with %zu bytes about them",
		    r->m.count, r->more);
	if (r->nfds != 1)
		return err_set(e, ERR_CORRUPT, "%zu descriptors, one is wanted", r->nfds);
	for (size_t i = 0; i < r->m.count; i++)
		if (check_mapping(c, &r->mappings[i], e) == -1 ||
		    check_others(r->mappings, i, e) == -1)
			return err_wrap(e, "mapping %zu", i);
	return 0;
}

static int
copy(const struct reply *r, struct protect_mapping **list, size_t *n, struct err *e)
{
	struct protect_mapping *to = calloc(r->m.count, sizeof(*to));

	if (to == NULL)
		return err_sys(e, "mappings");
	for (size_t i = 0; i < r->m.count; i++)
		to[i] = (struct protect_mapping){ .hva = r->mappings[i].address,
			.len = r->mappings[i].length,
			.offset = r->mappings[i].offset,
			.region = r->mappings[i].region };
	*list = to;
	*n = r->m.count;
	return 0;
}

int
control_protect(
    struct control *c, int *uffd, struct protect_mapping **list, size_t *n, struct err *e)
{
	struct reply r;
	int rc;

	if (control_request(c, GMEM_PROTECT, GMEM_MAPPINGS, "PROTECT", &r, e) == -1)
		return -1;
	rc = check_mappings(c, &r, e);
	if (rc == 0)
		rc = copy(&r, list, n, e);
	if (rc == 0) {
		*uffd = r.fds[0];
		r.nfds = 0;
	} else {
		err_wrap(e, "answer to PROTECT");
	}
	control_reply_fini(&r);
	return rc;
}
