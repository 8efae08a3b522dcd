/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Recording: what is touched, in its order, and nothing else; by engines that
 * tests/cli/restore-record.sh cannot have, and the recorder by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/record.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "tap.h"

#define PAGE 4096u
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint8_t *memory; /* what the image holds */
static const uint64_t length = 8u << 20;
static const char *image_path;

struct touch {
	uint64_t page;
	uint8_t access;
};

/* Pages of a trace, one after the other. */
static bool
is_trace(const struct trace *t, const struct touch *want, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < t->nruns; i++)
		for (uint32_t j = 0; j < t->runs[i].npages; j++, k++)
			if (k >= n || t->runs[i].page + j != want[k].page ||
			    t->runs[i].access != want[k].access)
				return false;
	return k == n;
}

static void
took(struct server *s, const char *name, const struct touch *want, size_t n)
{
	struct err e = ERR_INIT;
	struct trace t;
	bool good = server_record_take(s, &t, &e) == 0 && is_trace(&t, want, n);

	if (!ok(good, "%s: %zu runs %s", name, t.nruns, e.msg))
		for (size_t i = 0; i < t.nruns && i < 20; i++)
			printf("# %llu+%u %u\n", (unsigned long long)t.runs[i].page,
			    t.runs[i].npages, t.runs[i].access);
	trace_free(&t);
}

static bool
is_complete(struct server *s)
{
	struct pollfd p = { .fd = server_event_fd(s), .events = POLLIN };
	struct err e = ERR_INIT;
	uint64_t count;

	for (unsigned i = 0; i < 300 && server_state(s, &e) == SERVER_FILLING; i++)
		if (poll(&p, 1, 100) == 1 && read(p.fd, &count, sizeof(count)) == -1)
			return false;
	return server_state(s, &e) == SERVER_COMPLETE;
}

static int
new_server(struct server **s, struct image **img, struct err *e)
{
	const struct server_options o = { .background = true, .record = true, .nworkers = 3 };

	if (image_open(img, image_path, e) == -1)
		return -1;
	return server_new(s, *img, &o, e);
}

/* ---- memory of the VMM's own: what is there can't be seen to be touched ---- */

/* Stored and zero, neighbours of both, one in both ways, the last. */
static const struct touch touches[] = {
	{ 5, TRACE_READ },
	{ 6, TRACE_READ },
	{ 900, TRACE_WRITE },
	{ 4, TRACE_READ },
	{ 7, TRACE_WRITE },
	{ 2047, TRACE_READ },
	{ 1500, TRACE_READ },
	{ 1499, TRACE_READ },
	{ 1498, TRACE_WRITE },
	{ 0, TRACE_READ },
};

static unsigned
touch_all(volatile uint8_t *at)
{
	unsigned wrong = 0;

	for (size_t i = 0; i < COUNT(touches); i++) {
		volatile uint8_t *p = at + touches[i].page * PAGE;

		if (touches[i].access == TRACE_WRITE)
			p[1] = memory[touches[i].page * PAGE + 1] = 77;
		wrong += p[9] != memory[touches[i].page * PAGE + 9];
	}
	return wrong;
}

static unsigned
compare(const uint8_t *at)
{
	unsigned wrong = 0;

	for (uint64_t off = 0; off < length; off += 9)
		wrong += at[off] != memory[off];
	return wrong;
}

static void
test_copy(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct err e = ERR_INIT;
	struct server *s = NULL;
	struct image *img = NULL;
	unsigned id;
	uint8_t *at;
	int fd;

	at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	r.range = (struct uffdio_range){ (uintptr_t)at, length };
	ok(uffd_create(&fd, &e) == 0 && ioctl(fd, UFFDIO_API, &api) == 0 &&
		ioctl(fd, UFFDIO_REGISTER, &r) == 0 && new_server(&s, &img, &e) == 0 &&
		server_add_foreign(s, 0, PAGE, -1, &e) == 0 &&
		server_adopt_process(s, fd, -1, &id, &e) == 0 &&
		server_add_mapping(s, id, (uintptr_t)at, length, 0, 0, &e) == 0 &&
		server_start(s, &e) == 0,
	    "engine copy: %s", e.msg);
	ok(touch_all(at) == 0 && server_record_pages(s) == COUNT(touches), "is touched");
	usleep(200000);
	ok(server_record_pages(s) == COUNT(touches) && server_state(s, &e) == SERVER_FILLING,
	    "nothing else happens");
	ok(server_record_end(s, &e) == 0 && is_complete(s) && compare(at) == 0,
	    "then all is filled");
	took(s, "what was touched is recorded", touches, COUNT(touches));
	server_stop(s);
	server_free(s);
	image_close(img);
	munmap(at, length);
}

