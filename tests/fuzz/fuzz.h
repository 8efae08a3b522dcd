/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_FUZZ_H
#define GMEM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * A fuzz target is a function.  With --enable-fuzzers it is linked with libFuzzer, else with
 * replay.c, which feeds it the seeds.  What must hold is said with must(); fuzz.c sees to it
 * that no input costs more memory than SECURITY.md allows.  Returns 0.
 */
int fuzz_one(const uint8_t *data, size_t size);

/* What libFuzzer and replay.c call (fuzz.c). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A decoder may have this much at any moment, in all: bytes. */
#define FUZZ_MEMORY(size) (16 * (size) + (1 << 20))

#define must(condition)                                                                        \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			fprintf(                                                               \
			    stderr, "%s:%d: must be: %s\n", __FILE__, __LINE__, #condition);   \
			abort();                                                               \
		}                                                                              \
	} while (0)

/* How many of the first 256 descriptors are open. */
unsigned fuzz_count_fds(void);

/* A new memory object with these bytes; the caller's. */
int fuzz_memfd(const void *bytes, size_t size);

#endif
