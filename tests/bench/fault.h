/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_BENCH_FAULT_H
#define GMEM_BENCH_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/node.h"
#include "image/image.h"

#define THREADS_MAX 4u

/* One touch: what is told to the toucher, and what it tells. */
struct touch {
	uint64_t offset; /* of the page, in the region */
	uint64_t want; /* the first word there */
	uint64_t ns; /* that it took */
	/* What a bare server needs to know: the record, and where the page is packed in it. */
	uint64_t record;
	uint32_t length, stored, rank;
};

/* Shared by all processes of a round: a file, mapped. */
struct plan {
	uint64_t size; /* of the region */
	uint32_t chunk_size, nthreads, n; /* touches of each thread */
	uint32_t gap_us; /* between touches */
	int32_t cpu[THREADS_MAX]; /* of each thread; -1: anywhere */
	uint64_t wall_ns[THREADS_MAX]; /* of all its touches */
	struct touch touches[];
};

static inline struct touch *
plan_of_thread(struct plan *p, unsigned thread)
{
	return p->touches + (size_t)thread * p->n;
}

enum order { ORDER_RANDOM, ORDER_SEQUENTIAL, ORDER_MIX };

/* ---- fault-plan.c ---- */

/* An image of a region of `gib` with `chunks` full chunks, spread all over it. */
void make_image(const char *path, unsigned gib, uint64_t chunks, uint32_t chunk_size);

/* Of stored pages only; random: each in a chunk of its own.  On return *path names its file. */
struct plan *plan_make(const struct image *img, enum order order, unsigned nthreads, unsigned n,
    uint64_t seed, char path[32]);
size_t plan_bytes(const struct plan *p);
struct plan *plan_map(const char *path);

/* ---- fault-touch.c ---- */

/* Touches all that the plan says in the memory of that path. */
int touch_memory(const char *memory, const char *plan);

/* The same on memory of its own, served by the least there is. */
enum bare { BARE_CONTINUE, BARE_DECODE, BARE_COPY };
void touch_bare(struct plan *p, enum bare how, int image_fd, const int *server_cpus);

/* Reading the records and decoding them up to the page: each touch's ns. */
void decode_bare(struct plan *p, int image_fd);

void pin_to(int cpu);

#endif
