/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/ckd.h"
#include "format/layout.h"
#include "serve/object.h"
#include "serve/stats.h"
#include "serve/uffd.h"

/* How pages get into a memory object: by what its kernel has for that. */

/* Series of guest_memfd's write(2) differ in how they say this (kernel.md §2.1). */
static bool
is_there(const struct served_object *o, int error)
{
	return error == EEXIST || (o->guest_memfd && error == ENOSPC);
}

/* By a server that has died: whole, as everything that is put there by these calls. */
static bool
was_put(const struct served_object *o, uint64_t off, int error)
{
	return is_there(o, error) && claims_doubted(&o->claims, off / o->page_size);
}

/* The same, and it has said so: only who tries once more what it has tried comes upon that. */
static bool
was_given(const struct served_object *o, uint64_t off, int error)
{
	return is_there(o, error) && claims_given(&o->claims, off / o->page_size);
}

static int
refused(const struct served_object *o, uint64_t off, struct err *e)
{
	if (!is_there(o, errno))
		return err_sys(e, "guest memory %s: write at %llu", o->object->name,
		    (unsigned long long)off);
	return err_set(e, ERR_FAILED,
	    "guest memory %s: the page at %llu is there already: somebody has reached it past "
	    "the hand-off (another mapping, or a vCPU), and may have read zeros",
	    o->object->name, (unsigned long long)off);
}

static int
write_whole(
    const struct served_object *o, const void *buf, size_t len, uint64_t off, struct err *e)
{
	uint64_t done;

	for (size_t at = 0; at < len; at += done) {
		switch (uffd_copy(o->whole, (uintptr_t)o->map + off + at,
		    (const char *)buf + at, len - at, &done, e)) {
		case UFFD_DONE:
			break;
		case UFFD_BUSY:
			sched_yield();
			break;
		case UFFD_PRESENT:
			done = o->page_size;
			errno = EEXIST;
			if (!was_put(o, off + at, EEXIST))
				return refused(o, off + at, e);
			break;
		case UFFD_HOLE:
		case UFFD_GONE:
		case UFFD_DEAD:
			return err_sys(e, "guest memory %s: a huge page at %llu",
			    o->object->name, (unsigned long long)(off + at));
		case UFFD_FAILED:
			return err_wrap(e, "guest memory %s: a huge page", o->object->name);
		}
	}
	return 0;
}

int
object_write(
    const struct served_object *o, const void *buf, size_t len, uint64_t off, struct err *e)
{
	size_t done = 0;

	if (o->whole != -1)
		return write_whole(o, buf, len, off, e);
	if (!o->writes) {
		memcpy(o->map + off, buf, len);
		return 0;
	}
	while (done < len) {
		ssize_t n = pwrite(
		    o->fd, (const char *)buf + done, len - done, (off_t)(o->base + off + done));

		crossing();
		/* Some kernels tell of a part of a page; the whole page is written again. */
		if (n >= PAGE_GRANULE)
			done += (size_t)align_down((uint64_t)n, PAGE_GRANULE);
		else if (n >= 0)
			return err_set(e, ERR_FAILED,
			    "guest memory %s: write at %llu took %zd bytes of a page",
			    o->object->name, (unsigned long long)(off + done), n);
		else if (was_put(o, off + done, errno))
			done += PAGE_GRANULE;
		else if (errno != EINTR)
			return refused(o, off + done, e);
	}
	return 0;
}

/* Steps over `done` bytes of the pieces. */
static void
step_over(struct iovec **iov, int *n, size_t done)
{
	while (*n > 0 && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		++*iov;
		--*n;
	}
	if (*n > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

int
object_writev(
    const struct served_object *o, struct iovec *iov, int n, uint64_t off, struct err *e)
{
	if (o->whole != -1 || !o->writes) {
		for (; n > 0; off += iov->iov_len, iov++, n--)
			if (object_write(o, iov->iov_base, iov->iov_len, off, e) == -1)
				return -1;
		return 0;
	}
	while (n > 0) {
		ssize_t done = pwritev(o->fd, iov, n, (off_t)(o->base + off));

		crossing();
		if (done == -1 && errno == EINTR)
			continue;
		if (done == -1 && was_put(o, off, errno))
			done = PAGE_GRANULE;
		if (done == -1)
			return refused(o, off, e);
		/* Some kernels tell of a part of a page; the whole page is written again. */
		if (done < PAGE_GRANULE)
			return err_set(e, ERR_FAILED,
			    "guest memory %s: write at %llu took %zd bytes of a page",
			    o->object->name, (unsigned long long)off, done);
		done = (ssize_t)align_down((uint64_t)done, PAGE_GRANULE);
		step_over(&iov, &n, (size_t)done);
		off += (uint64_t)done;
	}
	return 0;
}

int
object_first_write(struct served_object *o, const void *page, uint64_t off, struct err *e)
{
	ssize_t n;

	if (o->page_size == PAGE_GRANULE) {
		do
			n = pwrite(o->fd, page, PAGE_GRANULE, (off_t)(o->base + off));
		while (n == -1 && errno == EINTR);
		o->writes = n == PAGE_GRANULE ||
			    (n == -1 && (was_put(o, off, errno) || was_given(o, off, errno)));
		if (o->writes)
			return 0;
		if (n != -1)
			return err_set(e, ERR_FAILED,
			    "guest memory %s: write took %zd bytes of a page", o->object->name,
			    n);
		/* What kernels say that have no write(2) for it, or not for this file. */
		if (errno != ESPIPE && errno != EINVAL && errno != ENODEV &&
		    errno != EOPNOTSUPP)
			return refused(o, off, e);
	}
	return object_map(o, e) == -1 ? -1 : object_write(o, page, PAGE_GRANULE, off, e);
}

int
object_touch(const struct served_object *o, uint64_t off, struct err *e)
{
	crossing();
	/* Unlike a load of ours this fails where the page cannot be had. */
	if (pwrite(o->scratch, o->map + off, 1, 0) == 1)
		return 0;
	return err_sys(e, "guest memory %s: a page of zeros at %llu", o->object->name,
	    (unsigned long long)off);
}

int
object_allocate(const struct served_object *o, uint64_t off, uint64_t len, struct err *e)
{
	int rc;

	crossing();
	do
		rc = fallocate(o->fd, FALLOC_FL_KEEP_SIZE, (off_t)(o->base + off), (off_t)len);
	while (rc == -1 && errno == EINTR);
	if (rc == -1)
		return err_sys(e, "guest memory %s: %llu bytes of zeros at %llu",
		    o->object->name, (unsigned long long)len, (unsigned long long)off);
	return 0;
}
