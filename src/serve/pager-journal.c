/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "serve/claims.h"
#include "serve/pager-internal.h"

/* What the page server was told, to tell the next one, and to answer without asking. */

int
journal_init(struct pager_journal *j, size_t nregions, struct err *e)
{
	j->memories = calloc(nregions + 1, sizeof(*j->memories));
	if (j->memories == NULL)
		return err_sys(e, "page server");
	j->nmemories = nregions;
	for (size_t i = 0; i < nregions; i++)
		j->memories[i].memory =
		    (struct served_memory){ .fd = -1, .bitmap = -1, .claims = -1 };
	return 0;
}

void
journal_fini(struct pager_journal *j)
{
	for (size_t i = 0; i < j->nmemories; i++) {
		fd_close(&j->memories[i].memory.fd);
		fd_close(&j->memories[i].memory.bitmap);
		fd_close(&j->memories[i].memory.claims);
	}
	for (unsigned i = 0; i < j->nprocesses; i++) {
		fd_close(&j->processes[i].uffd);
		fd_close(&j->processes[i].events);
	}
	free(j->memories);
	free(j->mappings);
	*j = (struct pager_journal){ 0 };
}

int
journal_reserve(struct pager_journal *j, size_t n, struct err *e)
{
	struct pager_mapping *more =
	    realloc(j->mappings, (j->nmappings + n) * sizeof(*j->mappings));

	if (more == NULL)
		return err_sys(e, "hand-off");
	j->mappings = more;
	return 0;
}

/* A mapping that loses its middle becomes two: there is room for one more. */
void
journal_remove_mapping(struct pager_journal *j, unsigned process, uint64_t hva, uint64_t len)
{
	size_t n = j->nmappings;

	for (size_t i = 0; i < n; i++) {
		struct pager_mapping *m = &j->mappings[i], right = *m;
		uint64_t end = m->hva + m->len;

		if (m->process != process || hva >= end || hva + len <= m->hva)
			continue;
		if (hva + len < end) {
			right.hva = hva + len;
			right.len = end - right.hva;
			right.offset += right.hva - m->hva;
			j->mappings[j->nmappings++] = right;
		}
		m->len = hva > m->hva ? hva - m->hva : 0;
	}
	n = j->nmappings;
	j->nmappings = 0;
	for (size_t i = 0; i < n; i++)
		if (j->mappings[i].len != 0)
			j->mappings[j->nmappings++] = j->mappings[i];
}

void
journal_add_mapping(struct pager_journal *j, const struct pager_mapping *m)
{
	journal_remove_mapping(j, m->process, m->hva, m->len);
	j->mappings[j->nmappings++] = *m;
}

bool
journal_covers(const struct pager_journal *j, unsigned process, uint64_t hva, uint64_t len)
{
	uint64_t end = hva + len;

	while (hva < end) {
		const struct pager_mapping *m = j->mappings;
		size_t i = 0;

		while (
		    i < j->nmappings && (m[i].process != process || hva - m[i].hva >= m[i].len))
			i++;
		if (i == j->nmappings)
			return false;
		hva = m[i].hva + m[i].len;
	}
	return true;
}

static uint64_t
given(const struct pager_memory *m)
{
	struct err unused = ERR_INIT;
	uint64_t sum = 0;
	struct claims c;

	if (m->kind == PAGER_NOTHING ||
	    claims_init(&c, m->memory.claims, m->npages, &unused) == -1)
		return 0;
	for (size_t i = 0; i < bitmap_bytes(c.npages) / sizeof(bitmap_word); i++)
		sum += (uint64_t)__builtin_popcountll(atomic_load(&c.given[i]));
	claims_fini(&c);
	return sum;
}

uint64_t
journal_given(const struct pager_journal *j)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < j->nmemories; i++)
		sum += given(&j->memories[i]);
	return sum;
}
