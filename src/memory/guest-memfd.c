/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/guest-memfd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"

#define WINDOW ((uint64_t)64 << 20) /* bytes of one mapping */
#define STEP_MIN 64 /* pages of the first look into a window */
#define STEP_MAX 4096
#define PIECE                                                                                  \
	((size_t)1 << 20) /* bytes copied at a time; a window holds a whole number of them */
#define PAGE_MIN 4096

#define NIDLE (sizeof(((struct guest_memfd_scratch *)0)->idle) / sizeof(void *))

/* Not every C library's headers have it. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static size_t
page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

struct guest_memfd_reader {
	int scratch; /* a memfd; owned */
	unsigned char *map; /* the file's [start, start + len), or NULL; owned */
	uint64_t start;
	size_t len;
};

static void
unmap(struct guest_memfd_reader *r)
{
	if (r->map != NULL)
		munmap(r->map, r->len);
	r->map = NULL;
}

static void
reader_free(struct guest_memfd_reader *r)
{
	if (r == NULL)
		return;
	unmap(r);
	fd_close(&r->scratch);
	free(r);
}

static struct guest_memfd_reader *
reader_new(struct err *e)
{
	struct guest_memfd_reader *r = calloc(1, sizeof(*r));

	if (r != NULL)
		r->scratch = memfd_create("gmem-scratch", MFD_CLOEXEC);
	if (r != NULL && r->scratch != -1)
		return r;
	err_sys(e, "reader of guest_memfd");
	free(r);
	return NULL;
}

void
guest_memfd_scratch_init(struct guest_memfd_scratch *scratch)
{
	for (size_t i = 0; i < NIDLE; i++)
		atomic_init(&scratch->idle[i], NULL);
}

void
guest_memfd_scratch_fini(struct guest_memfd_scratch *scratch)
{
	for (size_t i = 0; i < NIDLE; i++)
		reader_free(atomic_exchange(&scratch->idle[i], NULL));
}

/* A reader for this thread alone: one that is idle, or a new one. */
static struct guest_memfd_reader *
reader_get(struct guest_memfd_scratch *scratch, struct err *e)
{
	for (size_t i = 0; i < NIDLE; i++) {
		struct guest_memfd_reader *r = atomic_exchange(&scratch->idle[i], NULL);

		if (r != NULL)
			return r;
	}
	return reader_new(e);
}

static void
reader_put(struct guest_memfd_scratch *scratch, struct guest_memfd_reader *r)
{
	for (size_t i = 0; i < NIDLE; i++) {
		struct guest_memfd_reader *none = NULL;

		if (atomic_compare_exchange_strong(&scratch->idle[i], &none, r))
			return;
	}
	reader_free(r);
}

static void *
map(int fd, uint64_t off, size_t len, struct err *e)
{
	void *p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)off);

	if (p != MAP_FAILED)
		return p;
	if (errno == ENODEV)
		err_set(e, ERR_UNSUPPORTED,
		    "this guest_memfd was created without GUEST_MEMFD_FLAG_MMAP: nobody "
		    "outside "
		    "the guest can read it");
	else
		err_sys(
		    e, "map %zu bytes of guest_memfd at %llu", len, (unsigned long long)off);
	return NULL;
}

int
guest_memfd_check(int fd, struct err *e)
{
	char link[64];
	struct stat st;
	void *p;

	if (fstat(fd, &st) == -1)
		return err_sys(e, "guest_memfd");
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (st.st_uid != geteuid() && eaccess(link, W_OK) == -1)
		return err_sys(e,
		    "the kernel does not tell us which pages of this guest_memfd exist: run as "
		    "user "
		    "%u or as root",
		    (unsigned)st.st_uid);
	p = map(fd, 0, page_size(), e);
	if (p == NULL)
		return -1;
	munmap(p, page_size());
	return 0;
}

/* Residence of npages pages from p on, one byte each, of which bit 0 counts. */
static int
resident(void *p, size_t npages, unsigned char *vec, struct err *e)
{
	while (mincore(p, npages * page_size(), vec) == -1)
		if (errno != EAGAIN)
			return err_sys(e, "mincore of guest_memfd");
	return 0;
}

