/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Measurements that need the page server inside: both sides of every ratio in
 * one process, interleaved, medians.  Prints "name value unit" lines.
 *
 *	gmem-bench fault IMAGE	demand faults against the bare mechanism
 *	gmem-bench eager IMAGE	filling everything against its two halves
 *	gmem-bench open SMALL LARGE	opening images
 *	gmem-bench sparse FILE GIB	makes an image of a region with two pages
 *	gmem-bench scan RAW CHUNK	a bare scan-and-compress loop
 *	gmem-bench touch MEM all|one	plays a VMM: reads every page, or one of the
 *				last chunk: the first of all is there
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "image/pack.h"
#include "image/reader.h"
#include "image/writer.h"
#include "serve/server.h"
#include "serve/uffd.h"

#define ROUNDS 7
#define FAULTS 2000u /* per round and side */
#define MIB_STEP ((size_t)1 << 20)

static struct err e;

static void
must(int rc)
{
	if (rc == -1)
		errx(1, "%s", e.msg);
}

static void *
must_map(size_t len, int prot, int flags, int fd)
{
	void *p = mmap(NULL, len, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
quantile(double *v, size_t n, double q)
{
	qsort(v, n, sizeof(*v), compare);
	return v[(size_t)((double)(n - 1) * q)];
}

static double
since(uint64_t began)
{
	return (double)(serve_now() - began);
}

static void
pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == -1)
		err(1, "pin to CPU %d", cpu);
}

/* A page that is stored, in each chunk that stores any; in random order. */
struct target {
	uint64_t chunk;
	uint32_t page, rank;
	struct entry entry;
};

static struct target *
pick_targets(struct image_reader *r, const struct object *o, uint32_t npages, size_t *n)
{
	struct target *list = NULL;
	uint64_t chunk = 0, seed = 7;
	struct entry en;
	size_t cap = 0;

	*n = 0;
	while (image_reader_next(r, o, chunk, &chunk, &en, &e) == 1) {
		uint32_t rank, page;

		if (en.length == 0) { /* all of it is hot */
			chunk++;
			continue;
		}
		if (*n == cap) {
			cap = cap * 2 + 1024;
			list = realloc(list, cap * sizeof(*list));
			if (list == NULL)
				err(1, "targets");
		}
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		rank = (uint32_t)(seed >> 33) % image_reader_stored(r, &en);
		for (page = 0; page < npages; page++)
			if (entry_is_stored(&en, page) && entry_rank(&en, page) == rank)
				break;
		list[(*n)++] = (struct target){ chunk++, page, rank, en };
	}
	for (size_t i = *n; i > 1; i--) {
		struct target t = list[i - 1];
		size_t k;

		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		k = (seed >> 33) % i;
		list[i - 1] = list[k];
		list[k] = t;
	}
	return list;
}

/* ---- faults ---- */

struct floor_handler {
	int uffd, mem;
	const uint8_t *base;
	const uint8_t *raw; /* one page, locked */
};

/* The bare mechanism: read, pwrite a raw page, continue. */
static void *
floor_main(void *arg)
{
	struct floor_handler *h = arg;
	struct uffd_fault f;
	uint64_t done;

	while (uffd_read(h->uffd, &f, 1, &e) == 1) {
		uint64_t off = align_down(f.hva - (uintptr_t)h->base, 4096);

		if (off == 0)
			break; /* the agreed end */
		if (pwrite(h->mem, h->raw, 4096, (off_t)off) != 4096 ||
		    uffd_continue(h->uffd, (uintptr_t)h->base + off, 4096, 4096, &done, &e) !=
			UFFD_DONE)
			errx(1, "floor: %s", e.msg);
	}
	uffd_unregister(h->uffd, (uintptr_t)h->base, 4096, &e);
	return NULL;
}

static void
touch_all(const volatile uint8_t *base, const struct target *t, size_t n, uint32_t chunk_size,
    double *ns)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t began = serve_now();

		(void)base[t[i].chunk * chunk_size + (uint64_t)t[i].page * 4096];
		ns[i] = since(began);
	}
}

