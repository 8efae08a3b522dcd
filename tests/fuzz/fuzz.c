/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "fuzz.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

/*
 * Between libFuzzer (or replay.c) and a target: counts what an input has allocated and not
 * freed yet, where a sanitizer tells, and ends the target when that is more than is allowed.
 */
extern int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
    void (*)(const volatile void *)) __attribute__((weak));
extern size_t __sanitizer_get_allocated_size(const volatile void *) __attribute__((weak));

static atomic_bool counting;
static atomic_size_t live; /* bytes; below 0 when something older was freed */
static size_t limit;

static void
on_malloc(const volatile void *p, size_t size)
{
	size_t now;

	(void)p;
	if (!atomic_load(&counting))
		return;
	now = atomic_fetch_add(&live, size) + size;
	if (now <= limit || now > SIZE_MAX / 2)
		return;
	atomic_store(&counting, false);
	fprintf(stderr, "the target has %zu bytes, %zu of them just now: allowed are %zu\n",
	    now, size, limit);
	abort();
}

static void
on_free(const volatile void *p)
{
	if (p != NULL && atomic_load(&counting))
		atomic_fetch_sub(&live, __sanitizer_get_allocated_size(p));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	int rc;

	if (!ready && __sanitizer_install_malloc_and_free_hooks != NULL)
		__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
	if (!ready)
		log_setup("fuzz", LOG_LEVEL_ERROR);
	ready = true;
	limit = FUZZ_MEMORY(size);
	atomic_store(&live, 0);
	atomic_store(&counting, true);
	rc = fuzz_one(data, size);
	atomic_store(&counting, false);
	return rc;
}

unsigned
fuzz_count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

int
fuzz_memfd(const void *bytes, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd != -1 && pwrite(fd, bytes, size, 0) == (ssize_t)size);
	return fd;
}
