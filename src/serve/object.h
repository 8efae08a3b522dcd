/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_OBJECT_H
#define GMEM_SERVE_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bitmap.h"
#include "base/err.h"
#include "format/manifest.h"
#include "serve/claims.h"
#include "serve/engine.h"
#include "serve/extents.h"

/*
 * A memory object that is being served: a region of the image, and the file its
 * pages go into.  What its kernel can do is found by trying, once:
 *
 * - write(2) puts absent pages into it, whole (memfd, some kernels' guest_memfd), or
 *   stores through a mapping of ours do (hugetlb, other kernels' guest_memfd);
 * - the vCPUs reach it through the VMM's mapping, where userfaultfd stops them,
 *   or past it (slots of KVM_MEM_GUEST_MEMFD), where the bitmap of KVM userfault does.
 */
struct served_object {
	const struct object *object; /* of the image; NULL: it has no memory yet */
	int fd; /* owned; -1: memory of the VMM's own (SERVE_COPY) */
	dev_t dev; /* dev and ino of the file, where there is one */
	ino_t ino;
	uint64_t base; /* where the region begins in the file */
	uint64_t page_size; /* the unit of claims and of mapping */
	_Atomic(enum serve_engine) engine; /* SERVE_AUTO: not chosen yet */
	bool guest_memfd;
	bool writes; /* write(2) works */
	uint8_t *map; /* of ours; NULL where it is not needed */
	size_t map_len;
	int scratch; /* a memfd to read the mapping into, for object_touch; or -1 */
	bitmap_word *bitmap; /* set: vCPUs leave the guest for the page; NULL: no such thing */
	size_t bitmap_len; /* bytes */
	atomic_bool complete; /* all of it is there: nothing needs to be registered */
	struct claims claims;
	/* What is to be registered, if not all of it (extents.h); else .list is NULL. */
	struct extents extents;
	/* SERVE_COPY */
	unsigned process; /* that has it; once something is mapped */
	uint64_t mapped; /* bytes that were ever mapped */
	/* The VMM asks for pages (served_memory.source): */
	bool source;
	int whole; /* a userfaultfd of ours, for the mapping: puts huge pages there at once; or
		      -1 */
	/* own.c; .own NULL: there is none */
	uint8_t *own;
	size_t own_len;
	int own_uffd;
	atomic_size_t own_mapped; /* bytes of it, about */
	_Atomic uint64_t last_asked; /* the chunk it asked for last */
};

/* Memory for a region.  Descriptors are duplicated. */
struct served_memory {
	int fd;
	uint64_t offset; /* where the region begins in it, bytes */
	uint64_t page_size; /* 4096, or of the huge pages behind it */
	int bitmap; /* of KVM userfault, a file with one bit for each page; or -1 */
	bool slots; /* vCPUs reach it past any mapping */
	bool source; /* the VMM maps it itself and asks for pages (SERVE_SOURCE) */
	/*
	 * Of claims_create; 0 or -1: it has claims of its own, with which nobody can go on.  If
	 * another server has begun with them, this one goes on: what was found out is known,
	 * and the memory need not be empty.
	 */
	int claims;
};

/*
 * Takes the memory into use: checks that it fits, that nobody has touched it, and that it
 * registers with userfaultfd.  *why tells what does not, and is ERR_NONE if it does.
 * The engine is not chosen yet, unless the claims know it.
 */
int object_open(struct served_object *o, const struct object *object,
    const struct served_memory *m, struct err *why, struct err *e);
void object_fini(struct served_object *o);

/* The same for memory of the VMM's own, of pages of page_size: SERVE_COPY. */
int object_open_foreign(struct served_object *o, const struct object *object,
    uint64_t page_size, int claims, struct err *e);

/* resume.c: settles what a dead server has left half done.  The memory is open. */
int object_settle(struct served_object *o, struct err *e);

/* Bytes of its memory: whole pages of page_size. */
uint64_t object_length(const struct served_object *o);

/* Makes a mapping of ours, and lets stores through it take the place of write(2). */
int object_map(struct served_object *o, struct err *e);

/*
 * Finds out whether write(2) works by putting a page there, whose content it is to have:
 * whole pages, not there yet.
 */
int object_first_write(struct served_object *o, const void *page, uint64_t off, struct err *e);

/*
 * Puts whole pages of the object there from resident memory: nobody can see them half done
 * (kernel.md §2.4).  A page that is there already is an error, unless it is doubted.
 */
int object_write(
    const struct served_object *o, const void *buf, size_t len, uint64_t off, struct err *e);

/* The same from pieces of whole pages, one behind the other.  The pieces are changed. */
struct iovec;
int object_writev(
    const struct served_object *o, struct iovec *iov, int n, uint64_t off, struct err *e);

/*
 * A mapping of ours for many pages at once, of many threads: -1 where that is no gain, and
 * object_writev has to do.  own_write is object_write through it, from any memory.  Nobody
 * writes any more when it is closed; NULL is fine.
 */
int own_open(struct served_object *o);
void own_close(struct served_object *o);
int own_write(
    struct served_object *o, const void *buf, size_t len, uint64_t off, struct err *e);

/* Sees to it that there are pages in [off, off + len), as object_allocate does. */
int own_zero(struct served_object *o, size_t len, uint64_t off, struct err *e);

/* Sees to it that there is a page, of zeros if there was none; guest_memfd or with a bitmap. */
int object_touch(const struct served_object *o, uint64_t off, struct err *e);

/*
 * Sees to it that there are pages in [off, off + len), whole ones: of zeros where there were
 * none, and what is there stays (but for guest_memfd).
 */
int object_allocate(const struct served_object *o, uint64_t off, uint64_t len, struct err *e);

/* The page (number `page`, of page_size) is in the object: marks it given, lets vCPUs in. */
void object_give(struct served_object *o, uint64_t page);

/* Lets them in again: the bit of a page that was given may be set still. */
void object_admit(const struct served_object *o, uint64_t page);

/* Whether they share bytes of a file. */
bool object_overlaps(const struct served_object *a, const struct served_object *b);

/*
 * All that is to be there is: vCPUs need not leave the guest for what is missing, and
 * gmem-snap may save the memory (memory/served.h).
 */
void object_complete(struct served_object *o);

/* The same, and nothing of it is registered any more: nobody need ever give a page of it. */
void object_finish(struct served_object *o);

/* Nobody looks at its claims any more, nor writes it: gives back what that has taken. */
void object_shed(struct served_object *o);

#endif
