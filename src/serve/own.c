/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

#include "base/fdio.h"
#include "base/log.h"
#include "serve/object.h"
#include "serve/uffd.h"

/*
 * Putting many pages into a memory object through a mapping of our own.  write(2) takes the
 * file's lock, so that threads wait for each other; UFFDIO_COPY takes none, and what it puts
 * there is whole.
 *
 * What was put there is mapped here then, and nobody looks at it: every now and then all of it
 * is unmapped, for else the guest's memory would be counted as ours.
 */
#define MAPPED_MAX ((size_t)8 << 20)

int
own_open(struct served_object *o)
{
	struct err why = ERR_INIT;
	uint64_t features;
	void *map;

	/* Nothing that UFFDIO_COPY could not do, or that is not done better another way. */
	if (o->page_size > PAGE_GRANULE || o->guest_memfd || !o->writes || o->fd == -1 ||
	    o->own != NULL)
		return -1;
	o->own_len = (size_t)object_length(o);
	map = mmap(NULL, o->own_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, o->fd,
	    (off_t)o->base);
	if (map == MAP_FAILED)
		return -1;
	o->own = map;
	if (uffd_create(&o->own_uffd, &why) == 0 &&
	    uffd_handshake(o->own_uffd, &features, &why) == 0 &&
	    uffd_register_missing(o->own_uffd, (uintptr_t)map, o->own_len, &why) == 0)
		return 0;
	log_debug("%s: filled by write(2): %s", o->object->name, why.msg);
	own_close(o);
	return -1;
}

void
own_close(struct served_object *o)
{
	if (o->own == NULL)
		return;
	munmap(o->own, o->own_len);
	fd_close(&o->own_uffd);
	o->own = NULL;
}

static void
note_mapped(struct served_object *o, size_t len)
{
	if (atomic_fetch_add(&o->own_mapped, len) + len <= MAPPED_MAX)
		return;
	atomic_store(&o->own_mapped, 0);
	(void)madvise(o->own, o->own_len, MADV_DONTNEED);
}

int
own_zero(struct served_object *o, size_t len, uint64_t off, struct err *e)
{
	enum uffd_result r;

	note_mapped(o, len);
	while ((r = uffd_zeropage(o->own_uffd, (uintptr_t)o->own + off, len, e)) == UFFD_BUSY)
		sched_yield();
	/* What is there already stays, and the rest has to come, too. */
	if (r == UFFD_PRESENT)
		return object_allocate(o, off, len, e);
	return r == UFFD_DONE ? 0 : err_wrap(e, "guest memory %s", o->object->name);
}

int
own_write(struct served_object *o, const void *buf, size_t len, uint64_t off, struct err *e)
{
	uint64_t done;

	note_mapped(o, len);
	for (size_t at = 0; at < len; at += done) {
		enum uffd_result r = uffd_copy(o->own_uffd, (uintptr_t)o->own + off + at,
		    (const char *)buf + at, len - at, &done, e);

		if (r == UFFD_DONE)
			continue;
		done = 0;
		if (r == UFFD_BUSY)
			sched_yield();
		else if (r == UFFD_PRESENT &&
			 claims_doubted(&o->claims, (off + at) / PAGE_GRANULE)) {
			/* Nobody has seen it yet. */
			done = PAGE_GRANULE;
			if (object_write(
				o, (const char *)buf + at, PAGE_GRANULE, off + at, e) == -1)
				return -1;
		} else if (r == UFFD_PRESENT)
			return err_set(e, ERR_FAILED,
			    "guest memory %s: a page at %llu is there already: somebody has "
			    "reached it past the hand-off (another mapping, or a vCPU), and "
			    "may "
			    "have read zeros",
			    o->object->name, (unsigned long long)(off + at));
		else if (r == UFFD_FAILED)
			return err_wrap(e, "guest memory %s", o->object->name);
		else
			return err_sys(e, "guest memory %s: a page at %llu", o->object->name,
			    (unsigned long long)(off + at));
	}
	return 0;
}
