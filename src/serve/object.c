/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/object.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "format/layout.h"
#include "memory/kind.h"
#include "serve/uffd.h"

/* Linux 6.5; the headers may be older. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
struct cache_range {
	uint64_t off, len;
};
struct cache_stat {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* ---- what it is ---- */

uint64_t
object_length(const struct served_object *o)
{
	return align_up(o->object->size, o->page_size);
}

static bool
is_guest_memfd(int fd, unsigned long f_type)
{
	char link[64], shown[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, shown, sizeof(shown) - 1);
	shown[MAX(n, 0)] = '\0';
	return memory_kind_of(shown, f_type) == MEMORY_GUEST_MEMFD;
}

static int
check_fits(struct served_object *o, const struct served_memory *m, struct err *e)
{
	struct stat st;
	struct statfs fs;
	uint64_t end;

	if (fstat(m->fd, &st) == -1 || fstatfs(m->fd, &fs) == -1)
		return err_sys(e, "%s: memory", o->object->name);
	o->dev = st.st_dev;
	o->ino = st.st_ino;
	o->guest_memfd = is_guest_memfd(m->fd, (unsigned long)fs.f_type);
	/* What a file on a disk has is there, whatever of it is in the page cache. */
	if (!S_ISREG(st.st_mode) ||
	    (!o->guest_memfd && fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC))
		return err_set(e, ERR_FAILED,
		    "%s: the descriptor is no memory object (a memfd, a file on tmpfs or "
		    "hugetlbfs, or a guest_memfd)",
		    o->object->name);
	if ((m->offset & (o->page_size - 1)) != 0 ||
	    ckd_add(&end, m->offset, object_length(o)) || st.st_size < 0 ||
	    end > (uint64_t)st.st_size)
		return err_set(e, ERR_FAILED,
		    "%s: %llu bytes of memory from %llu on do not hold a region of %llu bytes",
		    o->object->name, (unsigned long long)st.st_size,
		    (unsigned long long)m->offset, (unsigned long long)object_length(o));
	return 0;
}

/* How many pages of a mapping are in the page cache; 0 also where that cannot be told. */
static uint64_t
resident(const struct served_object *o)
{
	unsigned char vec[4096];
	uint64_t n = 0;

	for (size_t at = 0, len; o->map != NULL && at < o->map_len; at += len) {
		len = MIN(o->map_len - at, sizeof(vec) * PAGE_GRANULE);
		if (mincore(o->map + at, len, vec) == -1)
			return 0;
		for (size_t i = 0; i < len / PAGE_GRANULE; i++)
			n += vec[i] & 1;
	}
	return n;
}

/* Pages that are there; before Linux 6.5 it is 1 at most for a memfd. */
static uint64_t
count_pages(const struct served_object *o)
{
	struct cache_range range = { o->base, object_length(o) };
	struct cache_stat stat;
	off_t data;

	struct stat st;

	/* Of huge pages only the whole file's are known; it may hold other regions. */
	if (o->page_size > PAGE_GRANULE)
		return o->base == 0 && fstat(o->fd, &st) == 0
			   ? (uint64_t)st.st_blocks * 512 / PAGE_GRANULE
			   : 0;
	if (syscall(SYS_cachestat, o->fd, &range, &stat, 0) == 0)
		return stat.cached + stat.evicted;
	/* Some kernels' guest_memfd can seek, and calls everything data. */
	if (o->guest_memfd)
		return resident(o);
	data = lseek(o->fd, (off_t)o->base, SEEK_DATA);
	return data != -1 && (uint64_t)data < o->base + object_length(o);
}

/* What is there already nobody would ask us for. */
static int
check_untouched(const struct served_object *o, struct err *e)
{
	uint64_t n = count_pages(o);

	if (n == 0)
		return 0;
	return err_set(e, ERR_FAILED,
	    "%s: %llu pages of this memory are there already: it has to be handed over before "
	    "anybody touches or allocates it",
	    o->object->name, (unsigned long long)n);
}

/* What is there later, is there because of us. */
static int
check_once(const struct served_object *o, struct err *e)
{
	if (!atomic_load(&o->claims.head->checked) && check_untouched(o, e) == -1)
		return -1;
	atomic_store(&o->claims.head->checked, true);
	return 0;
}

