/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "image/hot.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/endian.h>

#include "base/ckd.h"
#include "base/mix.h"
#include "image/reader.h"

/* Bits 0-47 the page, 48-62 the region, 63: it is zero. */
#define PAGE_BITS 48
#define REGION_BITS 15
#define ENTRY_ZERO (UINT64_C(1) << 63)

_Static_assert(OBJECT_SIZE_MAX / PAGE_GRANULE <= UINT64_C(1) << PAGE_BITS, "pages fit");
_Static_assert(OBJECTS_MAX <= 1u << REGION_BITS, "regions fit");
_Static_assert(HOT_PAGES_MAX < HOT_ZERO, "numbers of pages are not the mark of zeros");

struct hot_cache {
	pthread_mutex_t lock;
	bool loaded; /* what follows is there, and does not change any more */
	struct hot_list list;
	struct hot_page *pages;
	uint32_t *slots; /* HOT_ZERO: free */
};

uint64_t
hot_encode(const struct hot_page *p)
{
	return p->page | (uint64_t)p->region << PAGE_BITS |
	       (p->at == HOT_ZERO ? ENTRY_ZERO : 0);
}

static void
hot_decode(struct hot_page *p, uint64_t value, uint32_t *at)
{
	p->page = value & ((UINT64_C(1) << PAGE_BITS) - 1);
	p->region = value >> PAGE_BITS & ((1u << REGION_BITS) - 1);
	p->at = (value & ENTRY_ZERO) != 0 ? HOT_ZERO : (*at)++;
}

struct hot_cache *
hot_cache_new(void)
{
	struct hot_cache *c = calloc(1, sizeof(*c));

	if (c != NULL)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

void
hot_cache_free(struct hot_cache *c)
{
	if (c == NULL)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c->pages);
	free(c->slots);
	free(c);
}

/* ---- finding ---- */

static uint32_t
slot_of(const struct hot_list *l, uint32_t region, uint64_t page)
{
	uint64_t key = page | (uint64_t)region << PAGE_BITS;

	return (uint32_t)mix_key(key, l->slots) & (l->nslots - 1);
}

/* The slot of the page, or the free one where it belongs: at least half of them are free. */
static uint32_t
find_slot(const struct hot_list *l, uint32_t region, uint64_t page)
{
	uint32_t slot = slot_of(l, region, page);

	while (l->slots[slot] != HOT_ZERO) {
		const struct hot_page *p = &l->pages[l->slots[slot]];

		if (p->page == page && p->region == region)
			break;
		slot = (slot + 1) & (l->nslots - 1);
	}
	return slot;
}

uint32_t
hot_find(const struct hot_list *l, uint32_t region, uint64_t page)
{
	uint32_t number = l->slots[find_slot(l, region, page)];

	return number != HOT_ZERO ? l->pages[number].at : HOT_ZERO;
}

/* ---- loading ---- */

static int
check_page(const struct image *img, const struct hot_page *p, struct err *e)
{
	const struct manifest *m = &img->manifest;

	if (p->region >= m->nregions)
		return err_set(e, ERR_CORRUPT, "region %u of %zu", p->region, m->nregions);
	if (p->page >= div_up(m->regions[p->region].size, PAGE_GRANULE))
		return err_set(e, ERR_CORRUPT, "page %llu is behind the end of %s",
		    (unsigned long long)p->page, m->regions[p->region].name);
	return 0;
}

/* Takes page number `number` of the list, whose fields are set. */
static int
add_page(const struct image *img, struct hot_cache *c, uint32_t number, struct err *e)
{
	const struct hot_page *p = &c->pages[number];
	uint32_t slot;

	if (check_page(img, p, e) == -1)
		return err_wrap(e, "entry %u", number);
	slot = find_slot(&c->list, p->region, p->page);
	if (c->slots[slot] != HOT_ZERO)
		return err_set(e, ERR_CORRUPT, "entries %u and %u are the same page",
		    c->slots[slot], number);
	c->slots[slot] = number;
	return 0;
}

static int
read_table(const struct image *img, struct hot_cache *c, struct image_reader *r, size_t n,
    struct err *e)
{
	const struct object *table = &img->manifest.hot->table;
	uint32_t at = 0, number = 0;
	uint8_t buf[PAGE_GRANULE];

	for (uint64_t off = 0; off < table->size; off += sizeof(buf)) {
		size_t len = MIN(table->size - off, sizeof(buf));

		if (image_reader_read(r, table, off, buf, len, e) == -1)
			return -1;
		for (size_t i = 0; i < len; i += HOT_ENTRY_SIZE, number++) {
			hot_decode(&c->pages[number], le64dec(buf + i), &at);
			if (add_page(img, c, number, e) == -1)
				return err_wrap(e, "%s: %s", img->path, table->name);
		}
	}
	if (at != img->manifest.hot->pages.size / PAGE_GRANULE)
		return err_set(e, ERR_CORRUPT, "%s: %s: %u pages are not zero, %llu are stored",
		    img->path, table->name, at,
		    (unsigned long long)(img->manifest.hot->pages.size / PAGE_GRANULE));
	c->list.n = n;
	c->list.nstored = at;
	c->list.object = at != 0 ? &img->manifest.hot->pages : NULL;
	return 0;
}

static int
allocate(struct hot_cache *c, size_t n, struct err *e)
{
	uint32_t nslots = 2;

	while (nslots < 2 * n)
		nslots *= 2;
	c->pages = malloc(n * sizeof(*c->pages));
	c->slots = malloc(nslots * sizeof(*c->slots));
	if (c->pages == NULL || c->slots == NULL)
		return err_sys(e, "hot table");
	for (uint32_t i = 0; i < nslots; i++)
		c->slots[i] = HOT_ZERO;
	c->list.pages = c->pages;
	c->list.slots = c->slots;
	c->list.nslots = nslots;
	return 0;
}

static int
load(const struct image *img, struct hot_cache *c, struct err *e)
{
	size_t n = img->manifest.hot->table.size / HOT_ENTRY_SIZE; /* manifest_check */
	struct image_reader *r;
	int rc;

	if (image_reader_new(&r, img, e) == -1)
		return -1;
	rc = allocate(c, n, e) == -1 ? -1 : read_table(img, c, r, n, e);
	image_reader_free(r);
	if (rc == -1) {
		free(c->pages);
		free(c->slots);
		c->pages = NULL;
		c->slots = NULL;
	}
	return rc;
}

int
image_hot(const struct image *img, const struct hot_list **list, struct err *e)
{
	struct hot_cache *c = img->hot;
	int rc = 0;

	*list = NULL;
	if (c == NULL)
		return 0;
	pthread_mutex_lock(&c->lock);
	if (!c->loaded)
		rc = load(img, c, e);
	c->loaded = rc == 0;
	pthread_mutex_unlock(&c->lock);
	if (rc == 0)
		*list = &c->list;
	return rc;
}
