/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_FUZZ_H
#define GMEM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 * A fuzz target.  With --enable-fuzzers it is linked with libFuzzer, else with
 * replay.c, which feeds it the seeds.  What must hold is said with must().
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                                        \
	do {                                                                                   \
		if (!(condition))                                                              \
			abort();                                                               \
	} while (0)

#endif