/* Tries it on a mapping of our own, which nobody touches. */
static int
try_register(const struct served_object *o, struct err *why)
{
	uint64_t features;
	int uffd = -1, rc = -1;
	void *p;

	p = mmap(NULL, (size_t)o->page_size, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd,
	    (off_t)o->base);
	if (p == MAP_FAILED)
		return err_sys(why, "map it");
	if (uffd_create(&uffd, why) == 0 && uffd_handshake(uffd, &features, why) == 0) {
		rc = uffd_register(uffd, (uintptr_t)p, o->page_size, why);
		if (rc == -1)
			err_sys(why, "register");
	}
	fd_close(&uffd);
	munmap(p, (size_t)o->page_size);
	return rc;
}

/* ---- taking it into use ---- */

static int
map_it(struct served_object *o, struct err *e)
{
	void *map;

	if (o->map != NULL)
		return 0;
	o->map_len = (size_t)object_length(o);
	map = mmap(NULL, o->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, (off_t)o->base);
	if (map == MAP_FAILED)
		return err_sys(e, "%s: map %zu bytes", o->object->name, o->map_len);
	o->map = map;
	/* Pages of which nobody has asked must not be made by looking around. */
	(void)madvise(map, o->map_len, MADV_RANDOM);
	return 0;
}

/* Pages of zeros are made by looking at them where UFFDIO_ZEROPAGE cannot. */
static int
open_touch(struct served_object *o, bool userfault, struct err *e)
{
	if (!o->guest_memfd && !userfault)
		return 0;
	o->scratch = memfd_create("gmem-scratch", MFD_CLOEXEC);
	if (o->scratch == -1)
		return err_sys(e, "%s", o->object->name);
	return map_it(o, e);
}

