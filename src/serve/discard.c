/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/ckd.h"
#include "serve/internal.h"

/* Pages that their owner discards: nobody gives them any more. */

static void
take_away(struct server *s, struct served_object *o, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++)
		if (claims_take(&o->claims, page))
			object_give(o, page);
	/* Somebody may be writing one of them just now; or it cannot be had, and is zeros now.
	 */
	for (uint64_t page = first; page < end; page++)
		while (!claims_given(&o->claims, page) &&
		       atomic_load(&s->state) == SERVER_FILLING) {
			if (claims_bad(&o->claims, page))
				object_give(o, page);
			else
				thread_nap(50);
		}
}

int
wake_everywhere(struct server *s, size_t object, uint64_t off, uint64_t end, struct err *e)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];
		uint64_t from = MAX(off, m->offset), to = MIN(end, m->offset + m->len);

		if (m->object == object && from < to &&
		    uffd_wake(s->processes[m->process]->uffd, m->hva + (from - m->offset),
			to - from, e) == UFFD_FAILED)
			return -1;
	}
	return 0;
}

int
server_discard(struct server *s, size_t object, uint64_t offset, uint64_t len, struct err *e)
{
	struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	uint64_t end, size;

	if (o == NULL || o->object == NULL || ckd_add(&end, offset, len))
		return err_set(
		    e, ERR_CORRUPT, "hand-off: there is no memory number %zu", object);
	size = o->claims.npages * o->page_size;
	end = MIN(end, size);
	if (offset >= end || atomic_load(&s->state) == SERVER_COMPLETE)
		return 0;
	/* The other part of a page would have to be there first. */
	if (((offset | end) & (o->page_size - 1)) != 0)
		return err_set(e, ERR_FAILED,
		    "the VMM discards a part of a page: %llu bytes at %#llx of %s; use --eager",
		    (unsigned long long)len, (unsigned long long)offset, o->object->name);
	take_away(s, o, offset / o->page_size, end / o->page_size);
	if (atomic_load(&s->state) == SERVER_FAILED)
		return err_set(e, ERR_FAILED, "the page server has stopped");
	return wake_everywhere(s, object, offset, end, e);
}