/* ---- a VMM that asks ---- */

static uint64_t
allocated(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 / PAGE : 0;
}

/* All of its pages in their turn, and those in between that are touched. */
static void
test_source(void)
{
	static const uint64_t asked[] = { 1000, 5, 0, 1, 1000, 2, 1200, 3, 4, 1, 6, 6, 2047,
		7 };
	static const struct touch want[] = { { 1000, TRACE_READ }, { 5, TRACE_READ },
		{ 1200, TRACE_READ }, { 2047, TRACE_READ } };
	struct served_memory m = { .page_size = PAGE, .bitmap = -1, .source = true };
	struct err e = ERR_INIT;
	struct server *s = NULL;
	struct image *img = NULL;
	unsigned wrong = 0;
	uint8_t *at;

	m.fd = memfd_create("ram", MFD_CLOEXEC);
	ok(ftruncate(m.fd, (off_t)length) == 0 && new_server(&s, &img, &e) == 0 &&
		server_add_memory(s, 0, &m, &e) == 0 && server_start(s, &e) == 0,
	    "engine source: %s", e.msg);
	for (size_t i = 0; i < COUNT(asked); i++) {
		server_record_ask(s, 0, asked[i] * PAGE, PAGE);
		wrong += server_provide(s, 0, asked[i] * PAGE, PAGE, &e) == -1;
	}
	usleep(200000);
	/* 11 different ones; and the first that is stored, which write(2) was tried with. */
	ok(wrong == 0 && allocated(m.fd) >= 11 && allocated(m.fd) <= 12,
	    "what it asks for is there, and nothing else: %lu", allocated(m.fd));
	ok(server_record_pages(s) == COUNT(want), "what came in its turn is not counted");
	ok(server_record_end(s, &e) == 0 && is_complete(s), "then all is filled");
	at = mmap(NULL, length, PROT_READ, MAP_SHARED, m.fd, 0);
	ok(at != MAP_FAILED && compare(at) == 0, "as it should be");
	took(s, "what it touched is recorded", want, COUNT(want));
	munmap(at, length);
	server_stop(s);
	server_free(s);
	image_close(img);
	close(m.fd);
}

/* ---- the recorder ---- */

static struct object regions[] = {
	{ .name = "a", .kind = "", .size = 5 * PAGE + 100, .page_size = PAGE },
	{ .name = "b", .kind = "", .size = UINT64_C(1) << 40, .page_size = PAGE },
};
static const struct image fake = { .manifest = { .regions = regions, .nregions = 2 } };

static struct recorder *
new_recorder(void)
{
	struct recorder *r = NULL;
	struct err e;

	if (recorder_new(&r, &fake, &e) == -1)
		abort();
	return r;
}

static void
test_edges(void)
{
	struct recorder *r = new_recorder();
	struct err e = ERR_INIT;
	struct trace t;

	recorder_touch(r, 1, 100 * PAGE, 2 << 20, true); /* a huge page */
	recorder_touch(r, 1, 90 * PAGE, 20 * PAGE, false); /* a part of it is new */
	recorder_touch(r, 0, 5 * PAGE, PAGE, false); /* the last, of 100 bytes */
	recorder_touch(r, 0, 6 * PAGE, PAGE, false); /* behind the region */
	recorder_touch(r, 0, 4 * PAGE, 1 << 20, false); /* it ends in the region */
	ok(recorder_pages(r) == 512 + 10 + 1 + 1, "pages count once, and in regions: %lu",
	    recorder_pages(r));
	recorder_end(r);
	recorder_touch(r, 0, 0, PAGE, false);
	ok(!recorder_is_on(r) && recorder_take(r, &t, &e) == 0 && t.nruns == 4 &&
		t.runs[0].npages == 512 && t.runs[1].page == 90 && t.runs[1].npages == 10 &&
		t.runs[3].page == 4,
	    "nothing is kept after the end: %s", e.msg);
	t.end = TRACE_END_EXIT;
	ok(trace_check(&t, &e) == 0, "it is a trace: %s", e.msg);
	trace_free(&t);
	recorder_free(r);
}

