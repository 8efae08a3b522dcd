/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/internal.h"

/*
 * Going on where another server has died, at whatever instruction.
 *
 * What counts lies in the claims (claims.h), in the memory itself, and in the kernel: what is
 * registered, and who waits.  The rest (chunks that are decoded, who is to give a page that
 * somebody else has taken, faults that were read) is lost, and nobody needs it: everything that
 * is taken and not given is free again, and everybody who waits is woken and asks again.
 *
 * So whatever is given a second time must be as if it were the first.  For each engine, a page
 * that is taken and not given is one of these:
 *
 * - Not there.  Then nothing has happened.
 * - There, of the image's bytes, where accesses wait until it is mapped (continue,
 * map-continue): it is marked given before it is mapped, or before its bit of KVM userfault is
 * cleared (object_give), so nobody has seen it.  It may be half there (stores through a mapping
 * of ours).  It is written once more; what refuses to write what is there (guest_memfd's
 *   write(2), UFFDIO_COPY) puts whole pages there only, and is believed if the page is doubted
 *   (claims_doubted).
 * - There, of zeros, and mapped maybe: the guest may have written to it.  Pages that the image
 *   does not store are only ever made by calls that leave alone what is there (UFFDIO_ZEROPAGE,
 *   fallocate, a load).  Huge pages of zeros are written, but as those with bytes.
 * - There, copied (engine copy): the guest may have written to it.  UFFDIO_COPY and
 *   UFFDIO_ZEROPAGE leave it alone, and then it is marked given.
 * - There, in memory that the VMM maps itself and asks for (engine source): it may have
 *   registered for missing pages only and see them at once, and have written to them.  So what
 *   is there is given (keep_what_is_there).  Huge pages are put there by UFFDIO_COPY, which
 *   leaves them alone.  Only where that does not work (object.c warns of it then) they are
 *   stored to again.
 *
 * Pages that are bad stay so (damage.c): they were marked before they were poisoned anywhere.
 * Pages that are given and not taken were about to be removed (claims_remove): they are zeros.
 * Pages that were given and are not there were discarded, as ever.
 *
 * Discarded pages: who discards with words (server_discard) has no answer yet and is heard
 * again.  Who discards with madvise(2) goes on as soon as userfaultfd's message was read; so it
 * is read to where the next server finds it, and applied before anything is copied
 * (events_recover).
 *
 * What is registered stays so: nothing is registered again, or what the dead server was
 * letting go of (release_mappings) would never be complete.  Between its first unregistering
 * and the mark that all is there, only zeros are missing, which the kernel makes as we would.
 * Only after that mark the claims are given back; who finds it looks at nothing else.
 *
 * What lies in extents comes from the image alone; what does not is marked as given before
 * anything is registered.
 */

/* ---- memory ---- */

/* Of pages of 4 KiB, which write(2) and fallocate(2) put there. */
static int
keep_what_is_there(struct served_object *o, struct err *e)
{
	for (uint64_t page = 0; page < o->claims.npages; page++) {
		off_t at = (off_t)(o->base + page * o->page_size), data;

		if (!claims_doubted(&o->claims, page) || claims_given(&o->claims, page))
			continue;
		data = lseek(o->fd, at, SEEK_DATA);
		/* Nothing from there on to the end of the file. */
		if (data == -1 && errno != ENXIO)
			return err_sys(e, "%s: what is there already", o->object->name);
		if (data == at && claims_take(&o->claims, page))
			object_give(o, page);
	}
	return 0;
}

/* Between the two marks of object_give. */
static void
admit_given(const struct served_object *o)
{
	for (uint64_t page = 0; o->bitmap != NULL && page < o->claims.npages; page++)
		if (claims_given(&o->claims, page))
			object_admit(o, page);
}

/* How it was served until now, if that is known. */
static int
go_on(struct served_object *o, struct err *e)
{
	const struct claims_head *head = o->claims.head;

	if (!atomic_load(&head->known))
		return 0;
	if (head->engine == SERVE_AUTO || head->engine > SERVE_SOURCE ||
	    (head->engine == SERVE_COPY) != (o->fd == -1) ||
	    (head->engine == SERVE_SOURCE && !o->source) ||
	    (head->engine == SERVE_USERFAULT && o->bitmap == NULL))
		return err_set(
		    e, ERR_CORRUPT, "%s: these claims are not of this memory", o->object->name);
	o->engine = (enum serve_engine)head->engine;
	o->writes = head->writes;
	return o->fd != -1 && !o->writes ? object_map(o, e) : 0;
}

int
object_settle(struct served_object *o, struct err *e)
{
	if (atomic_load(&o->claims.head->complete)) {
		object_complete(o);
		return go_on(o, e);
	}
	claims_settle(&o->claims);
	if (o->source && o->page_size == PAGE_GRANULE && keep_what_is_there(o, e) == -1)
		return -1;
	admit_given(o);
	return go_on(o, e);
}

/* ---- the server ---- */

/* Faults that the dead server has read come again. */
static int
wake_all(const struct server *s, struct err *e)
{
	const struct mapping_table *t = atomic_load(&s->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++)
		if (uffd_wake(s->processes[t->list[i].process]->uffd, t->list[i].hva,
			t->list[i].len, e) == UFFD_FAILED)
			return -1;
	return 0;
}

/* With s->lock. */
static int
resume(struct server *s, struct err *e)
{
	s->resuming = false;
	if (has_foreign(s) && foreign_mapped(s) && begin_copying(s, e) == -1)
		return -1;
	if (s->nready == s->nobjects && server_begin(s, e) == -1)
		return -1;
	for (unsigned i = 0; i < s->nprocesses; i++)
		if (!atomic_load(&s->processes[i]->stop) &&
		    process_start(s, s->processes[i], e) == -1)
			return -1;
	return wake_all(s, e);
}

int
server_resume(struct server *s, struct err *e)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = s->resuming ? resume(s, e) : 0;
	pthread_mutex_unlock(&s->lock);
	return rc == -1 ? -1 : fill_foreign(s, e);
}
