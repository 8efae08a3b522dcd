/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * gmem-bench-replay IMAGE [THREADS]: filling memory against its two halves, each bare.
 *
 * Of an image with hot pages they are replayed, zeros too, else all of it; and all of it is
 * filled eagerly.  The halves: all threads decode the same chunks into a buffer; all threads
 * put the same pages into a memfd, sorted by half a MiB, by pwrite(2) and by UFFDIO_COPY into a
 * mapping of their own.  Interleaved, medians; prints "name value unit" lines.
 */
#include <err.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "image/hot.h"
#include "image/reader.h"
#include "serve/server.h"
#include "serve/uffd.h"

#define ROUNDS 7
#define BATCH 128u /* pages */
#define THREADS_MAX 64u

enum how { PWRITE, COPY };

struct work {
	const struct image *img;
	const struct object *object; /* whose chunks are decoded */
	uint64_t *pages; /* where they belong, in their order */
	size_t npages;
	uint64_t size; /* of the memory */
	int mem, uffd;
	uint8_t *map;
	enum how how;
	unsigned nthreads;
	atomic_size_t next;
};

static struct err e;

static void
must(int rc)
{
	if (rc == -1)
		errx(1, "%s", e.msg);
}

static int
compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), compare_double);
	return v[ROUNDS / 2];
}

