/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_TESTS_FUZZ_H
#define GMEM_TESTS_FUZZ_H

#include <stdbool.h>
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

/* And the target itself, which is more than a decoder, so much; 0 unless it says so. */
extern size_t fuzz_memory_more;

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

/* What is printed from here on goes nowhere, until fuzz_loud. */
void fuzz_quiet(void);
void fuzz_loud(void);

/* ---- an input, from its beginning to its end: zeros behind that ---- */

struct fuzz_in {
	const uint8_t *p;
	size_t left;
};

unsigned fuzz_byte(struct fuzz_in *in);
unsigned fuzz_u16(struct fuzz_in *in); /* little endian */

/* Up to len bytes, borrowed, their number in *len. */
const void *fuzz_take(struct fuzz_in *in, size_t *len);

/* ---- conversations ---- */

/*
 * Two connected sockets.  All that the peer will say is put into its end before anybody
 * listens, and that end closed for writing, so that nobody waits.
 */
void fuzz_pair(int type, int ends[2]);

/* Sends without waiting: false when there is no room, or nobody there. */
bool fuzz_send(int sock, const void *bytes, size_t len, const int *fds, size_t nfds);

/*
 * One packet of an input that is a list of them: how many descriptors, from which of the four
 * on, its length in two bytes, itself.  Shorter ones (bit 7 of the second byte) get zeros
 * behind them up to a struct gmem_message.  False at the end, or as fuzz_send.
 */
#define FUZZ_FDS 4
bool fuzz_send_packet(int sock, struct fuzz_in *in, const int fds[FUZZ_FDS], size_t whole);

/* Descriptors for it, which stay: memory of 16 MiB, a short file, /dev/null, a pipe. */
const int *fuzz_fds(void);

#endif
