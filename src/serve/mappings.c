/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/internal.h"

/* Where processes have the memory: who looks for a fault finds its place without a lock. */

const struct mapping *
mapping_find(const struct server *s, unsigned process, uint64_t hva)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->process == process && hva - m->hva < m->len)
			return m;
	}
	return NULL;
}

/*
 * Tables are kept, for somebody may be reading one: there is an end to how often the memory
 * can be mapped anew while it is restored, and to how many pieces it can be in.
 */
#define MAPPINGS_MAX 4096u
#define TABLES_MAX ((size_t)16 << 20) /* bytes */

static bool
is_mapped(const struct server *s, unsigned process, uint64_t hva, uint64_t len)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->process == process && hva < m->hva + m->len && m->hva < hva + len)
			return true;
	}
	return false;
}

static size_t
table_size(size_t room)
{
	return sizeof(struct mapping_table) + room * sizeof(struct mapping);
}

/* An empty one, with places for n and as many more as will do for a while. */
static struct mapping_table *
table_new(struct server *s, size_t n, struct err *e)
{
	size_t room = n + n / 2 + 16, size = table_size(room);
	struct mapping_table *t;

	if (s->tables_size > TABLES_MAX - size) {
		err_set(e, ERR_FAILED,
		    "hand-off: guest memory was mapped and unmapped too often to follow; use "
		    "--eager, or let the background fill it");
		return NULL;
	}
	t = calloc(1, size);
	if (t == NULL) {
		err_sys(e, "hand-off");
		return NULL;
	}
	s->tables_size += size;
	t->room = room;
	return t;
}

/*
 * Makes a table without what [hva, hva + len) of the process was, with room for at least one
 * more.  A mapping that loses its middle becomes two; there is one such at most, for the
 * mappings of a process do not overlap.
 */
static struct mapping_table *
table_without(struct server *s, unsigned process, uint64_t hva, uint64_t len, struct err *e)
{
	struct mapping_table *old = atomic_load(&s->mappings), *t;
	size_t n = old != NULL ? old->n : 0;

	t = table_new(s, n + 1, e);
	if (t == NULL)
		return NULL;
	t->older = old;
	for (size_t i = 0; i < n; i++) {
		struct mapping m = old->list[i], right = m;
		uint64_t end = m.hva + m.len;

		if (m.process != process || hva >= end || hva + len <= m.hva) {
			t->list[t->n++] = m;
			continue;
		}
		if (hva > m.hva) {
			m.len = hva - m.hva;
			t->list[t->n++] = m;
		}
		if (hva + len < end) {
			right.hva = hva + len;
			right.len = end - right.hva;
			right.offset += right.hva - m.hva;
			t->list[t->n++] = right;
		}
	}
	return t;
}

/* Memory of a VMM's own is one process's, each part has one place, and nothing else is there.
 */
static int
check_foreign(const struct server *s, const struct mapping *new, struct err *e)
{
	const struct served_object *o = &s->objects[new->object];
	const struct mapping_table *t = atomic_load(&s->mappings);
	bool adopted = s->processes[new->process]->events != NULL;

	if (o->engine == SERVE_SOURCE || o->source)
		return err_set(e, ERR_CORRUPT, "hand-off: %s is for a VMM that asks for pages",
		    o->object->name);
	if ((o->engine == SERVE_COPY) != adopted ||
	    (adopted && o->mapped != 0 && o->process != new->process))
		return err_set(
		    e, ERR_CORRUPT, "hand-off: %s is not that process's", o->object->name);
	for (size_t i = 0; adopted && t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->object == new->object &&
		    m->offset < new->offset + new->len &&new->offset < m->offset + m->len)
			return err_set(e, ERR_CORRUPT,
			    "hand-off: the part at %#llx of %s is mapped twice",
			    (unsigned long long)MAX(m->offset, new->offset), o->object->name);
		if (m->process == new->process &&
		    m->hva < new->hva + new->len &&new->hva < m->hva + m->len)
			return err_set(e, ERR_CORRUPT, "hand-off: two mappings at %#llx",
			    (unsigned long long)MAX(m->hva, new->hva));
	}
	return 0;
}

bool
has_foreign(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY)
			return true;
	return false;
}

bool
foreign_mapped(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY && !server_is_complete(s, i) &&
		    s->objects[i].mapped != object_length(&s->objects[i]))
			return false;
	return true;
}

/* What was discarded before it was known where would be lost: so nobody has read until now. */
int
begin_copying(struct server *s, struct err *e)
{
	for (unsigned i = 0; i < s->nprocesses; i++)
		if (s->processes[i]->events != NULL && events_recover(s->processes[i], e) == -1)
			return -1;
	atomic_store(&s->mapped, true);
	for (unsigned i = 0; i < s->nprocesses; i++)
		if (s->processes[i]->events != NULL)
			events_kick(s->processes[i]);
	return 0;
}

/* All of it, or where there is anything but zeros. */
static int
register_mapping(const struct server *s, const struct mapping *m, struct err *e)
{
	const struct extents *x = &s->objects[m->object].extents;
	int uffd = s->processes[m->process]->uffd, rc = 0;

	for (size_t i = 0; i < x->n && rc == 0; i++) {
		uint64_t from = MAX(x->list[i].off, m->offset);
		uint64_t end = MIN(x->list[i].off + x->list[i].len, m->offset + m->len);

		if (from < end)
			rc = uffd_register(uffd, m->hva + (from - m->offset), end - from, e);
	}
	if (x->list != NULL && (rc == 0 || e->sysno != ENOMEM))
		return rc;
	/* The process has as many mappings as it may (vm.max_map_count): one will do. */
	return uffd_register(uffd, m->hva, m->len, e);
}

