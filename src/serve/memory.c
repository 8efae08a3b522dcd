/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <pthread.h>

#include "base/log.h"
#include "base/pool.h"
#include "serve/internal.h"

/* Memory objects that come to be served, and the engine that fits each. */

/* Tells what the memory cannot do, where that stands in the way of serving it lazily. */
static int
check_lazy(const struct served_object *o, bool slots, const struct err *why, struct err *e)
{
	if (why->kind != ERR_NONE)
		return err_set(e, ERR_UNSUPPORTED, "userfaultfd does not work on %s: %s",
		    o->guest_memfd ? "this kernel's guest_memfd" : "this memory", why->msg);
	if (slots && o->bitmap == NULL)
		return err_set(e, ERR_UNSUPPORTED,
		    "the vCPUs reach it past any mapping, and there is no bitmap of KVM "
		    "userfault to stop them");
	return 0;
}

/* The lazy engine that fits; write(2) was tried. */
static enum serve_engine
lazy_engine(const struct served_object *o)
{
	if (o->bitmap != NULL)
		return SERVE_USERFAULT;
	return o->writes ? SERVE_CONTINUE : SERVE_MAP_CONTINUE;
}

static int
wrong_engine(const struct served_object *o, enum serve_engine wanted, enum serve_engine fits,
    struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, "%s: engine %s does not fit this memory, %s does",
	    o->object->name, serve_engine_name(wanted), serve_engine_name(fits));
}

static int
choose_engine(
    struct server *s, struct served_object *o, bool slots, const struct err *why, struct err *e)
{
	enum serve_engine wanted = s->options.engine;
	struct err obstacle = ERR_INIT;

	o->engine = SERVE_EAGER;
	if (wanted == SERVE_EAGER)
		return 0;
	if (o->source && (wanted == SERVE_AUTO || wanted == SERVE_SOURCE)) {
		o->engine = SERVE_SOURCE;
		return 0;
	}
	if (o->source)
		return wrong_engine(o, wanted, SERVE_SOURCE, e);
	if (wanted == SERVE_COPY || wanted == SERVE_SOURCE)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s: engine %s is for VMMs %s; leave it out, or use auto", o->object->name,
		    serve_engine_name(wanted),
		    wanted == SERVE_COPY ? "whose memory is their own" : "that ask for pages");
	if (check_lazy(o, slots, why, &obstacle) == 0)
		o->engine = lazy_engine(o);
	if (wanted == SERVE_AUTO) {
		if (o->engine == SERVE_EAGER)
			log_warn("%s: %s; so all of it is filled before the VM runs",
			    o->object->name, obstacle.msg);
		return 0;
	}
	/* What can be written can be mapped too. */
	if (wanted == SERVE_MAP_CONTINUE && o->engine == SERVE_CONTINUE) {
		o->engine = wanted;
		return object_map(o, e);
	}
	if (o->engine == wanted)
		return 0;
	if (obstacle.kind != ERR_NONE)
		return err_set(e, ERR_UNSUPPORTED, "%s: engine %s: %s; --engine eager works",
		    o->object->name, serve_engine_name(wanted), obstacle.msg);
	return wrong_engine(o, wanted, o->engine, e);
}

/* Whether write(2) works is found out by the first page that has to be written anyway. */
static int
write_first(struct server *s, size_t index, struct err *e)
{
	struct filler f;
	int rc;

	if (s->objects[index].page_size > PAGE_GRANULE)
		return 0;
	rc = filler_init(&f, s, false, -1, e);
	if (rc == 0) {
		image_reader_urgent(f.reader, true); /* who adds the memory waits */
		rc = fill_first(&f, index, e);
	}
	filler_account(&f);
	filler_fini(&f);
	return rc;
}

/* The same bytes cannot be two regions. */
static int
check_overlap(const struct server *s, const struct served_object *o, struct err *e)
{
	for (size_t i = 0; i < s->nobjects; i++) {
		const struct served_object *other = &s->objects[i];

		if (other != o && other->object != NULL && object_overlaps(o, other))
			return err_set(e, ERR_FAILED, "%s: lies in the memory of %s",
			    o->object->name, other->object->name);
	}
	return 0;
}

int
fill_now(struct server *s, size_t index, struct err *e)
{
	return fill_eagerly(
	    s, index, s->options.nfillers != 0 ? s->options.nfillers : pool_ncpus(), e);
}

/*
 * What is left unregistered the kernel makes, and nobody else: it counts as given.  Not where
 * each touch is to be seen, nor past KVM's bitmap; and guest_memfd has no holes that all
 * kernels fill alike.
 */
