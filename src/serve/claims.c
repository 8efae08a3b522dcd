/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/claims.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/fdio.h"
#include "memory/served.h"

int
claims_init(struct claims *c, uint64_t npages, struct err *e)
{
	size_t len = bitmap_bytes(npages);

	*c = (struct claims){ .fd = -1, .map = MAP_FAILED, .npages = npages };
	c->fd = memfd_create(MEMORY_CLAIMS, MFD_CLOEXEC);
	if (c->fd == -1 || ftruncate(c->fd, (off_t)(2 * len)) == -1)
		goto fail;
	c->map = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->map == MAP_FAILED)
		goto fail;
	c->taken = c->map;
	c->given = c->taken + len / sizeof(bitmap_word);
	return 0;
fail:
	err_sys(e, "claims of %llu pages", (unsigned long long)npages);
	claims_fini(c);
	return -1;
}

void
claims_fini(struct claims *c)
{
	if (c->map != NULL && c->map != MAP_FAILED)
		munmap(c->map, 2 * bitmap_bytes(c->npages));
	c->map = NULL;
	fd_close(&c->fd);
}

void
claims_shed(struct claims *c)
{
	/* It is only memory: without this it is taken for longer. */
	if (c->map != NULL && c->map != MAP_FAILED)
		(void)madvise(c->map, 2 * bitmap_bytes(c->npages), MADV_REMOVE);
}

void
claims_close(struct claims *c)
{
	fd_close(&c->fd);
}