static int
compare_page(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* ---- what there is to do ---- */

static void
add(struct work *w, uint64_t page, size_t *max)
{
	if (w->npages == *max) {
		*max = *max * 2 + 1024;
		w->pages = realloc(w->pages, *max * sizeof(*w->pages));
		if (w->pages == NULL)
			err(1, "pages");
	}
	w->pages[w->npages++] = page;
}

static void
collect_all(struct work *w, size_t *max)
{
	struct image_reader *r;
	uint64_t chunk = 0;
	struct entry en;

	must(image_reader_new(&r, w->img, &e));
	while (image_reader_next(r, w->object, chunk, &chunk, &en, &e) == 1) {
		for (uint32_t i = 0; i < w->img->g.pages; i++)
			if (entry_is_stored(&en, i))
				add(w, chunk * w->img->g.pages + i, max);
		chunk++;
	}
	image_reader_free(r);
}

static void
collect(struct work *w, const struct hot_list *hot)
{
	size_t max = 0;

	w->size = w->img->manifest.regions[0].size;
	w->object = hot != NULL ? hot->object : &w->img->manifest.regions[0];
	if (hot == NULL)
		collect_all(w, &max);
	for (size_t i = 0; hot != NULL && i < hot->n; i++)
		if (hot->pages[i].region == 0)
			add(w, hot->pages[i].page, &max);
}

/* ---- the halves ---- */

static void *
decode_main(void *arg)
{
	struct work *w = arg;
	uint64_t n = image_chunks(w->img, w->object),
		 span = MAX((1u << 20) / w->img->g.chunk_size, 1);
	struct image_reader *r;
	const uint8_t *pages;
	struct err mine;
	struct entry en;
	uint64_t at;

	if (image_reader_new(&r, w->img, &mine) == -1)
		errx(1, "%s", mine.msg);
	while ((at = atomic_fetch_add(&w->next, span)) < n)
		for (uint64_t end = MIN(at + span, n); at < end; at++) {
			if (image_reader_entry(r, w->object, at, &en, &mine) == -1)
				errx(1, "%s", mine.msg);
			if (en.length != 0 &&
			    (image_reader_load(r, w->object, at, &en, &mine) == -1 ||
				image_reader_pages(
				    r, image_reader_stored(r, &en), &pages, &mine) == -1))
				errx(1, "%s", mine.msg);
		}
	image_reader_free(r);
	return NULL;
}

static void
install(struct work *w, const uint8_t *buf, uint64_t page, size_t n)
{
	uint64_t off = page * 4096, done;
	struct err mine;

	if (w->how == PWRITE) {
		if (pwrite(w->mem, buf, n * 4096, (off_t)off) != (ssize_t)(n * 4096))
			err(1, "pwrite");
	} else if (uffd_copy(w->uffd, (uintptr_t)w->map + off, buf, n * 4096, &done, &mine) !=
		       UFFD_DONE ||
		   done != n * 4096) {
		errx(1, "UFFDIO_COPY: %s", mine.msg);
	}
}

static void *
install_main(void *arg)
{
	struct work *w = arg;
	uint8_t *buf = mmap(NULL, BATCH * 4096, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t pages[BATCH];
	size_t at;

	if (buf == MAP_FAILED)
		err(1, "mmap");
	memset(buf, 0x5a, BATCH * 4096);
	while ((at = atomic_fetch_add(&w->next, BATCH)) < w->npages) {
		size_t n = MIN(BATCH, w->npages - at), run;

		memcpy(pages, &w->pages[at], n * sizeof(*pages));
		qsort(pages, n, sizeof(*pages), compare_page);
		for (size_t i = 0; i < n; i += run) {
			for (run = 1; i + run < n && pages[i + run] == pages[i] + run;)
				run++;
			install(w, buf + i * 4096, pages[i], run);
		}
	}
	munmap(buf, BATCH * 4096);
	return NULL;
}

static double
run_threads(struct work *w, void *(*run)(void *))
{
	pthread_t threads[THREADS_MAX];
	uint64_t began = serve_now();

	w->next = 0;
	for (unsigned i = 0; i < w->nthreads; i++)
		if (pthread_create(&threads[i], NULL, run, w) != 0)
			errx(1, "thread");
	for (unsigned i = 0; i < w->nthreads; i++)
		pthread_join(threads[i], NULL);
	return (double)(serve_now() - began);
}

static int
new_memory(uint64_t size)
{
	int fd = memfd_create("replay", MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		err(1, "memfd");
	return fd;
}

static double
install_round(struct work *w, enum how how)
{
	uint64_t features;
	double ns;

	w->how = how;
	w->mem = new_memory(w->size);
	w->map = mmap(NULL, w->size, PROT_READ | PROT_WRITE, MAP_SHARED, w->mem, 0);
	if (w->map == MAP_FAILED)
		err(1, "mmap");
	must(uffd_create(&w->uffd, &e));
	must(uffd_handshake(w->uffd, &features, &e));
	must(uffd_register_missing(w->uffd, (uintptr_t)w->map, w->size, &e));
	ns = run_threads(w, install_main);
	munmap(w->map, w->size);
	close(w->uffd);
	close(w->mem);
	return ns;
}

/* ---- both together ---- */

/* Until all that was asked for is in the memory. */
static double
server_round(struct work *w, enum serve_engine engine, enum prefetch_kind kind)
{
	const struct server_options options = { .nworkers = 1,
		.nfillers = w->nthreads,
		.engine = engine,
		.prefetch = { .kind = kind, .nthreads = w->nthreads } };
	struct served_memory memory = { .page_size = 4096, .bitmap = -1 };
	struct server *s;
	struct pollfd p;
	uint64_t began;
	double ns;

	memory.fd = new_memory(w->size);
	began = serve_now();
	must(server_new(&s, w->img, &options, &e));
	must(server_add_memory(s, 0, &memory, &e));
	p = (struct pollfd){ .fd = server_event_fd(s), .events = POLLIN };
	while (!server_is_prefetched(s)) {
		if (server_state(s, &e) == SERVER_FAILED)
			errx(1, "%s", e.msg);
		poll(&p, 1, -1);
	}
	ns = (double)(serve_now() - began);
	server_free(s);
	close(memory.fd);
	return ns;
}

static void
print_ratio(const char *name, double *decode, double *install, double *both)
{
	double ratio[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		ratio[i] = (decode[i] + install[i]) / both[i];
	printf("%s %.3f x\n", name, median(ratio));
}

static void
print_rate(const char *name, const struct work *w, const double *ns)
{
	double copy[ROUNDS];

	memcpy(copy, ns, sizeof(copy));
	printf("%s %.3f GB/s\n", name, (double)w->npages * 4096 / median(copy));
}

int
main(int argc, char **argv)
{
	static double decode[ROUNDS], pwrites[ROUNDS], copies[ROUNDS], best[ROUNDS],
	    replay[ROUNDS], eager[ROUNDS];
	const struct hot_list *hot;
	struct work w = { .nthreads = pool_ncpus() };
	struct image *img;

	if (argc < 2)
		errx(2, "usage: gmem-bench-replay IMAGE [THREADS]");
	if (argc > 2)
		w.nthreads = (unsigned)strtoul(argv[2], NULL, 10);
	w.nthreads = MAX(1, MIN(w.nthreads, THREADS_MAX));
	must(image_open(&img, argv[1], &e));
	w.img = img;
	must(image_hot(img, &hot, &e));
	collect(&w, hot);
	for (int i = 0; i < ROUNDS; i++) {
		decode[i] = run_threads(&w, decode_main);
		pwrites[i] = install_round(&w, PWRITE);
		copies[i] = install_round(&w, COPY);
		best[i] = MIN(pwrites[i], copies[i]);
		replay[i] =
		    server_round(&w, SERVE_AUTO, hot != NULL ? PREFETCH_HOT : PREFETCH_ALL);
		if (hot == NULL)
			eager[i] = server_round(&w, SERVE_EAGER, PREFETCH_NONE);
	}
	printf("replay_pages %zu pages\n", w.npages);
	print_rate("replay_decode", &w, decode);
	print_rate("replay_pwrite", &w, pwrites);
	print_rate("replay_copy", &w, copies);
	print_rate("replay", &w, replay);
	print_ratio("replay_ratio", decode, best, replay);
	print_ratio("replay_ratio_pwrite", decode, pwrites, replay);
	if (hot == NULL) {
		print_rate("replay_eager", &w, eager);
		print_ratio("replay_eager_ratio", decode, best, eager);
		print_ratio("replay_eager_ratio_pwrite", decode, pwrites, eager);
	}
	free(w.pages);
	image_close(img);
	return 0;
}
