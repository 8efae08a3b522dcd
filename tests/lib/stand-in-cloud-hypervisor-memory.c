/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* Guest memory: zones become slots, some of which share a file. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

static int
make_file(uint64_t size, uint64_t page, struct why *why)
{
	unsigned flags = MFD_CLOEXEC;

	if (page > PAGE)
		flags |= MFD_HUGETLB | (unsigned)__builtin_ctzll(page) << MAP_HUGE_SHIFT;
	int fd = memfd_create("ch_ram", flags);
	if (fd != -1 && ftruncate(fd, (off_t)size) == 0)
		return fd;
	fail(why, "Cannot create the memory: %s", strerror(errno));
	return -1;
}

static int
map_slot(struct slot *s, struct why *why)
{
	int flags = s->fd == -1 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	struct stat st;

	/* As vm-memory checks it. */
	if (s->fd != -1 &&
	    (fstat(s->fd, &st) == -1 || (uint64_t)st.st_size < s->file_offset + s->size)) {
		fail(why, "The specified file offset and length is greater then file length");
		return -1;
	}
	void *at = mmap(NULL, s->size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, s->fd,
	    s->fd == -1 ? 0 : (off_t)s->file_offset);
	if (at == MAP_FAILED) {
		fail(why, "Cannot map slot %u: %s", s->slot, strerror(errno));
		return -1;
	}
	s->mem = at;
	s->dirty = calloc(s->size / PAGE + 1, 1);
	return s->dirty == NULL ? -1 : 0;
}

static int
add_slot(const struct zone *z, uint64_t gpa, uint64_t size, uint64_t offset, int fd)
{
	struct slot *s = &vmm.slots[vmm.nslots];

	if (vmm.nslots == SLOTS_MAX || size == 0)
		return size == 0 ? 0 : -1;
	*s = (struct slot){ .slot = (uint32_t)vmm.nslots++,
		.gpa = gpa,
		.size = size,
		.file_offset = offset,
		.shared = z->shared,
		.page = z->page,
		.fd = fd };
	memcpy(s->zone, z->id, sizeof(s->zone));
	return 0;
}

/* A zone as up to vmm.cut slots, cut once more where the hole of a PC is. */
static int
make_zone(const struct zone *z, uint64_t *gpa, struct why *why)
{
	bool file = z->shared || z->page > PAGE;
	uint64_t part = z->size / vmm.cut / z->page * z->page;
	int fd = -1;

	for (uint64_t at = 0, size; at < z->size; at += size) {
		uint64_t offset = vmm.file_per_slot ? 0 : at;

		size = part == 0 || z->size - at < 2 * part ? z->size - at : part;
		if (*gpa<vmm.hole && * gpa + size> vmm.hole)
			size = vmm.hole - *gpa;
		if (file && (fd == -1 || vmm.file_per_slot))
			fd = make_file(vmm.file_per_slot ? size : z->size, z->page, why);
		if ((file && fd == -1) || add_slot(z, *gpa, size, offset, fd) == -1)
			return -1;
		*gpa += size + (at + size < z->size ? vmm.gap : 0);
		if (*gpa >= vmm.hole && *gpa < (uint64_t)4 << 30)
			*gpa = (uint64_t)4 << 30;
	}
	return 0;
}

int
memory_make(struct why *why)
{
	uint64_t gpa = 0;

	for (size_t i = 0; i < vmm.nzones; i++)
		if (make_zone(&vmm.zones[i], &gpa, why) == -1)
			return -1;
	for (size_t i = 0; i < vmm.nslots; i++)
		if (map_slot(&vmm.slots[i], why) == -1)
			return -1;
	return 0;
}

int
memory_map(const int *fds, struct why *why)
{
	for (size_t i = 0; i < vmm.nslots; i++) {
		struct slot *s = &vmm.slots[i];
		bool file = s->shared || s->page > PAGE;

		/* A slot for which no descriptor came gets new memory, without a word. */
		s->fd = fds[i];
		if (s->fd == -1 && file) {
			s->fd = make_file(s->file_offset + s->size, s->page, why);
			if (s->fd == -1)
				return -1;
		}
		if (map_slot(s, why) == -1)
			return -1;
	}
	return 0;
}

void
memory_free(void)
{
	for (size_t i = 0; i < vmm.nslots; i++) {
		if (vmm.slots[i].mem != NULL)
			munmap(vmm.slots[i].mem, vmm.slots[i].size);
		free(vmm.slots[i].dirty);
	}
	vmm.nslots = 0;
}

struct slot *
memory_slot(uint64_t gpa, uint64_t length)
{
	for (size_t i = 0; i < vmm.nslots; i++) {
		struct slot *s = &vmm.slots[i];

		if (gpa >= s->gpa && gpa - s->gpa < s->size &&
		    length <= s->size - (gpa - s->gpa))
			return s;
	}
	return NULL;
}

uint64_t
memory_pages(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < vmm.nslots; i++)
		n += vmm.slots[i].size / PAGE;
	return n;
}

uint8_t *
memory_page(uint64_t number, uint64_t *gpa)
{
	size_t i = 0;

	while (number >= vmm.slots[i].size / PAGE)
		number -= vmm.slots[i++].size / PAGE;
	*gpa = vmm.slots[i].gpa + number * PAGE;
	return vmm.slots[i].mem + number * PAGE;
}

/* Grows by one, or into its neighbour. */
static struct range *
add_range(struct range *list, size_t *n, uint64_t gpa, uint64_t length, bool join)
{
	if (join && *n > 0 && list[*n - 1].gpa + list[*n - 1].length == gpa) {
		list[*n - 1].length += length;
		return list;
	}
	if ((*n & (*n - 1)) == 0)
		list = realloc(list, (*n == 0 ? 1 : 2 * *n) * sizeof(*list));
	if (list == NULL)
		abort();
	list[(*n)++] = (struct range){ gpa, length };
	return list;
}

struct range *
memory_dirty(size_t *n)
{
	struct range *list = NULL;

	*n = 0;
	pthread_mutex_lock(&vmm.lock);
	for (size_t i = 0; i < vmm.nslots; i++) {
		struct slot *s = &vmm.slots[i];
		bool join = false;

		for (uint64_t page = 0; page < s->size / PAGE; page++) {
			if (!s->dirty[page]) {
				join = false;
				continue;
			}
			s->dirty[page] = 0;
			list = add_range(list, n, s->gpa + page * PAGE, PAGE, join);
			join = true;
		}
	}
	pthread_mutex_unlock(&vmm.lock);
	return list;
}

static struct range *
add_extents(struct range *list, size_t *n, const struct slot *s)
{
	off_t end = (off_t)(s->file_offset + s->size), at = (off_t)s->file_offset;

	while (at < end) {
		off_t data = lseek(s->fd, at, SEEK_DATA), hole;

		if (data == -1 || data >= end)
			break;
		hole = lseek(s->fd, data, SEEK_HOLE);
		if (hole == -1 || hole > end)
			hole = end;
		list = add_range(list, n, s->gpa + (uint64_t)data - s->file_offset,
		    (uint64_t)(hole - data), false);
		at = hole;
	}
	return list;
}

struct range *
memory_ranges(bool sparse, size_t *n)
{
	struct range *list = NULL;

	*n = 0;
	for (size_t i = 0; i < vmm.nslots; i++) {
		struct slot *s = &vmm.slots[i];

		/* lseek is of no use with hugetlbfs. */
		if (sparse && s->fd != -1 && s->page == PAGE)
			list = add_extents(list, n, s);
		else
			list = add_range(list, n, s->gpa, s->size, false);
	}
	return list;
}