static void
floor_round(const struct image *img, const struct object *o, const struct target *t, size_t n,
    double *ns)
{
	struct floor_handler h;
	uint64_t features;
	pthread_t thread;
	uint8_t *base;

	h.mem = memfd_create("floor", MFD_CLOEXEC);
	if (h.mem == -1 || ftruncate(h.mem, (off_t)(o->size + 4096)) == -1)
		err(1, "memfd");
	h.raw = must_map(4096, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1);
	/* One page more in front: touching it ends the handler. */
	base = must_map(o->size + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, h.mem);
	h.base = base;
	must(uffd_create(&h.uffd, &e));
	must(uffd_handshake(h.uffd, &features, &e));
	must(uffd_register(h.uffd, (uintptr_t)base, o->size + 4096, &e));
	pthread_create(&thread, NULL, floor_main, &h);
	touch_all(base + 4096, t, n, img->g.chunk_size, ns);
	(void)*(volatile uint8_t *)base;
	pthread_join(thread, NULL);
	close(h.uffd);
	munmap(base, o->size + 4096);
	munmap((void *)(uintptr_t)h.raw, 4096);
	close(h.mem);
}

static void
server_round(const struct image *img, const struct object *o, const struct target *t, size_t n,
    double *ns)
{
	const struct server_options options = { .nworkers = 1 };
	struct served_memory memory = { .page_size = 4096, .bitmap = -1 };
	struct server *s;
	unsigned id;
	uint8_t *base;
	int mem, uffd;

	mem = memfd_create("served", MFD_CLOEXEC);
	if (mem == -1 || ftruncate(mem, (off_t)o->size) == -1)
		err(1, "memfd");
	base = must_map(o->size, PROT_READ | PROT_WRITE, MAP_SHARED, mem);
	memory.fd = mem;
	must(server_new(&s, img, &options, &e));
	must(server_add_memory(s, 0, &memory, &e));
	must(uffd_create(&uffd, &e));
	must(server_add_process(s, uffd, &id, &e));
	must(server_add_mapping(s, id, (uintptr_t)base, o->size, 0, 0, &e));
	touch_all(base, t, n, img->g.chunk_size, ns);
	server_free(s);
	munmap(base, o->size);
	close(mem);
}

/* Reading a record and decoding it up to one page. */
static void
decode_round(struct image_reader *r, const struct object *o, const struct target *t, size_t n,
    double *ns)
{
	const uint8_t *page;

	for (size_t i = 0; i < n; i++) {
		uint64_t began = serve_now();

		must(image_reader_load(r, o, t[i].chunk, &t[i].entry, &e));
		must(image_reader_page(r, t[i].rank, &page, &e));
		ns[i] = since(began);
	}
}

static void
bench_fault(const char *path)
{
	double *sides[3], p50[3][ROUNDS], p99[3][ROUNDS], ratio[ROUNDS];
	struct image_reader *r;
	struct image *img;
	const struct object *o;
	struct target *t;
	size_t n;

	pin(0);
	must(image_open(&img, path, &e));
	must(image_reader_new(&r, img, &e));
	o = &img->manifest.regions[0];
	t = pick_targets(r, o, img->g.pages, &n);
	n = MIN(n, FAULTS);
	for (int i = 0; i < 3; i++)
		sides[i] = calloc(n, sizeof(double));
	for (int round = 0; round < ROUNDS; round++) {
		floor_round(img, o, t, n, sides[0]);
		decode_round(r, o, t, n, sides[1]);
		server_round(img, o, t, n, sides[2]);
		for (int i = 0; i < 3; i++) {
			p50[i][round] = quantile(sides[i], n, 0.5) / 1e3;
			p99[i][round] = quantile(sides[i], n, 0.99) / 1e3;
		}
		ratio[round] = p50[2][round] / (p50[0][round] + p50[1][round]);
	}
	printf("fault_floor_p50 %.2f us\n", quantile(p50[0], ROUNDS, 0.5));
	printf("fault_decode_p50 %.2f us\n", quantile(p50[1], ROUNDS, 0.5));
	printf("fault_p50 %.2f us\n", quantile(p50[2], ROUNDS, 0.5));
	printf("fault_floor_p99 %.2f us\n", quantile(p99[0], ROUNDS, 0.5));
	printf("fault_p99 %.2f us\n", quantile(p99[2], ROUNDS, 0.5));
	printf("fault_ratio %.3f x\n", quantile(ratio, ROUNDS, 0.5));
	image_reader_free(r);
	image_close(img);
}

/* ---- eager ---- */

struct half {
	const struct image *img;
	const struct object *o;
	int mem; /* -1: decode only */
	bool decode;
	atomic_ullong *next;
};

