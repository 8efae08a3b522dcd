/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "fuzz.h"
#include "vmm/qemu/mapped.h"

/* A mapped-ram file: what can be opened has regions that can be read, and a state. */

static int
sink(void *arg, const void *buf, size_t len, struct err *e)
{
	size_t *n = arg;

	(void)buf;
	*n += len;
	return *n < (size_t)64 << 20 ? 0 : err_set(e, ERR_FAILED, "too much");
}

/* All that is there of a region, by the bitmap. */
static void
read_region(struct qemu_mapped *m, size_t i)
{
	static uint8_t buf[65536];
	struct memory_source *src;
	struct err e = ERR_INIT;
	uint64_t start, end = 0, n;
	unsigned pieces = 0;

	if (qemu_mapped_source(m, i, &src, &e) == -1) {
		must(e.kind == ERR_CORRUPT || e.kind == ERR_SYS);
		return;
	}
	while (pieces < 64 && memory_source_next(src, end, &start, &end, &e) == 1) {
		must(start < end && end <= memory_source_size(src));
		for (uint64_t at = start; at < end && pieces < 64; at += n, pieces++) {
			n = MIN(end - at, (uint64_t)sizeof(buf));
			must(memory_source_read(src, buf, (size_t)n, at, &e) == 0);
		}
	}
	memory_source_free(src);
}

static void
try(const char *path)
{
	struct err e = ERR_INIT;
	struct qemu_mapped *m;
	size_t n, len = 0;

	if (qemu_mapped_open(&m, path, NULL, 0, &e) == -1) {
		must(e.kind != ERR_NONE && e.kind != ERR_SYS);
		return;
	}
	must(qemu_mapped_regions(m, &n) != NULL && n > 0);
	for (size_t i = 0; i < n; i++)
		read_region(m, i);
	if (qemu_mapped_state(m, sink, &len, &e) == 0)
		must(len > 0);
	else
		must(e.kind == ERR_CORRUPT || e.kind == ERR_FAILED);
	qemu_mapped_close(m);
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	int fd = memfd_create("mapped", MFD_CLOEXEC);
	char path[32];

	must(fd != -1);
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		try(path);
	}
	close(fd);
	return 0;
}
