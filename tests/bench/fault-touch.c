/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "codec/codec.h"
#include "fault.h"
#include "format/layout.h"
#include "serve/stats.h"
#include "serve/uffd.h"

/* The touching side of gmem-bench-fault, and the least that can serve it. */

#define PAGE 4096u
#define AT_ONCE 16

static struct err e;

static void
must(int rc)
{
	if (rc == -1)
		errx(1, "%s", e.msg);
}

void
pin_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (cpu == -1 || cpu == i)
			CPU_SET(i, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == -1)
		err(1, "pin to CPU %d", cpu);
}

/* ---- touching ---- */

struct toucher {
	struct plan *plan;
	unsigned index;
	const volatile uint8_t *base;
	pthread_t thread;
	pthread_barrier_t *start;
};

static void *
toucher_main(void *arg)
{
	struct toucher *t = arg;
	struct plan *p = t->plan;
	struct touch *list = plan_of_thread(p, t->index);
	const struct timespec gap = { .tv_nsec = p->gap_us * 1000L };
	uint64_t began;

	pin_to(p->cpu[t->index]);
	pthread_barrier_wait(t->start);
	began = serve_now();
	for (uint32_t i = 0; i < p->n; i++) {
		uint64_t from = serve_now(), word;

		word = *(
		    const volatile uint64_t *)(const volatile void *)(t->base + list[i].offset);
		list[i].ns = serve_now() - from;
		if (word != list[i].want)
			errx(66, "MISMATCH at %#llx", (unsigned long long)list[i].offset);
		if (p->gap_us != 0)
			nanosleep(&gap, NULL);
	}
	p->wall_ns[t->index] = serve_now() - began;
	return NULL;
}

static void
touch(struct plan *p, const uint8_t *base)
{
	struct toucher list[THREADS_MAX];
	pthread_barrier_t start;

	pthread_barrier_init(&start, NULL, p->nthreads);
	for (unsigned i = 0; i < p->nthreads; i++) {
		list[i] =
		    (struct toucher){ .plan = p, .index = i, .base = base, .start = &start };
		errno = pthread_create(&list[i].thread, NULL, toucher_main, &list[i]);
		if (errno != 0)
			err(1, "thread");
	}
	for (unsigned i = 0; i < p->nthreads; i++)
		pthread_join(list[i].thread, NULL);
}

int
touch_memory(const char *memory, const char *plan)
{
	struct plan *p = plan_map(plan);
	int fd = open(memory, O_RDWR | O_CLOEXEC);
	void *base;

	if (fd == -1)
		err(1, "%s", memory);
	base = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		err(1, "%s", memory);
	touch(p, base);
	return 0;
}

/* ---- bare servers ---- */

struct bare_server {
	struct plan *plan;
	enum bare how;
	int uffd, mem, image, cpu;
	uint64_t base;
	uint32_t *by_page; /* number of a touch + 1 */
	uint8_t *page; /* locked */
	uint8_t *record;
	struct decoder *dec;
};

static void *
locked(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);

	if (p == MAP_FAILED)
		err(1, "locked memory");
	return p;
}

static const uint8_t *
decode_page(struct bare_server *b, const struct touch *t)
{
	uint32_t sums = SKIP_SIZE + 4 * t->stored;
	size_t have;

	if (pread(b->image, b->record, t->length, (off_t)t->record) != (ssize_t)t->length)
		err(1, "record");
	must(decoder_begin(
	    b->dec, b->record + sums, t->length - sums, b->page, (size_t)t->stored * PAGE, &e));
	must(decoder_until(b->dec, (size_t)(t->rank + 1) * PAGE, &have, &e));
	return b->page + (size_t)t->rank * PAGE;
}