static int
leave_zeros(struct server *s, struct served_object *o, struct err *e)
{
	uint64_t at = 0, page_size = o->page_size;

	if ((o->engine != SERVE_CONTINUE && o->engine != SERVE_MAP_CONTINUE) ||
	    o->guest_memfd || s->recorder != NULL || atomic_load(&o->complete))
		return 0;
	/* Where the index cannot be read there may be pages: all of it is registered then. */
	if (extents_find(
		&o->extents, s->img, o->object, o->base, object_length(o), page_size, e) == -1)
		return damage_bear(s, (size_t)(o - s->objects), e);
	for (size_t i = 0; i < o->extents.n; i++) {
		const struct extent *x = &o->extents.list[i];

		claims_remove(&o->claims, at / page_size, x->off / page_size);
		at = x->off + x->len;
	}
	claims_remove(&o->claims, at / page_size, o->claims.npages);
	return 0;
}

static int
take_memory(struct server *s, size_t index, const struct served_memory *m, struct err *e)
{
	struct served_object *o = &s->objects[index];
	const struct object *object = &s->img->manifest.regions[index];
	struct err why = ERR_INIT;

	if (object_open(o, object, m, &why, e) == -1 || check_overlap(s, o, e) == -1)
		return -1;
	if (o->engine == SERVE_AUTO &&
	    (write_first(s, index, e) == -1 || choose_engine(s, o, m->slots, &why, e) == -1))
		return -1;
	claims_set_how(&o->claims, o->engine, o->writes);
	if (leave_zeros(s, o, e) == -1)
		return -1;
	log_info("%s: engine %s", object->name, serve_engine_name(o->engine));
	damage_announce(s, o);
	if (o->engine != SERVE_EAGER || atomic_load(&o->complete))
		return 0;
	if (fill_now(s, index, e) == -1)
		return -1;
	object_finish(o);
	return 0;
}

static int
take_foreign(struct server *s, size_t index, uint64_t page_size, int claims, struct err *e)
{
	struct served_object *o = &s->objects[index];
	enum serve_engine wanted = s->options.engine;

	if (object_open_foreign(o, &s->img->manifest.regions[index], page_size, claims, e) ==
	    -1)
		return -1;
	if (wanted != SERVE_AUTO && wanted != SERVE_COPY && wanted != SERVE_EAGER)
		return wrong_engine(o, wanted, SERVE_COPY, e);
	log_info("%s: engine %s", o->object->name, serve_engine_name(o->engine));
	damage_announce(s, o);
	return 0;
}

static bool
all_complete(const struct server *s)
{
	for (size_t i = 0; i < s->nobjects; i++)
		if (!server_is_complete(s, i))
			return false;
	return true;
}

int
server_begin(struct server *s, struct err *e)
{
	if (all_complete(s)) {
		server_set_prefetched(s);
		server_complete(s);
		server_announce(s);
		return 0;
	}
	if (prefetch_start(s, e) == -1)
		return -1;
	if (!s->background_wanted || s->background != NULL || recording(s))
		return 0;
	return background_start(s, e);
}

static int
check_new(const struct server *s, size_t index, struct err *e)
{
	if (index < s->nobjects && s->objects[index].object == NULL)
		return 0;
	return err_set(e, ERR_CORRUPT, "hand-off: memory number %zu %s", index,
	    index < s->nobjects ? "came twice" : "is not in the image");
}

/* Region `index` has its memory, if rc is 0. */
static int
added(struct server *s, size_t index, int rc, struct err *e)
{
	if (rc == -1) {
		object_fini(&s->objects[index]);
		return -1;
	}
	pthread_mutex_lock(&s->lock);
	if (++s->nready == s->nobjects && !s->resuming)
		rc = server_begin(s, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int
server_add_memory(
    struct server *s, size_t index, const struct served_memory *memory, struct err *e)
{
	if (check_new(s, index, e) == -1)
		return -1;
	return added(s, index, take_memory(s, index, memory, e), e);
}

int
server_add_foreign(
    struct server *s, size_t index, uint64_t page_size, int claims, struct err *e)
{
	if (check_new(s, index, e) == -1)
		return -1;
	return added(s, index, take_foreign(s, index, page_size, claims, e), e);
}

bool
server_has_memory(const struct server *s)
{
	return atomic_load(&s->nready) == s->nobjects;
}

bool
server_is_complete(const struct server *s, size_t index)
{
	return atomic_load(&s->objects[index].complete);
}

enum serve_engine
server_engine(const struct server *s, size_t index)
{
	return s->objects[index].engine;
}