/* The first run of resident pages among npages at p: 1 with [*first, *last), 0, -1. */
static int
find_run(unsigned char *p, size_t npages, size_t *first, size_t *last, struct err *e)
{
	unsigned char vec[STEP_MAX];
	size_t step = STEP_MIN;
	bool inside = false;

	for (size_t done = 0; done < npages; done += step, step = MIN(step * 2, STEP_MAX)) {
		step = MIN(step, npages - done);
		if (resident(p + done * page_size(), step, vec, e) == -1)
			return -1;
		for (size_t i = 0; i < step; i++) {
			if ((vec[i] & 1) == inside)
				continue;
			*(inside ? last : first) = done + i;
			if (inside)
				return 1;
			inside = true;
		}
	}
	*last = npages;
	return inside;
}

int
guest_memfd_next(
    int fd, uint64_t size, uint64_t from, uint64_t *start, uint64_t *end, struct err *e)
{
	size_t first = 0, last = 0, len, page = page_size();

	for (from = align_down(from, page); from < size; from += len) {
		unsigned char *p;
		int found;

		len = (size_t)MIN(align_up(size - from, page), WINDOW);
		p = map(fd, from, len, e);
		if (p == NULL)
			return -1;
		found = find_run(p, len / page, &first, &last, e);
		munmap(p, len);
		if (found == -1)
			return -1;
		if (found == 1) {
			*start = from + first * page;
			*end = from + last * page;
			return 1;
		}
	}
	return 0;
}

/* From our mapping of byte off on to buf, by way of the scratch file. */
static int
copy(int scratch, const unsigned char *from, void *buf, size_t len, uint64_t off, struct err *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(scratch, from + done, len - done, (off_t)done);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || (errno != EINTR && errno != EFAULT))
			return err_sys(e, "copy guest_memfd");
		else if (errno == EFAULT)
			return err_set(e, ERR_FAILED,
			    "guest_memfd cannot be read at %llu: the page is private to the "
			    "guest, "
			    "or damaged",
			    (unsigned long long)(off + done));
	}
	return fd_pread_full(scratch, buf, len, 0, e);
}

/* Reads len bytes from p + skip on, p being a mapping of the page at off; holes are zeros. */
static int
read_mapped(unsigned char *p, size_t skip, int scratch, unsigned char *buf, size_t len,
    uint64_t off, struct err *e)
{
	unsigned char vec[PIECE / PAGE_MIN + 1];
	size_t page = page_size(), npages = (size_t)div_up(skip + len, page), next;

	if (resident(p, npages, vec, e) == -1)
		return -1;
	for (size_t i = 0; i < npages; i = next) {
		size_t lo, hi;

		for (next = i + 1; next < npages && (vec[next] & 1) == (vec[i] & 1); next++)
			;
		lo = MAX(i * page, skip);
		hi = MIN(next * page, skip + len);
		if ((vec[i] & 1) == 0) {
			memset(buf + (lo - skip), 0, hi - lo);
			continue;
		}
		/* Faults them in together; what it refuses, the copy finds out. */
		(void)madvise(p + i * page, (next - i) * page, MADV_POPULATE_READ);
		if (copy(scratch, p + lo, buf + (lo - skip), hi - lo, off + lo, e) == -1)
			return -1;
	}
	return 0;
}

/* Makes the reader's window the one that holds byte off. */
static int
look_at(struct guest_memfd_reader *r, int fd, uint64_t off, struct err *e)
{
	struct stat st;

	if (r->map != NULL && off >= r->start && off - r->start < r->len)
		return 0;
	unmap(r);
	if (fstat(fd, &st) == -1)
		return err_sys(e, "guest_memfd");
	r->start = align_down(off, WINDOW);
	r->len = (size_t)MIN(align_up((uint64_t)st.st_size, page_size()) - r->start, WINDOW);
	r->map = map(fd, r->start, r->len, e);
	return r->map != NULL ? 0 : -1;
}

int
guest_memfd_read(int fd, struct guest_memfd_scratch *scratch, void *buf, size_t len,
    uint64_t off, struct err *e)
{
	struct guest_memfd_reader *r = reader_get(scratch, e);
	int result = r != NULL ? 0 : -1;

	for (size_t done = 0, n; result == 0 && done < len; done += n) {
		uint64_t at = off + done, base = align_down(at, page_size());

		n = MIN(len - done, PIECE - (size_t)(at % PIECE));
		result = look_at(r, fd, at, e);
		if (result == 0)
			result = read_mapped(r->map + (base - r->start), (size_t)(at - base),
			    r->scratch, (unsigned char *)buf + done, n, base, e);
	}
	if (r != NULL)
		reader_put(scratch, r);
	return result;
}