static void *
half_main(void *arg)
{
	struct half *h = arg;
	static const uint8_t page[CHUNK_SIZE_MAX];
	uint64_t span = (4u << 20) / h->img->g.chunk_size, first, chunk;
	struct image_reader *r;
	struct err mine;
	struct entry en;

	if (image_reader_new(&r, h->img, &mine) == -1)
		errx(1, "%s", mine.msg);
	while ((first = atomic_fetch_add(h->next, span)) < image_chunks(h->img, h->o)) {
		uint64_t end = first + span;

		while (
		    image_reader_next(r, h->o, first, &chunk, &en, &mine) == 1 && chunk < end) {
			uint32_t stored = image_reader_stored(r, &en);
			const uint8_t *pages;

			if (h->decode && stored != 0 &&
			    (image_reader_load(r, h->o, chunk, &en, &mine) == -1 ||
				image_reader_pages(r, stored, &pages, &mine) == -1))
				errx(1, "%s", mine.msg);
			if (!h->decode && pwrite(h->mem, page, (size_t)stored * 4096,
					      (off_t)(chunk * h->img->g.chunk_size)) == -1)
				err(1, "pwrite");
			first = chunk + 1;
		}
	}
	image_reader_free(r);
	return NULL;
}

static double
half_round(const struct image *img, const struct object *o, bool decode, unsigned nthreads)
{
	struct half h = { img, o, -1, decode, NULL };
	atomic_ullong next = 0;
	pthread_t threads[64];
	uint64_t began;
	double ns;

	h.next = &next;
	h.mem = memfd_create("half", MFD_CLOEXEC);
	if (h.mem == -1 || ftruncate(h.mem, (off_t)o->size) == -1)
		err(1, "memfd");
	began = serve_now();
	for (unsigned i = 0; i < nthreads; i++)
		pthread_create(&threads[i], NULL, half_main, &h);
	for (unsigned i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
	ns = since(began);
	close(h.mem);
	return ns;
}

static double
eager_round(const struct image *img, const struct object *o, unsigned nthreads)
{
	const struct server_options options = {
		.nworkers = 1, .nfillers = nthreads, .engine = SERVE_EAGER
	};
	struct served_memory memory = { .page_size = 4096, .bitmap = -1 };
	struct server *s;
	uint64_t began;
	double ns;
	int mem;

	mem = memfd_create("eager", MFD_CLOEXEC);
	if (mem == -1 || ftruncate(mem, (off_t)o->size) == -1)
		err(1, "memfd");
	memory.fd = mem;
	began = serve_now();
	must(server_new(&s, img, &options, &e));
	must(server_add_memory(s, 0, &memory, &e));
	ns = since(began);
	server_free(s);
	close(mem);
	return ns;
}

static void
bench_eager(const char *path)
{
	unsigned nthreads = MIN(pool_ncpus(), 64);
	double ns[3][ROUNDS], ratio[ROUNDS], bytes;
	const struct object *o;
	struct image *img;

	must(image_open(&img, path, &e));
	o = &img->manifest.regions[0];
	bytes = (double)o->top.stored * 4096;
	for (int round = 0; round < ROUNDS; round++) {
		ns[0][round] = half_round(img, o, true, nthreads);
		ns[1][round] = half_round(img, o, false, nthreads);
		ns[2][round] = eager_round(img, o, nthreads);
		ratio[round] = (ns[0][round] + ns[1][round]) / ns[2][round];
	}
	printf("eager_decode %.3f GB/s\n", bytes / quantile(ns[0], ROUNDS, 0.5));
	printf("eager_install %.3f GB/s\n", bytes / quantile(ns[1], ROUNDS, 0.5));
	printf("eager %.3f GB/s\n", bytes / quantile(ns[2], ROUNDS, 0.5));
	printf("eager_ms %.1f ms\n", quantile(ns[2], ROUNDS, 0.5) / 1e6);
	printf("eager_ratio %.3f x\n", quantile(ratio, ROUNDS, 0.5));
	image_close(img);
}

/* ---- the rest ---- */

static double
open_round(const char *path)
{
	uint64_t began = serve_now();
	struct image *img;

	for (int i = 0; i < 200; i++) {
		must(image_open(&img, path, &e));
		image_close(img);
	}
	return since(began) / 200;
}

static void
bench_open(const char *small, const char *large)
{
	double ns[2][ROUNDS];

	for (int round = 0; round < ROUNDS; round++) {
		ns[0][round] = open_round(small);
		ns[1][round] = open_round(large);
	}
	printf("open_small %.1f us\n", quantile(ns[0], ROUNDS, 0.5) / 1e3);
	printf("open_large %.1f us\n", quantile(ns[1], ROUNDS, 0.5) / 1e3);
	printf(
	    "open_ratio %.3f x\n", quantile(ns[1], ROUNDS, 0.5) / quantile(ns[0], ROUNDS, 0.5));
}

static void
make_sparse(const char *path, uint64_t gib)
{
	const struct image_params params = {
		.chunk_size = CHUNK_SIZE_DEFAULT, .level = 1, .replace = true
	};
	struct object o = {
		.name = "ram0", .kind = "memfd", .size = gib << 30, .page_size = 4096
	};
	uint8_t *chunk = calloc(1, CHUNK_SIZE_DEFAULT), *record, root[DIGEST_SIZE];
	struct image_writer *w;
	struct packer *p;
	struct entry en;

	must(image_writer_new(&w, path, &params, &e));
	must(packer_new(&p, image_writer_geometry(w), 1, &e));
	record = malloc(packer_bound(image_writer_geometry(w)));
	memset(chunk, 0x42, 4096);
	must(image_writer_begin(w, &o, false, &e));
	must(packer_pack(p, chunk, CHUNK_SIZE_DEFAULT, &en, record, &e));
	must(image_writer_chunk(w, 0, &en, record, &e));
	must(image_writer_chunk(w, (o.size - 1) / CHUNK_SIZE_DEFAULT, &en, record, &e));
	must(image_writer_end(w, 0, &e));
	must(image_writer_commit(w, root, &e));
	image_writer_free(w);
	packer_free(p);
	free(record);
	free(chunk);
}

struct scan {
	const uint8_t *mem;
	size_t len;
	struct geometry g;
	atomic_size_t next;
	atomic_size_t bytes;
};

static void *
scan_main(void *arg)
{
	struct scan *s = arg;
	struct err mine;
	struct packer *p;
	struct entry en;
	uint8_t *record = malloc(packer_bound(&s->g));
	size_t at;

	if (packer_new(&p, &s->g, 1, &mine) == -1)
		errx(1, "%s", mine.msg);
	while ((at = atomic_fetch_add(&s->next, MIB_STEP)) < s->len)
		for (size_t off = at; off < MIN(at + MIB_STEP, s->len);
		     off += s->g.chunk_size) {
			if (packer_pack(p, s->mem + off, MIN(s->len - off, s->g.chunk_size),
				&en, record, &mine) == -1)
				errx(1, "%s", mine.msg);
			atomic_fetch_add(&s->bytes, en.length);
		}
	packer_free(p);
	free(record);
	return NULL;
}

/* All cores scan and compress the same pages, from a mapping, to nowhere. */
static void
bench_scan(const char *path, uint32_t chunk_size)
{
	unsigned nthreads = MIN(pool_ncpus(), 64);
	pthread_t threads[64];
	struct scan s = { 0 };
	uint64_t began;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd == -1)
		err(1, "%s", path);
	began = serve_now();
	s.len = (size_t)lseek(fd, 0, SEEK_END);
	s.mem = must_map(s.len, PROT_READ, MAP_SHARED, fd);
	must(geometry_init(&s.g, chunk_size, &e));
	for (unsigned i = 0; i < nthreads; i++)
		pthread_create(&threads[i], NULL, scan_main, &s);
	for (unsigned i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
	printf("scan_ms %.1f ms\n", since(began) / 1e6);
}

static void
touch(const char *path, bool all)
{
	int fd = open(path, O_RDWR);
	const volatile uint8_t *mem;
	size_t len, off = 0;

	if (fd == -1)
		err(1, "%s", path);
	len = (size_t)lseek(fd, 0, SEEK_END);
	mem = must_map(len, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	/* gmem-restore finds out by putting the first page there how that is done. */
	if (!all)
		off = len = align_down(len - 1, CHUNK_SIZE_DEFAULT);
	for (; off < len + !all; off += 4096)
		(void)mem[off];
}

int
main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "fault") == 0)
		bench_fault(argv[2]);
	else if (argc == 3 && strcmp(argv[1], "eager") == 0)
		bench_eager(argv[2]);
	else if (argc == 4 && strcmp(argv[1], "open") == 0)
		bench_open(argv[2], argv[3]);
	else if (argc == 4 && strcmp(argv[1], "sparse") == 0)
		make_sparse(argv[2], strtoull(argv[3], NULL, 10));
	else if (argc == 4 && strcmp(argv[1], "scan") == 0)
		bench_scan(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
	else if (argc == 4 && strcmp(argv[1], "touch") == 0)
		touch(argv[2], strcmp(argv[3], "all") == 0);
	else
		errx(2, "usage: see the head of bench.c");
	return 0;
}
