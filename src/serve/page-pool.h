/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_SERVE_PAGE_POOL_H
#define GMEM_SERVE_PAGE_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Room for a bounded number of pages of 4 KiB; one thread takes, any give back. */
struct page_pool {
	uint8_t *bytes; /* owned; touched as far as needed */
	size_t size;
	uint32_t *free; /* a stack of slots; owned */
	uint32_t nfree;
	bool wanted; /* nothing was free when one was wanted */
	pthread_mutex_t lock;
};

#define PAGE_POOL_NONE UINT32_MAX

/* size: bytes. */
int page_pool_init(struct page_pool *p, size_t size, struct err *e);
void page_pool_fini(struct page_pool *p);

/* A slot, or PAGE_POOL_NONE. */
uint32_t page_pool_take(struct page_pool *p);

/* True: the taker had found nothing before, and should be told. */
bool page_pool_put(struct page_pool *p, uint32_t slot);

/* Its 4 KiB. */
uint8_t *page_pool_at(const struct page_pool *p, uint32_t slot);

#endif
