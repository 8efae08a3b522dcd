/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/damage.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/internal.h"

/*
 * Pages that cannot be had.
 *
 * Whoever has taken one marks it bad and poisons it wherever it is mapped; who meets it later,
 * in another mapping or because its owner has dropped the marker (MADV_DONTNEED), poisons it
 * there. It stays a hole of the memory object and is never mapped: what UFFDIO_CONTINUE and
 * UFFDIO_COPY put there takes the place of a marker.  What nobody has asked for is left as it
 * is, for by then the file may be readable again, and its memory is never unregistered.
 */
#define TOLD_MAX (sizeof(((struct damage *)0)->told) / sizeof(((struct damage *)0)->told[0]))

int
on_error_parse(const char *name, enum on_error *how, struct err *e)
{
	static const char *const names[] = {
		[ON_ERROR_STOP] = "stop", [ON_ERROR_POISON] = "poison"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0) {
			*how = (enum on_error)i;
			return 0;
		}
	return err_set(e, ERR_USAGE, "\"%s\" is neither poison nor stop", name);
}

/* Why pages of the object cannot be poisoned, or NULL. */
static const char *
obstacle(const struct server *s, const struct served_object *o)
{
	if (o->page_size > PAGE_GRANULE)
		return "huge pages cannot be poisoned";
	if (s->options.engine == SERVE_EAGER || o->engine == SERVE_EAGER)
		return "its memory is filled before anybody can touch it";
	if (o->engine == SERVE_USERFAULT)
		return "the vCPUs reach it past any mapping that could be poisoned";
	if (o->engine == SERVE_SOURCE)
		return "the VMM asks for its pages, and has no word for one that is not there";
	if (atomic_load(&s->damage.powerless))
		return "this kernel cannot poison pages (Linux 6.6 can)";
	return NULL;
}

void
damage_announce(const struct server *s, const struct served_object *o)
{
	const char *why = obstacle(s, o);

	if (s->options.on_error == ON_ERROR_POISON && why != NULL)
		log_warn("%s: damage will stop the VM: %s", o->object->name, why);
}

void
damage_features(struct server *s, uint64_t features)
{
	if (s->options.on_error != ON_ERROR_POISON || uffd_can_poison(features) ||
	    atomic_exchange(&s->damage.powerless, true))
		return;
	log_warn("damage will stop the VM: this kernel cannot poison pages (Linux 6.6 can)");
}

bool
damage_is_borne(const struct server *s, struct err *e)
{
	if (s->options.on_error != ON_ERROR_POISON || !e->damage)
		return false;
	*e = (struct err)ERR_INIT;
	return true;
}

int
damage_bear(const struct server *s, size_t object, struct err *e)
{
	const char *why = obstacle(s, &s->objects[object]);
	struct err whole = *e;

	if (!damage_is_borne(s, e))
		return -1;
	if (why == NULL)
		return 0;
	/* With what is in its way. */
	return err_set(e, whole.kind, "%s (%s)", whole.msg, why);
}

/* ---- telling ---- */

/* With the lock: of the same chunk, or of the same place of the file. */
static bool
was_told(const struct damage *d, size_t object, uint64_t chunk, bool asked, const char *why)
{
	for (unsigned i = 0; i < d->ntold; i++)
		if (d->told[i].asked == asked &&
		    ((d->told[i].object == object && d->told[i].chunk == chunk) ||
			strncmp(d->told[i].why, why, sizeof(d->told[i].why) - 1) == 0))
			return true;
	return d->ntold == TOLD_MAX;
}

/* Once for each chunk, and not for ever; what is not told is counted in the statistics. */
static bool
is_new(struct damage *d, size_t object, uint64_t chunk, bool asked, const char *why, bool *last)
{
	bool told;

	pthread_mutex_lock(&d->lock);
	told = was_told(d, object, chunk, asked, why);
	if (!told) {
		d->told[d->ntold].object = object;
		d->told[d->ntold].chunk = chunk;
		d->told[d->ntold].asked = asked;
		snprintf(d->told[d->ntold].why, sizeof(d->told[0].why), "%.*s",
		    (int)sizeof(d->told[0].why) - 1, why);
		d->ntold++;
	}
	*last = d->ntold == TOLD_MAX;
	pthread_mutex_unlock(&d->lock);
	return !told;
}

