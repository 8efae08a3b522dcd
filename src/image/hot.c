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
	bool loaded; /* the table is there, and does not change any more */
	struct hot_table table;
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
	hot_table_free(&c->table);
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
check_page(const struct hot_table *t, const struct hot_page *p, struct err *e)
{
	if (p->region >= t->nregions)
		return err_set(e, ERR_CORRUPT, "region %u of %zu", p->region, t->nregions);
	if (p->page >= div_up(t->regions[p->region].size, PAGE_GRANULE))
		return err_set(e, ERR_CORRUPT, "page %llu is behind the end of %s",
		    (unsigned long long)p->page, t->regions[p->region].name);
	return 0;
}

/* Takes the next page of the list, whose fields are set. */
static int
add_page(struct hot_table *t, struct err *e)
{
	const struct hot_page *p = &t->pages[t->list.n];
	uint32_t slot;

	if (check_page(t, p, e) == -1)
		return err_wrap(e, "entry %zu", t->list.n);
	slot = find_slot(&t->list, p->region, p->page);
	if (t->slots[slot] != HOT_ZERO)
		return err_set(e, ERR_CORRUPT, "entries %u and %zu are the same page",
		    t->slots[slot], t->list.n);
	t->slots[slot] = (uint32_t)t->list.n++;
	return 0;
}

int
hot_table_new(
    struct hot_table *t, const struct object *regions, size_t nregions, size_t n, struct err *e)
{
	uint32_t nslots = 2;

	while (nslots < 2 * n)
		nslots *= 2;
	*t = (struct hot_table){ .regions = regions, .nregions = nregions, .room = n };
	t->pages = malloc(n * sizeof(*t->pages));
	t->slots = malloc(nslots * sizeof(*t->slots));
	if (t->pages == NULL || t->slots == NULL) {
		hot_table_free(t);
		return err_sys(e, "hot table");
	}
	for (uint32_t i = 0; i < nslots; i++)
		t->slots[i] = HOT_ZERO;
	t->list.pages = t->pages;
	t->list.slots = t->slots;
	t->list.nslots = nslots;
	return 0;
}

void
hot_table_free(struct hot_table *t)
{
	free(t->pages);
	free(t->slots);
	*t = (struct hot_table){ 0 };
}

int
hot_table_add(struct hot_table *t, const uint8_t *entries, size_t n, struct err *e)
{
	for (size_t i = 0; i < n && t->list.n < t->room; i++) {
		hot_decode(&t->pages[t->list.n], le64dec(entries + i * HOT_ENTRY_SIZE),
		    &t->list.nstored);
		if (add_page(t, e) == -1)
			return -1;
	}
	return 0;
}

static int
read_table(const struct image *img, struct hot_table *t, struct image_reader *r, struct err *e)
{
	const struct object *table = &img->manifest.hot->table;
	const struct object *stored = &img->manifest.hot->pages;
	uint8_t buf[PAGE_GRANULE];

	for (uint64_t off = 0; off < table->size; off += sizeof(buf)) {
		size_t len = MIN(table->size - off, sizeof(buf));

		if (image_reader_read(r, table, off, buf, len, e) == -1)
			return -1;
		if (hot_table_add(t, buf, len / HOT_ENTRY_SIZE, e) == -1)
			return err_wrap(e, "%s: %s", img->path, table->name);
	}
	if (t->list.nstored != stored->size / PAGE_GRANULE)
		return err_set(e, ERR_CORRUPT, "%s: %s: %u pages are not zero, %llu are stored",
		    img->path, table->name, t->list.nstored,
		    (unsigned long long)(stored->size / PAGE_GRANULE));
	t->list.object = t->list.nstored != 0 ? stored : NULL;
	return 0;
}

static int
load(const struct image *img, struct hot_table *t, struct err *e)
{
	const struct manifest *m = &img->manifest;
	size_t n = m->hot->table.size / HOT_ENTRY_SIZE; /* manifest_check */
	struct image_reader *r;
	int rc;

	if (image_reader_new(&r, img, e) == -1)
		return -1;
	rc = hot_table_new(t, m->regions, m->nregions, n, e);
	if (rc == 0 && read_table(img, t, r, e) == -1) {
		hot_table_free(t);
		rc = -1;
	}
	image_reader_free(r);
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
		rc = load(img, &c->table, e);
	c->loaded = rc == 0;
	pthread_mutex_unlock(&c->lock);
	if (rc == 0)
		*list = &c->table.list;
	return rc;
}
