/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "memory/filling.h"
#include "serve/claims.h"
#include "serve/pager-internal.h"

/* What is served: memory, and the processes that map it. */

/* ---- memory ---- */

static int
keep_descriptor(int *to, int fd, struct err *e)
{
	*to = -1;
	if (fd == -1)
		return 0;
	*to = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return *to == -1 ? err_sys(e, "page server: memory") : 0;
}

static uint64_t
memory_size(const struct pager *p, const struct pager_memory *m)
{
	return p->img->manifest.regions[m - p->journal.memories].size;
}

/* Without it gmem-snap still sees what is registered, where the memory is mapped. */
static void
mark(const struct pager *p, const struct pager_memory *m)
{
	struct err why = ERR_INIT;

	if (filling_begin(m->memory.fd, m->memory.offset, memory_size(p, m), &why) == -1)
		log_debug("not shown as being restored: %s", why.msg);
}

void
pager_unmark_memory(const struct pager *p, const struct pager_memory *m)
{
	if (m->kind == PAGER_OBJECT)
		filling_end(m->memory.fd, m->memory.offset, memory_size(p, m));
}

static void
forget_memory(struct pager *p, struct pager_memory *m)
{
	pthread_mutex_lock(&p->lock);
	pager_unmark_memory(p, m);
	fd_close(&m->memory.fd);
	fd_close(&m->memory.bitmap);
	fd_close(&m->memory.claims);
	m->answer = (struct pager_answer){ 0 };
	m->kind = PAGER_NOTHING;
	pthread_mutex_unlock(&p->lock);
}

/* Those that nobody has told anything of yet. */
static int
make_claims(struct pager *p, struct pager_memory *m, struct err *e)
{
	uint64_t size = memory_size(p, m), page = m->memory.page_size;

	/* What is none is refused by the page server. */
	m->npages = div_up(size, is_pow2(page) && page >= PAGE_GRANULE ? page : PAGE_GRANULE);
	return claims_create(m->npages, &m->memory.claims, e);
}

void
pager_memory_call(struct pager_call *c, const struct pager_memory *m, size_t index, int fds[3])
{
	const struct served_memory *s = &m->memory;
	unsigned n = 0;

	*c = (struct pager_call){ .request = {
				      .version = PAGER_VERSION,
				      .type = m->kind == PAGER_FOREIGN ? PAGER_ADD_FOREIGN
								       : PAGER_ADD_MEMORY,
				      .object = index,
				      .offset = s->offset,
				      .page_size = s->page_size,
				      .flags = (s->slots ? PAGER_SLOTS : 0) |
					       (s->source ? PAGER_SOURCE : 0) |
					       (s->bitmap != -1 ? PAGER_BITMAP : 0),
				  } };
	if (m->kind == PAGER_OBJECT)
		fds[n++] = s->fd;
	fds[n++] = s->claims;
	if (s->bitmap != -1)
		fds[n++] = s->bitmap;
	c->fds = fds;
	c->nfds = n;
}

/* It is served, in that way. */
static int
admit(struct pager *p, size_t index, const struct pager_reply *reply, struct err *e)
{
	struct pager_memory *m = &p->journal.memories[index];

	if (reply->value > SERVE_SOURCE)
		return err_set(e, ERR_FAILED, "page server: engine %u", reply->value);
	atomic_store(&m->engine, (enum serve_engine)reply->value);
	if ((reply->flags & PAGER_COMPLETE) != 0) {
		pager_unmark_memory(p, m);
		atomic_store(&m->complete, true);
	}
	atomic_fetch_add(&p->nready, 1);
	return 0;
}

/* The page server tells how it serves the memory. */
static int
add(struct pager *p, size_t index, struct err *e)
{
	struct pager_memory *m = &p->journal.memories[index];
	struct pager_call c;
	int fds[3];

	pager_memory_call(&c, m, index, fds);
	c.answer = &m->answer;
	if (pager_note_memory(p, index, e) == 0 && pager_ask(p, &c, e) == 0 &&
	    admit(p, index, &c.reply, e) == 0)
		return pager_note_answer(p, index, e);
	forget_memory(p, m);
	return -1;
}

/* It was told of it by another supervisor, who did not live to say so. */
static int
add_left(struct pager *p, size_t index, struct err *e)
{
	struct pager_memory *m = &p->journal.memories[index];

	m->left = false;
	if (m->answer.reply.failed != 0) {
		pager_error_get(e, &m->answer.reply.error);
		return -1;
	}
	return admit(p, index, &m->answer.reply, e) == -1 ? -1 : pager_note_answer(p, index, e);
}

int
pager_admit_left(struct pager *p, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < p->journal.nmemories && rc == 0; i++)
		if (p->journal.memories[i].kind != PAGER_NOTHING &&
		    !p->journal.memories[i].left)
			rc = admit(p, i, &p->journal.memories[i].answer.reply, e);
	return rc;
}

static bool
is_left(const struct pager *p, size_t index)
{
	return index < p->journal.nmemories && p->journal.memories[index].left;
}

static int
check_new(const struct pager *p, size_t index, struct err *e)
{
	if (index < p->journal.nmemories && p->journal.memories[index].kind == PAGER_NOTHING)
		return 0;
	return err_set(e, ERR_CORRUPT, "hand-off: memory number %zu %s", index,
	    index < p->journal.nmemories ? "came twice" : "is not in the image");
}

/* Descriptors are kept, so that the next page server can have them. */
int
pager_add_memory(
    struct pager *p, size_t index, const struct served_memory *memory, struct err *e)
{
	struct pager_memory *m;

