/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/* The guest's memory, and what has to be in it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "stand-in-firecracker.h"

#define GAP (16u << 20) /* of --hole */

uint64_t
machine_size(const struct machine *m)
{
	uint64_t sum = 0;

	if (m->nregions < 1 || m->nregions > REGIONS_MAX ||
	    (m->page_size != PAGE && m->page_size != HUGE_PAGE))
		return 0;
	for (uint32_t i = 0; i < m->nregions; i++) {
		if (m->sizes[i] == 0 || m->sizes[i] % m->page_size != 0 ||
		    m->sizes[i] > (uint64_t)1 << 40)
			return 0;
		sum += m->sizes[i];
	}
	return sum;
}

/*
 * Where the next region goes: with --hole and --adjacent into one reservation, else
 * where the kernel likes it.
 */
static uint8_t *
place(uint64_t size)
{
	static uint8_t *next;
	uint64_t all = machine_size(&vm.m) + (uint64_t)GAP * (vm.m.nregions + 1);
	uint8_t *at;

	if (!opt.hole && !opt.adjacent)
		return NULL;
	if (next == NULL) {
		next = mmap(NULL, all + HUGE_PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (next == MAP_FAILED)
			quit(EXIT_CALL, "mmap: %s", strerror(errno));
		next += (HUGE_PAGE - (uintptr_t)next % HUGE_PAGE) % HUGE_PAGE;
	}
	at = next;
	next += size + (opt.hole ? GAP : 0);
	if (opt.hole)
		munmap(at + size, GAP);
	return at;
}

static bool
map_region(struct region *r, int fd, char *why)
{
	uint8_t *hint = place(r->size);
	int flags = MAP_PRIVATE | MAP_NORESERVE | (hint != NULL ? MAP_FIXED : 0);
	void *p;

	if (fd == -1)
		flags |= MAP_ANONYMOUS;
	if (vm.m.page_size == HUGE_PAGE)
		flags |= MAP_HUGETLB | 21 << MAP_HUGE_SHIFT;
	p = mmap(
	    hint, r->size, PROT_READ | PROT_WRITE, flags, fd, fd == -1 ? 0 : (off_t)r->offset);
	if (p == MAP_FAILED)
		return fail_sys(why, "Cannot create mmap region");
	r->at = p;
	return true;
}

bool
memory_map(int fd, char *why)
{
	uint64_t offset = 0;

	vm.npages = machine_size(&vm.m) / PAGE;
	vm.notes = calloc(vm.npages + 1, 1);
	vm.dirty = calloc(vm.npages + 1, 1);
	vm.before = calloc(vm.npages + 1, 1);
	if (vm.notes == NULL || vm.dirty == NULL || vm.before == NULL)
		quit(EXIT_CALL, "no memory");
	for (uint32_t i = 0; i < vm.m.nregions; i++) {
		vm.regions[i] = (struct region){ .size = vm.m.sizes[i], .offset = offset };
		if (!map_region(&vm.regions[i], fd, why))
			return false;
		offset += vm.m.sizes[i];
	}
	return true;
}

static struct pattern
pattern(void)
{
	return (struct pattern){ vm.m.seed, vm.m.density };
}

void
memory_fill(void)
{
	struct pattern p = pattern();

	for (uint64_t page = 0; page < vm.npages; page++)
		if (!pattern_is_zero(&p, page))
			pattern_page(&p, page, (uint64_t *)(void *)page_at(page));
}

uint8_t *
page_at(uint64_t page)
{
	const struct region *r = vm.regions;

	while (page * PAGE >= r->offset + r->size)
		r++;
	return r->at + (page * PAGE - r->offset);
}

static void
expected(uint64_t page, uint8_t note, uint64_t *words)
{
	struct pattern p = pattern();

	if ((note & NOTE_ZEROED) != 0)
		memset(words, 0, PAGE);
	else
		pattern_page(&p, page, words);
	words[WRITE_WORD] += note & NOTE_COUNT;
}

void
page_expected(uint64_t page, uint64_t *words)
{
	expected(page, vm.notes[page], words);
}

static void __attribute__((noreturn))
wrong(uint64_t page, unsigned word, uint64_t is, uint64_t want)
{
	uint32_t i = 0;

	while (page * PAGE >= vm.regions[i].offset + vm.regions[i].size)
		i++;
	quit(EXIT_WRONG,
	    "guest: WRONG: region %u, page 0x%lx of the memory file, address %p, word %u: "
	    "%#lx, should be %#lx",
	    i, (unsigned long)page, (void *)page_at(page), word, (unsigned long)is,
	    (unsigned long)want);
}

/* or_zero: somebody may be giving the page back just now; it is as at first, or zeros. */
static void
compare(uint64_t page, const volatile uint64_t *is, bool or_zero)
{
	uint64_t want[WORDS];

	expected(page, or_zero ? vm.before[page] : vm.notes[page], want);
	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t value = is[i];

		if (value != want[i] && !(or_zero && value == 0))
			wrong(page, i, value, want[i]);
	}
}

void
page_compare(uint64_t page, bool or_zero)
{
	compare(page, (const volatile uint64_t *)(void *)page_at(page), or_zero);
}

void
page_compare_bytes(uint64_t page, const void *bytes)
{
	compare(page, bytes, false);
}

/* Each page has one writer at a time. */
void
page_write(uint64_t page)
{
	uint64_t *words = (uint64_t *)(void *)page_at(page);

	if ((vm.notes[page] & NOTE_COUNT) == NOTE_COUNT)
		return;
	words[WRITE_WORD]++;
	vm.notes[page]++;
	vm.dirty[page] = 1;
}

/*
 * MADV_DONTNEED; memory that is mapped from a file gets a new mapping instead, and so did,
 * until 1.10, all restored memory.
 */
void
pages_discard(uint64_t page, uint64_t n)
{
	uint8_t *at = page_at(page);
	bool over = vm.from_file || (vm.restored && opt.version < 111);

	for (uint64_t i = 0; i < n; i++) {
		vm.notes[page + i] = NOTE_ZEROED;
		vm.dirty[page + i] = 1;
	}
	if (over && mmap(at, n * PAGE, PROT_READ | PROT_WRITE,
			MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0) == MAP_FAILED)
		quit(EXIT_CALL, "mmap over given back memory: %s", strerror(errno));
	if (madvise(at, n * PAGE, MADV_DONTNEED) == -1)
		quit(EXIT_CALL, "MADV_DONTNEED: %s", strerror(errno));
}