/* Apart, so that each is a run of its own. */
static void
test_full(void)
{
	struct recorder *r = new_recorder();
	struct err e = ERR_INIT;
	struct trace t;

	for (uint64_t i = 0; i < TRACE_PAGES_MAX; i++)
		recorder_touch(r, 1, 2 * i * PAGE, PAGE, false);
	ok(recorder_pages(r) == TRACE_PAGES_MAX && !recorder_is_full(r),
	    "all that a trace has");
	recorder_touch(r, 1, 1 * PAGE, PAGE, false);
	recorder_touch(r, 1, 0 * PAGE, PAGE, false);
	ok(recorder_pages(r) == TRACE_PAGES_MAX && recorder_is_full(r), "one more is full");
	recorder_end(r);
	ok(recorder_take(r, &t, &e) == 0 && t.nruns == TRACE_RUNS_MAX && t.lost == 1,
	    "which it says: %s", e.msg);
	t.end = TRACE_END_FULL;
	ok(trace_check(&t, &e) == 0, "it is a trace: %s", e.msg);
	trace_free(&t);
	recorder_free(r);
}

struct toucher {
	struct recorder *r;
	pthread_t thread;
	uint64_t seed;
};

static void *
touch_around(void *arg)
{
	struct toucher *t = arg;
	uint64_t state = t->seed;

	for (unsigned i = 0; i < 100000; i++)
		recorder_touch(t->r, 1, random_next(&state) % 50000 * PAGE, PAGE, i % 3 == 0);
	return NULL;
}

/* One of them ends it while the others go on. */
static void
test_threads(bool all)
{
	struct recorder *r = new_recorder();
	struct toucher list[4];
	struct err e = ERR_INIT;
	struct trace t;

	for (unsigned i = 0; i < 4; i++) {
		list[i] = (struct toucher){ .r = r, .seed = i + 1 };
		pthread_create(&list[i].thread, NULL, touch_around, &list[i]);
	}
	for (unsigned i = 0; all && i < 4; i++)
		pthread_join(list[i].thread, NULL);
	while (recorder_pages(r) < 1000)
		;
	recorder_end(r);
	ok(recorder_take(r, &t, &e) == 0, "by four threads%s: %s", all ? "" : ", cut off",
	    e.msg);
	t.end = TRACE_END_EXIT;
	ok(trace_check(&t, &e) == 0 && trace_pages(&t) >= 1000, "each page once: %s", e.msg);
	for (unsigned i = 0; !all && i < 4; i++)
		pthread_join(list[i].thread, NULL);
	trace_free(&t);
	recorder_free(r);
}

int
main(void)
{
	char path[] = "test-serve-record.XXXXXX";
	struct err e = ERR_INIT;
	int fd;

	log_setup("test-serve-record", LOG_LEVEL_ERROR);
	test_edges();
	test_full();
	test_threads(true);
	test_threads(false);
	if (uffd_create(&fd, &e) == -1) {
		skip(1, "userfaultfd: %s", e.msg);
		return done();
	}
	close(fd);
	close(mkstemp(path));
	unlink(path);
	image_path = path;
	memory = malloc(length);
	fill_memory(memory, length, 11, 3);
	/* A stretch of zeros around a page that is asked for. */
	memset(memory + 1190 * PAGE, 0, 30 * PAGE);
	if (!ok(small_image(path, memory, length, 32768, &e) == 0, "an image: %s", e.msg))
		return done();
	test_source();
	test_copy();
	unlink(path);
	free(memory);
	return done();
}