/* A new table that nobody reads is dropped again. */
static int
check_room(struct server *s, struct mapping_table *t, size_t n, struct err *e)
{
	if (n <= MAPPINGS_MAX)
		return 0;
	if (t != atomic_load(&s->mappings)) {
		s->tables_size -= table_size(t->room);
		free(t);
	}
	return err_set(e, ERR_FAILED,
	    "hand-off: guest memory in more than %u mappings can't be served", MAPPINGS_MAX);
}

/* In place, or in a new table. */
static int
put_mapping(struct server *s, const struct mapping *new, struct err *e)
{
	struct mapping_table *t = atomic_load(&s->mappings);

	if (t == NULL || t->n == t->room || is_mapped(s, new->process, new->hva, new->len)) {
		t = table_without(s, new->process, new->hva, new->len, e);
		if (t == NULL)
			return -1;
	}
	if (check_room(s, t, t->n + 1, e) == -1)
		return -1;
	t->list[t->n] = *new;
	t->n++;
	atomic_store(&s->mappings, t);
	return 0;
}

/* With s->lock. */
static int
add_mapping(struct server *s, const struct mapping *new, struct err *e)
{
	struct served_object *o = &s->objects[new->object];

	if (check_foreign(s, new, e) == -1)
		return -1;
	/* While it is being resumed something of it may be waited for still. */
	if ((server_is_complete(s, new->object) && !s->resuming) ||
	    atomic_load(&s->state) == SERVER_COMPLETE)
		return 0;
	/* Known before the first fault can come. */
	if (put_mapping(s, new, e) == -1)
		return -1;
	if (o->engine != SERVE_COPY) {
		/* What the dead server has let go of is not registered again. */
		if (s->resuming)
			return 0;
		if (register_mapping(s, new, e) == -1)
			return -1;
		prefetch_mapping(s, new);
		return 0;
	}
	o->process = new->process;
	o->mapped += new->len;
	if (!s->resuming && foreign_mapped(s)) {
		if (begin_copying(s, e) == -1)
			return -1;
		prefetch_mapping(s, NULL);
	}
	return 0;
}

/*
 * A dead server may have registered it, and read who waits there, without having said so: all
 * of it may come to be known here later than everything else, even when all is there.
 */
static int
take_over(struct server *s, const struct mapping *m, struct err *e)
{
	int uffd = s->processes[m->process]->uffd;

	if ((server_is_complete(s, m->object) || atomic_load(&s->state) == SERVER_COMPLETE) &&
	    uffd_unregister(uffd, m->hva, m->len, e) == -1)
		log_debug("%s", e->msg);
	return uffd_wake(uffd, m->hva, m->len, e) == UFFD_FAILED ? -1 : 0;
}

int
fill_foreign(struct server *s, struct err *e)
{
	if (s->options.engine != SERVE_EAGER || !atomic_load(&s->mapped) ||
	    atomic_load(&s->filled))
		return 0;
	for (size_t i = 0; i < s->nobjects; i++)
		if (s->objects[i].engine == SERVE_COPY && !server_is_complete(s, i) &&
		    fill_now(s, i, e) == -1)
			return -1;
	atomic_store(&s->filled, true);
	server_set_prefetched(s);
	return 0;
}

int
server_add_mapping(struct server *s, unsigned process, uint64_t hva, uint64_t len,
    size_t object, uint64_t offset, struct err *e)
{
	const struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	const struct mapping new = { process, hva, len, object, offset };
	uint64_t end, size, unused = 0;
	int rc;

	if (o == NULL || o->object == NULL)
		return err_set(
		    e, ERR_CORRUPT, "hand-off: there is no memory number %zu", object);
	size = object_length(o);
	if (ckd_add(&end, offset, len) || end > size || len == 0 ||
	    ckd_add(&unused, hva, len) || ((hva | len | offset) & (o->page_size - 1)) != 0)
		return err_set(e, ERR_CORRUPT,
		    "hand-off: %llu bytes at %#llx, offset %#llx, do not fit %s of %llu bytes",
		    (unsigned long long)len, (unsigned long long)hva,
		    (unsigned long long)offset, o->object->name, (unsigned long long)size);
	pthread_mutex_lock(&s->lock);
	rc = add_mapping(s, &new, e);
	if (rc == 0 && s->options.resume && !s->resuming)
		rc = take_over(s, &new, e);
	if (atomic_load(&s->first_mapping) == 0)
		atomic_store(&s->first_mapping, serve_now());
	pthread_mutex_unlock(&s->lock);
	return rc == -1 ? -1 : fill_foreign(s, e);
}

void
server_remove_mapping(struct server *s, unsigned process, uint64_t hva, uint64_t len)
{
	struct mapping_table *t = NULL;
	struct err e = ERR_INIT;

	pthread_mutex_lock(&s->lock);
	/* Old tables are kept: no new one for nothing. */
	if (is_mapped(s, process, hva, len) && atomic_load(&s->state) != SERVER_COMPLETE)
		t = table_without(s, process, hva, len, &e);
	if (t != NULL && check_room(s, t, t->n, &e) == 0)
		atomic_store(&s->mappings, t);
	pthread_mutex_unlock(&s->lock);
	/* Nobody could be served there who maps it again. */
	if (e.kind != ERR_NONE)
		server_fail(s, &e);
}