static void
tell(struct server *s, size_t object, uint64_t off, bool asked, const struct err *e)
{
	const char *name = s->objects[object].object->name;
	bool last;

	if (!is_new(&s->damage, object, off / s->img->g.chunk_size, asked, e->msg, &last))
		return;
	if (asked)
		log_error("%s; the page at %#llx of %s is poisoned", e->msg,
		    (unsigned long long)off, name);
	else
		log_error("%s; who asks for a page there gets a memory error", e->msg);
	if (last)
		log_error("more damage is counted in the statistics, and not told");
}

int
damage_leave(struct server *s, size_t object, uint64_t chunk, struct err *e)
{
	const struct err why = *e;

	if (damage_bear(s, object, e) == -1)
		return -1;
	tell(s, object, chunk * s->img->g.chunk_size, false, &why);
	return 0;
}

/* ---- poisoning ---- */

/* One try.  What was discarded is zeros, and whoever waits for it asks again. */
static enum uffd_result
poison_once(const struct served_object *o, struct served_process *p, uint64_t off, uint64_t hva,
    struct err *e)
{
	enum uffd_result r = UFFD_PRESENT;

	if (p->events != NULL)
		events_begin_copy(p);
	if (!claims_given(&o->claims, off / PAGE_GRANULE))
		r = uffd_poison(p->uffd, hva, PAGE_GRANULE, e);
	if (p->events != NULL)
		events_end_copy(p);
	return r;
}

int
poison_at(struct filler *f, const struct mapping *m, uint64_t off, struct err *e)
{
	const struct served_object *o = &f->server->objects[m->object];
	struct served_process *p = f->server->processes[m->process];
	uint64_t hva = m->hva + (off - m->offset);
	unsigned tries = 0;

	while (!atomic_load(&p->dead)) {
		switch (poison_once(o, p, off, hva, e)) {
		case UFFD_DONE:
			return 0;
		case UFFD_DEAD:
			atomic_store(&p->dead, true);
			break;
		case UFFD_PRESENT:
		case UFFD_GONE:
			return uffd_wake(p->uffd, hva, PAGE_GRANULE, e) == UFFD_FAILED ? -1 : 0;
		case UFFD_BUSY:
			if (p->events == NULL)
				sched_yield();
			else if (events_yield(f, p, &tries, e) == -1)
				return -1;
			break;
		case UFFD_HOLE:
		case UFFD_FAILED:
			return err_wrap(e, "guest memory %s", o->object->name);
		}
	}
	return 0;
}

static int
poison_everywhere(struct filler *f, size_t object, uint64_t off, struct err *e)
{
	const struct mapping_table *t = atomic_load(&f->server->mappings);

	for (size_t i = 0; t != NULL && i < t->n; i++) {
		const struct mapping *m = &t->list[i];

		if (m->object == object && off - m->offset < m->len && off >= m->offset &&
		    poison_at(f, m, off, e) == -1)
			return -1;
	}
	return 0;
}

int
damage_poison(struct filler *f, size_t object, uint64_t off, struct err *e)
{
	struct server *s = f->server;
	const struct err why = *e;

	if (damage_bear(s, object, e) == -1)
		return -1;
	/* Marked first: who begins to wait for it now finds that by himself. */
	claims_spoil(&s->objects[object].claims, off / PAGE_GRANULE);
	if (poison_everywhere(f, object, off, e) == -1)
		return err_set(e, why.kind, "%s (%s)", why.msg, e->msg);
	stat_add(&f->stats.pages_poisoned, 1);
	tell(s, object, off, true, &why);
	return 0;
}
