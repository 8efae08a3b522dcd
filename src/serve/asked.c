/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "base/ckd.h"
#include "serve/internal.h"

/* Who asks for a page with words: vCPUs that have left the guest (KVM userfault). */

int
asked_filler_init(struct server *s, struct err *e)
{
	int rc;

	if (s->asked_filler.reader != NULL)
		return 0;
	/* With the lock only one filler at a time joins the others. */
	pthread_mutex_lock(&s->lock);
	rc = filler_init(&s->asked_filler, s, true, -1, e);
	pthread_mutex_unlock(&s->lock);
	if (rc == -1)
		filler_fini(&s->asked_filler);
	return rc;
}

int
server_fault(struct server *s, size_t object, uint64_t offset, struct err *e)
{
	struct served_object *o = object < s->nobjects ? &s->objects[object] : NULL;
	int rc;

	if (o == NULL || !server_has_memory(s) || offset >= o->object->size)
		return err_set(e, ERR_CORRUPT,
		    "hand-off: there is no page at %llu of memory %zu",
		    (unsigned long long)offset, object);
	if (o->engine != SERVE_USERFAULT)
		return 0;
	record(s, object, align_down(offset, o->page_size), false);
	atomic_store_explicit(&s->last_asked, serve_now(), memory_order_relaxed);
	pthread_mutex_lock(&s->asked_lock);
	if (atomic_load(&s->state) == SERVER_COMPLETE) {
		pthread_mutex_unlock(&s->asked_lock);
		return 0;
	}
	rc = asked_filler_init(s, e);
	if (rc == 0)
		rc = fill_vcpu(&s->asked_filler, object, align_down(offset, o->page_size), e);
	/* Others may wait for it. */
	if (rc == -1)
		server_fail(s, e);
	pthread_mutex_unlock(&s->asked_lock);
	return rc;
}

int
server_fault_rest(struct server *s, struct err *e)
{
	int rc = 0;

	pthread_mutex_lock(&s->asked_lock);
	if (s->asked_filler.reader != NULL) {
		rc = fill_pending(&s->asked_filler, e);
		filler_account(&s->asked_filler);
	}
	pthread_mutex_unlock(&s->asked_lock);
	return rc;
}