static void
serve_bare(struct bare_server *b, uint64_t hva)
{
	uint64_t off = align_down(hva - b->base, PAGE), done;
	const struct touch *t = &b->plan->touches[b->by_page[off / PAGE] - 1];
	const uint8_t *page = b->page;
	enum uffd_result r;

	if (b->how == BARE_DECODE)
		page = decode_page(b, t);
	else
		memcpy(b->page, &t->want, sizeof(t->want));
	if (b->how == BARE_COPY) {
		r = uffd_copy(b->uffd, b->base + off, page, PAGE, &done, &e);
	} else {
		if (pwrite(b->mem, page, PAGE, (off_t)off) != PAGE)
			err(1, "pwrite");
		r = uffd_continue(b->uffd, b->base + off, PAGE, PAGE, &done, &e);
	}
	if (r != UFFD_DONE)
		errx(1, "bare server: %d %s", (int)r, e.msg);
}

static void *
bare_main(void *arg)
{
	struct bare_server *b = arg;
	struct uffd_fault list[AT_ONCE];
	int n;

	pin_to(b->cpu);
	while ((n = uffd_read(b->uffd, list, AT_ONCE, &e)) >= 0)
		for (int i = 0; i < n; i++)
			serve_bare(b, list[i].hva);
	errx(1, "%s", e.msg);
}

static void
bare_buffers(struct bare_server *b)
{
	b->page = locked(CHUNK_SIZE_MAX);
	b->record = locked(record_length_max(CHUNK_PAGES_MAX));
	must(decoder_new(&b->dec, &e));
}

/* A thread for each toucher. */
static void __attribute__((noreturn))
bare_process(const struct bare_server *like, const int *cpus)
{
	static struct bare_server list[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	unsigned n = like->plan->nthreads;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < n; i++) {
		list[i] = *like;
		list[i].cpu = cpus[i];
		bare_buffers(&list[i]);
		if (pthread_create(&threads[i], NULL, bare_main, &list[i]) != 0)
			errx(1, "thread");
	}
	for (;;)
		pause();
}

static uint32_t *
index_touches(const struct plan *p)
{
	uint32_t *by_page = calloc(p->size / PAGE + 1, sizeof(*by_page));

	if (by_page == NULL)
		err(1, "index");
	for (uint32_t i = 0; i < p->nthreads * p->n; i++)
		by_page[p->touches[i].offset / PAGE] = i + 1;
	return by_page;
}

/* In a process of its own, which ends with it. */
static void __attribute__((noreturn))
touch_bare_here(struct plan *p, enum bare how, int image_fd, const int *cpus)
{
	struct bare_server b = { .plan = p, .how = how, .image = image_fd };
	uint64_t features;
	uint8_t *base;
	pid_t pid;

	b.by_page = index_touches(p);
	b.mem = memfd_create("bare", MFD_CLOEXEC);
	if (b.mem == -1 || ftruncate(b.mem, (off_t)p->size) == -1)
		err(1, "memfd");
	base = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_SHARED, b.mem, 0);
	if (base == MAP_FAILED)
		err(1, "mmap");
	b.base = (uintptr_t)base;
	must(uffd_create(&b.uffd, &e));
	must(uffd_handshake(b.uffd, &features, &e));
	must(uffd_register(b.uffd, b.base, p->size, &e));
	pid = fork();
	if (pid == 0)
		bare_process(&b, cpus);
	usleep(20000);
	touch(p, base);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	_exit(0);
}

void
touch_bare(struct plan *p, enum bare how, int image_fd, const int *server_cpus)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		touch_bare_here(p, how, image_fd, server_cpus);
	if (pid == -1 || waitpid(pid, &status, 0) == -1 || status != 0)
		errx(1, "the bare server failed");
}

void
decode_bare(struct plan *p, int image_fd)
{
	struct bare_server b = { .plan = p, .image = image_fd };

	bare_buffers(&b);
	for (size_t i = 0; i < (size_t)p->nthreads * p->n; i++) {
		uint64_t from = serve_now();

		decode_page(&b, &p->touches[i]);
		p->touches[i].ns = serve_now() - from;
	}
	decoder_free(b.dec);
	munmap(b.page, CHUNK_SIZE_MAX);
	munmap(b.record, record_length_max(CHUNK_PAGES_MAX));
}
