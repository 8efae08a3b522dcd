/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "base/ckd.h"
#include "serve/pager-internal.h"

/* The journal, for another supervisor, and as another one has left it. */

#define CHUNK 1024u /* mappings in one entry of the ledger */

struct noted_memory {
	uint64_t offset, page_size, npages;
	uint32_t kind;
	bool slots, source;
	bool answered; /* and the VMM knows */
};

struct noted_mappings {
	uint32_t n;
	bool mapped; /* pager.mapped */
	struct pager_mapping list[CHUNK];
};

static_assert(sizeof(struct noted_mappings) <= LEDGER_DATA_MAX, "one message");

/* ---- noting ---- */

static int
put_memory(struct pager *p, size_t index, bool answered, struct err *e)
{
	const struct pager_memory *m = &p->journal.memories[index];
	const struct noted_memory noted = {
		.offset = m->memory.offset,
		.page_size = m->memory.page_size,
		.npages = m->npages,
		.kind = m->kind,
		.slots = m->memory.slots,
		.source = m->memory.source,
		.answered = answered,
	};
	const int fds[] = { m->memory.fd, m->memory.bitmap, m->memory.claims };

	return ledger_put(
	    p->ledger, LEDGER_KEY(LEDGER_MEMORY, index), &noted, sizeof(noted), fds, 3, e);
}

int
pager_note_memory(struct pager *p, size_t index, struct err *e)
{
	if (put_memory(p, index, false, e) == -1)
		return -1;
	return ledger_commit(p->ledger, e);
}

int
pager_note_answer(struct pager *p, size_t index, struct err *e)
{
	return put_memory(p, index, true, e);
}

int
pager_note_process(struct pager *p, unsigned process, struct err *e)
{
	const struct pager_process *m = &p->journal.processes[process];
	const int fds[] = { m->uffd, m->events };
	uint32_t key = LEDGER_KEY(LEDGER_PROCESS, process);

	if (!m->alive)
		return ledger_drop(p->ledger, key, e);
	return ledger_put(p->ledger, key, NULL, 0, fds, 2, e);
}

int
pager_note_mappings(struct pager *p, struct err *e)
{
	const struct pager_journal *j = &p->journal;
	struct noted_mappings noted = { .mapped = atomic_load(&p->mapped) };
	size_t chunks = j->nmappings / CHUNK + 1;
	int rc = 0;

	if (p->ledger == NULL)
		return 0;
	for (size_t i = 0; i < MAX(chunks, p->nnoted) && rc == 0; i++) {
		size_t at = i * CHUNK;

		noted.n = at < j->nmappings ? (uint32_t)MIN(j->nmappings - at, CHUNK) : 0;
		if (noted.n != 0)
			memcpy(noted.list, j->mappings + at, noted.n * sizeof(*noted.list));
		rc = ledger_put(p->ledger, LEDGER_KEY(LEDGER_MAPPINGS, i), &noted,
		    offsetof(struct noted_mappings, list) + noted.n * sizeof(*noted.list), NULL,
		    0, e);
	}
	p->nnoted = chunks;
	return rc;
}

/* ---- what was left ---- */

static int
take_fd(struct ledger_entry *entry, unsigned i)
{
	int fd = entry->fds[i];

	entry->fds[i] = -1;
	return fd;
}

static void
inherit_memory(struct pager *p, size_t index)
{
	struct ledger_entry *entry = ledger_left(p->ledger, LEDGER_KEY(LEDGER_MEMORY, index));
	struct pager_memory *m = &p->journal.memories[index];
	struct noted_memory noted;

	if (entry == NULL)
		return;
	memcpy(&noted, entry->data, sizeof(noted));
	m->memory = (struct served_memory){
		.fd = take_fd(entry, 0),
		.bitmap = take_fd(entry, 1),
		.claims = take_fd(entry, 2),
		.offset = noted.offset,
		.page_size = noted.page_size,
		.slots = noted.slots,
		.source = noted.source,
	};
	m->npages = noted.npages;
	m->kind = noted.kind;
	m->left = !noted.answered;
	m->answer.told = true;
	m->answer.answered = noted.answered;
}

static void
inherit_processes(struct pager *p)
{
	struct pager_journal *j = &p->journal;

	for (unsigned i = 0; i < PAGER_PROCESSES; i++) {
		struct ledger_entry *entry =
		    ledger_left(p->ledger, LEDGER_KEY(LEDGER_PROCESS, i));

		j->processes[i] = (struct pager_process){ .uffd = -1, .events = -1 };
		if (entry == NULL)
			continue;
		j->processes[i].uffd = take_fd(entry, 0);
		j->processes[i].events = take_fd(entry, 1);
		j->processes[i].alive = true;
		j->processes[i].answer.told = j->processes[i].answer.answered = true;
		j->nprocesses = i + 1;
	}
}

static int
inherit_mappings(struct pager *p, struct err *e)
{
	const struct ledger_entry *entry;
	struct noted_mappings noted;

	for (size_t i = 0;
	     (entry = ledger_left(p->ledger, LEDGER_KEY(LEDGER_MAPPINGS, i))) != NULL; i++) {
		memcpy(&noted, entry->data, entry->len);
		if (journal_reserve(&p->journal, noted.n + 1, e) == -1)
			return -1;
		for (uint32_t k = 0; k < noted.n; k++)
			p->journal.mappings[p->journal.nmappings++] = noted.list[k];
		atomic_store(&p->mapped, noted.mapped);
		p->nnoted = i + 1;
	}
	return 0;
}

int
pager_inherit(struct pager *p, struct err *e)
{
	for (size_t i = 0; i < p->journal.nmemories; i++)
		inherit_memory(p, i);
	inherit_processes(p);
	p->journal.begun = ledger_left(p->ledger, LEDGER_KEY(LEDGER_BEGUN, 0)) != NULL;
	return inherit_mappings(p, e);
}
