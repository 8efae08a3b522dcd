/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/page-pool.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "format/layout.h"

int
page_pool_init(struct page_pool *p, size_t size, struct err *e)
{
	uint32_t n = (uint32_t)(size / PAGE_GRANULE);
	void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*p = (struct page_pool){ .size = size };
	pthread_mutex_init(&p->lock, NULL);
	if (bytes == MAP_FAILED)
		return err_sys(e, "%zu bytes for pages", size);
	p->bytes = bytes;
	p->free = calloc(n, sizeof(*p->free));
	if (p->free == NULL)
		return err_sys(e, "%zu bytes for pages", size);
	for (; p->nfree < n; p->nfree++)
		p->free[p->nfree] = n - 1 - p->nfree; /* the first ones are used first */
	return 0;
}

void
page_pool_fini(struct page_pool *p)
{
	if (p->bytes != NULL)
		munmap(p->bytes, p->size);
	free(p->free);
	p->bytes = NULL;
	p->free = NULL;
}

uint32_t
page_pool_take(struct page_pool *p)
{
	uint32_t slot = PAGE_POOL_NONE;

	pthread_mutex_lock(&p->lock);
	if (p->nfree != 0)
		slot = p->free[--p->nfree];
	p->wanted = slot == PAGE_POOL_NONE;
	pthread_mutex_unlock(&p->lock);
	return slot;
}

bool
page_pool_put(struct page_pool *p, uint32_t slot)
{
	bool wanted;

	pthread_mutex_lock(&p->lock);
	p->free[p->nfree++] = slot;
	wanted = p->wanted;
	p->wanted = false;
	pthread_mutex_unlock(&p->lock);
	return wanted;
}

uint8_t *
page_pool_at(const struct page_pool *p, uint32_t slot)
{
	return p->bytes + (size_t)slot * PAGE_GRANULE;
}
