/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/claims.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"

#define MAGIC UINT64_C(0x31736d69616c6367) /* "gclaims1" */
#define HEAD_BYTES 4096u /* what is behind it can be given back */
#define CLAIMS 4u /* bitmaps */

static size_t
file_bytes(uint64_t npages)
{
	return HEAD_BYTES + CLAIMS * bitmap_bytes(npages);
}

int
claims_create(uint64_t npages, int *fd, struct err *e)
{
	struct claims_head head = { .magic = MAGIC, .npages = npages };

	*fd = memfd_create("gmem-claims", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd != -1 && ftruncate(*fd, (off_t)file_bytes(npages)) == 0 &&
	    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 &&
	    fd_pwrite_full(*fd, &head, sizeof(head), 0, e) == 0)
		return 0;
	err_sys(e, "claims of %llu pages", (unsigned long long)npages);
	fd_close(fd);
	return -1;
}

/* What is written from now on it cannot lose by getting smaller. */
static int
check_file(int fd, uint64_t npages, struct err *e)
{
	struct stat st;
	int seals;

	if (fstat(fd, &st) == -1)
		return err_sys(e, "claims of %llu pages", (unsigned long long)npages);
	seals = fcntl(fd, F_GET_SEALS);
	/* Of a file that has no seals EINVAL is the answer. */
	if (seals == -1 && errno != EINVAL)
		return err_sys(e, "claims of %llu pages", (unsigned long long)npages);
	if ((uint64_t)st.st_size == file_bytes(npages) && seals != -1 &&
	    (seals & F_SEAL_SHRINK) != 0)
		return 0;
	return err_set(e, ERR_CORRUPT, "the descriptor is not the claims of %llu pages",
	    (unsigned long long)npages);
}

int
claims_init(struct claims *c, int fd, uint64_t npages, struct err *e)
{
	*c = (struct claims){ .fd = -1, .map = MAP_FAILED, .npages = npages };
	if (fd <= 0 && claims_create(npages, &c->fd, e) == -1)
		return -1;
	if (fd > 0 && check_file(fd, npages, e) == -1)
		return -1;
	if (fd > 0)
		c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (c->fd != -1)
		c->map = mmap(
		    NULL, file_bytes(npages), PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->map == MAP_FAILED) {
		err_sys(e, "claims of %llu pages", (unsigned long long)npages);
		claims_fini(c);
		return -1;
	}
	c->head = c->map;
	c->taken = (void *)((char *)c->map + HEAD_BYTES);
	c->given = c->taken + bitmap_bytes(npages) / sizeof(bitmap_word);
	c->bad = c->given + bitmap_bytes(npages) / sizeof(bitmap_word);
	c->doubted = c->bad + bitmap_bytes(npages) / sizeof(bitmap_word);
	if (c->head->magic == MAGIC && c->head->npages == npages)
		return 0;
	claims_fini(c);
	return err_set(e, ERR_CORRUPT, "the descriptor is not the claims of %llu pages",
	    (unsigned long long)npages);
}

void
claims_fini(struct claims *c)
{
	if (c->map != NULL && c->map != MAP_FAILED)
		munmap(c->map, file_bytes(c->npages));
	c->map = NULL;
	fd_close(&c->fd);
}

void
claims_set_how(struct claims *c, enum serve_engine engine, bool writes)
{
	c->head->engine = engine;
	c->head->writes = writes;
	atomic_store(&c->head->known, true);
}

void
claims_shed(struct claims *c)
{
	/* It is only memory: without this it is taken for longer. */
	if (c->map != NULL && c->map != MAP_FAILED && atomic_load(&c->head->complete))
		(void)madvise(
		    (char *)c->map + HEAD_BYTES, CLAIMS * bitmap_bytes(c->npages), MADV_REMOVE);
}

void
claims_close(struct claims *c)
{
	fd_close(&c->fd);
}

void
claims_settle(struct claims *c)
{
	size_t nwords = bitmap_bytes(c->npages) / sizeof(bitmap_word);

	for (size_t i = 0; i < nwords; i++) {
		uint64_t taken = atomic_load(&c->taken[i]), given = atomic_load(&c->given[i]);
		uint64_t bad = atomic_load(&c->bad[i]) & taken;

		if (taken == (given | bad))
			continue;
		/* First, and for good: the next server may die before it has looked at one. */
		atomic_fetch_or(&c->doubted[i], taken & ~given & ~bad);
		atomic_store(&c->taken[i], given | bad);
	}
}