	if (is_left(p, index))
		return add_left(p, index, e);
	if (check_new(p, index, e) == -1)
		return -1;
	m = &p->journal.memories[index];
	m->memory = *memory;
	m->memory.fd = m->memory.bitmap = m->memory.claims = -1;
	if (keep_descriptor(&m->memory.fd, memory->fd, e) == -1 ||
	    keep_descriptor(&m->memory.bitmap, memory->bitmap, e) == -1 ||
	    make_claims(p, m, e) == -1) {
		forget_memory(p, m);
		return -1;
	}
	m->kind = PAGER_OBJECT;
	mark(p, m);
	return add(p, index, e);
}

int
pager_add_foreign(struct pager *p, size_t index, uint64_t page_size, struct err *e)
{
	struct pager_memory *m;

	if (is_left(p, index))
		return add_left(p, index, e);
	if (check_new(p, index, e) == -1)
		return -1;
	m = &p->journal.memories[index];
	m->memory = (struct served_memory){
		.fd = -1, .bitmap = -1, .claims = -1, .page_size = page_size
	};
	if (make_claims(p, m, e) == -1)
		return -1;
	m->kind = PAGER_FOREIGN;
	return add(p, index, e);
}

bool
pager_has_memory(const struct pager *p)
{
	return atomic_load(&p->nready) == p->journal.nmemories;
}

bool
pager_is_complete(const struct pager *p, size_t index)
{
	return atomic_load(&p->journal.memories[index].complete) ||
	       atomic_load(&p->state) == SERVER_COMPLETE;
}

enum serve_engine
pager_engine(const struct pager *p, size_t index)
{
	return atomic_load(&p->journal.memories[index].engine);
}

/* ---- processes ---- */

void
pager_process_call(struct pager_call *c, const struct pager_process *p, int fds[2])
{
	bool adopted = p->events != -1;

	*c = (struct pager_call){ .request = { .version = PAGER_VERSION,
				      .type =
					  adopted ? PAGER_ADOPT_PROCESS : PAGER_ADD_PROCESS },
		.fds = fds,
		.nfds = adopted ? 2 : 1 };
	fds[0] = p->uffd;
	fds[1] = p->events;
}

/* Its place in the journal, or NULL. */
static struct pager_process *
new_process(struct pager *p, int uffd, int events)
{
	struct pager_journal *j = &p->journal;
	struct pager_process *new = NULL;

	pthread_mutex_lock(&p->lock);
	if (j->nprocesses < PAGER_PROCESSES) {
		new = &j->processes[j->nprocesses++];
		*new = (struct pager_process){ .uffd = uffd, .events = events, .alive = true };
	}
	pthread_mutex_unlock(&p->lock);
	return new;
}

/* The descriptors stay in the journal, also if nothing comes of it. */
static int
add_process(struct pager *p, int uffd, int events, unsigned *id, struct err *e)
{
	struct pager_process *new = new_process(p, uffd, events);
	struct pager_call c;
	int fds[2];

	if (new == NULL) {
		fd_close(&uffd);
		fd_close(&events);
		return err_set(e, ERR_FAILED, "hand-off: more than %u processes map the memory",
		    PAGER_PROCESSES);
	}
	pager_process_call(&c, new, fds);
	c.answer = &new->answer;
	*id = (unsigned)(new - p->journal.processes);
	return pager_ask(p, &c, e) == -1 ? -1 : pager_note_process(p, *id, e);
}

int
pager_add_process(struct pager *p, int uffd, unsigned *id, struct err *e)
{
	return add_process(p, uffd, -1, id, e);
}

int
pager_adopt_process(struct pager *p, int uffd, unsigned *id, struct err *e)
{
	int events;

	if (server_events_create(&events, e) == -1) {
		fd_close(&uffd);
		return -1;
	}
	return add_process(p, uffd, events, id, e);
}

void
pager_mapping_call(
    struct pager_call *c, const struct pager_journal *j, const struct pager_mapping *m)
{
	*c = (struct pager_call){ .request = {
				      .version = PAGER_VERSION,
				      .type = PAGER_ADD_MAPPING,
				      .process = j->processes[m->process].answer.reply.value,
				      .hva = m->hva,
				      .len = m->len,
				      .object = m->object,
				      .offset = m->offset,
				  } };
}

int
pager_add_mapping(struct pager *p, unsigned process, uint64_t hva, uint64_t len, size_t object,
    uint64_t offset, struct err *e)
{
	const struct pager_mapping m = { process, hva, len, object, offset };
	struct pager_call c;

	pager_mapping_call(&c, &p->journal, &m);
	c.process = &p->journal.processes[process];
	if (pager_ask(p, &c, e) == -1)
		return -1;
	atomic_store(&p->mapped, true);
	return 0;
}

void
pager_remove_mapping(struct pager *p, unsigned process, uint64_t hva, uint64_t len)
{
	struct pager_call c = {
		.request = { .type = PAGER_REMOVE_MAPPING, .hva = hva, .len = len },
		.process = &p->journal.processes[process]
	};
	struct err unused = ERR_INIT;

	(void)pager_ask(p, &c, &unused);
}

void
pager_remove_process(struct pager *p, unsigned process)
{
	struct pager_call c = { .request = { .type = PAGER_REMOVE_PROCESS },
		.process = &p->journal.processes[process] };
	struct err unused = ERR_INIT;

	(void)pager_ask(p, &c, &unused);
}

bool
pager_has_mappings(const struct pager *p)
{
	return atomic_load(&p->mapped);
}

bool
pager_covers(struct pager *p, unsigned process, uint64_t hva, uint64_t len)
{
	bool covers;

	pthread_mutex_lock(&p->lock);
	covers = atomic_load(&p->state) == SERVER_COMPLETE ||
		 journal_covers(&p->journal, process, hva, len);
	pthread_mutex_unlock(&p->lock);
	return covers;
}