static int
open_bitmap(struct served_object *o, int fd, struct err *e)
{
	struct stat st;
	void *map;

	if (fd == -1)
		return 0;
	o->bitmap_len = bitmap_bytes(div_up(o->object->size, PAGE_GRANULE));
	if (fstat(fd, &st) == -1 || (uint64_t)st.st_size < o->bitmap_len)
		return err_set(e, ERR_FAILED,
		    "%s: the bitmap of KVM userfault has to be a file of %zu bytes or more",
		    o->object->name, o->bitmap_len);
	map = mmap(NULL, o->bitmap_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return err_sys(e, "%s: map the bitmap of KVM userfault", o->object->name);
	o->bitmap = map;
	return 0;
}

/*
 * Whoever registers its mapping for missing pages only (Cloud Hypervisor 53.0) sees a huge
 * page as soon as it is there, and stores take their time; what UFFDIO_COPY puts there is
 * complete.  Of small pages write(2) makes it so.
 */
static int
open_whole(struct served_object *o, struct err *e)
{
	struct err why = ERR_INIT;
	uint64_t features;

	if (object_map(o, e) == -1)
		return -1;
	if (uffd_create(&o->whole, &why) == 0 &&
	    uffd_handshake(o->whole, &features, &why) == 0 &&
	    uffd_register(o->whole, (uintptr_t)o->map, o->map_len, &why) == 0)
		return 0;
	log_warn("%s: the guest may see a huge page before all of it is there, if the VMM does "
		 "not ask for minor faults: %s",
	    o->object->name, why.msg);
	fd_close(&o->whole);
	return 0;
}

static int
open_source(struct served_object *o, struct err *e)
{
	if (o->guest_memfd)
		return err_set(e, ERR_UNSUPPORTED,
		    "%s: guest_memfd is no memory for a VMM that asks for its pages",
		    o->object->name);
	o->source = true;
	o->last_asked = UINT64_MAX;
	return o->page_size > PAGE_GRANULE ? open_whole(o, e) : 0;
}

int
object_open(struct served_object *o, const struct object *object, const struct served_memory *m,
    struct err *why, struct err *e)
{
	*o = (struct served_object){ .object = object,
		.fd = -1,
		.base = m->offset,
		.page_size = m->page_size,
		.scratch = -1,
		.whole = -1,
		.own_uffd = -1,
		.claims.fd = -1 };
	if (check_fits(o, m, e) == -1 ||
	    claims_init(&o->claims, m->claims, div_up(object->size, o->page_size), e) == -1)
		return -1;
	o->fd = fcntl(m->fd, F_DUPFD_CLOEXEC, 0);
	if (o->fd == -1)
		return err_sys(e, "%s: memory", object->name);
	if (open_touch(o, m->bitmap != -1, e) == -1 || check_once(o, e) == -1 ||
	    open_bitmap(o, m->bitmap, e) == -1)
		return -1;
	*why = (struct err)ERR_INIT;
	if (m->source) {
		if (open_source(o, e) == -1)
			return -1;
	} else if (!atomic_load(&o->claims.head->known)) {
		(void)try_register(o, why);
	}
	/* hugetlbfs has no write(2). */
	if (o->page_size > PAGE_GRANULE && object_map(o, e) == -1)
		return -1;
	return object_settle(o, e);
}

#define FOREIGN_PAGE_MAX (UINT64_C(1) << 30)

int
object_open_foreign(struct served_object *o, const struct object *object, uint64_t page_size,
    int claims, struct err *e)
{
	*o = (struct served_object){ .object = object,
		.fd = -1,
		.page_size = page_size,
		.scratch = -1,
		.whole = -1,
		.own_uffd = -1,
		.engine = SERVE_COPY,
		.claims.fd = -1 };
	if (!is_pow2(page_size) || page_size < PAGE_GRANULE || page_size > FOREIGN_PAGE_MAX)
		return err_set(e, ERR_UNSUPPORTED, "%s: pages of %llu bytes", object->name,
		    (unsigned long long)page_size);
	if (claims_init(&o->claims, claims, div_up(object->size, page_size), e) == -1)
		return -1;
	claims_set_how(&o->claims, SERVE_COPY, false);
	return object_settle(o, e);
}

void
object_fini(struct served_object *o)
{
	if (o->object == NULL)
		return;
	if (o->map != NULL)
		munmap(o->map, o->map_len);
	if (o->bitmap != NULL)
		munmap(o->bitmap, o->bitmap_len);
	claims_fini(&o->claims);
	extents_fini(&o->extents);
	own_close(o);
	fd_close(&o->whole);
	fd_close(&o->scratch);
	fd_close(&o->fd);
	o->object = NULL;
}

int
object_map(struct served_object *o, struct err *e)
{
	o->writes = false;
	return map_it(o, e);
}

/* ---- what is there ---- */

void
object_admit(const struct served_object *o, uint64_t page)
{
	uint64_t n = o->page_size / PAGE_GRANULE, first = page * n;
	uint64_t end = MIN(first + n, div_up(o->object->size, PAGE_GRANULE));

	for (uint64_t i = first; o->bitmap != NULL && i < end; i++)
		bitmap_clear(o->bitmap, i);
}

void
object_give(struct served_object *o, uint64_t page)
{
	/* In this order: where a vCPU is let in it may write, and nobody else any more. */
	claims_give(&o->claims, page);
	object_admit(o, page);
}

bool
object_overlaps(const struct served_object *a, const struct served_object *b)
{
	return a->fd != -1 && b->fd != -1 && a->dev == b->dev && a->ino == b->ino &&
	       a->base < b->base + object_length(b) && b->base < a->base + object_length(a);
}

void
object_complete(struct served_object *o)
{
	for (size_t i = 0; o->bitmap != NULL && i < o->bitmap_len / sizeof(bitmap_word); i++)
		atomic_store_explicit(&o->bitmap[i], 0, memory_order_release);
	claims_close(&o->claims);
	atomic_store(&o->complete, true);
}

void
object_finish(struct served_object *o)
{
	object_complete(o);
	atomic_store(&o->claims.head->complete, true);
}

void
object_shed(struct served_object *o)
{
	claims_shed(&o->claims);
	/* The mapping alone: the pages stay in the memory object. */
	if (o->map != NULL)
		(void)madvise(o->map, o->map_len, MADV_DONTNEED);
}
