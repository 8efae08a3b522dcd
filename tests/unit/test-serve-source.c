/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Engine source: the VMM, which is this program, maps the memory object, registers it for
 * missing and minor faults, and asks for pages before it has them mapped (UFFDIO_CONTINUE),
 * as Cloud Hypervisor does.  A page that is not there then fails.
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
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "tap.h"

#define PAGE 4096u
#define HUGE (2u << 20)

static uint8_t *memory; /* what the image holds */
static const uint64_t length = 8u << 20;
static const char *image_path;
static enum prefetch_kind prefetch = PREFETCH_NONE;

struct vmm {
	struct server *server;
	struct image *img;
	int fd, uffd;
	uint8_t *at;
	uint64_t offset; /* of the region in the file */
	uint64_t page_size;
};

/* ---- asking ---- */

/* 0, or 1 and says what is wrong. */
static int
ask(const struct vmm *v, uint64_t page)
{
	uint64_t off = page * v->page_size;
	struct uffdio_continue c = { .range = { (uintptr_t)v->at + off, v->page_size } };
	struct err e = ERR_INIT;

	if (server_provide(v->server, 0, off, v->page_size, &e) == -1) {
		printf("# page %lu: %s\n", page, e.msg);
		return 1;
	}
	while (ioctl(v->uffd, UFFDIO_CONTINUE, &c) == -1) {
		if (errno == EEXIST)
			break;
		if (errno != EAGAIN) {
			printf("# page %lu is not there: %s\n", page, strerror(errno));
			return 1;
		}
	}
	return 0;
}

static int
look(const struct vmm *v, uint64_t page)
{
	uint64_t off = page * v->page_size;

	if (ask(v, page) != 0)
		return 1;
	if (memcmp(v->at + off, memory + off, v->page_size) == 0)
		return 0;
	printf("# page %lu is wrong\n", page);
	return 1;
}

static uint64_t
npages(const struct vmm *v)
{
	return length / v->page_size;
}

static int
look_at_all(const struct vmm *v)
{
	int wrong = 0;

	for (uint64_t page = 0; page < npages(v) && wrong == 0; page++)
		wrong = look(v, page);
	return wrong;
}

struct looker {
	const struct vmm *v;
	pthread_t thread;
	uint64_t seed;
	int wrong;
};

/* Every page, in an order of its own; seed 0: as they are. */
static void *
look_around(void *arg)
{
	struct looker *l = arg;
	uint64_t state = l->seed, page = 0, step = 1;

	if (l->seed != 0) {
		step = random_next(&state) | 1;
		page = random_next(&state);
	}
	for (uint64_t i = 0; i < npages(l->v) && l->wrong == 0; i++, page += step)
		l->wrong = look(l->v, page % npages(l->v));
	return NULL;
}

static int
with_threads(const struct vmm *v, unsigned n, uint64_t seed)
{
	struct looker l[8];
	int wrong = 0;

	for (unsigned i = 0; i < n; i++) {
		l[i] = (struct looker){ .v = v, .seed = seed == 0 ? 0 : seed + i };
		pthread_create(&l[i].thread, NULL, look_around, &l[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(l[i].thread, NULL);
		wrong |= l[i].wrong;
	}
	return wrong;
}

static enum server_state
await_server(const struct vmm *v, struct err *e)
{
	struct pollfd p = { .fd = server_event_fd(v->server), .events = POLLIN };
	uint64_t count;

	/* It tells of other changes too. */
	while (server_state(v->server, e) == SERVER_FILLING && poll(&p, 1, 30000) == 1)
		if (read(p.fd, &count, sizeof(count)) == -1)
			break;
	return server_state(v->server, e);
}

/* ---- a VMM that registers for missing pages only, and wakes who waits ---- */

struct waker {
	const struct vmm *v;
	atomic_bool stop;
	int wrong;
};

static void *
answer_faults(void *arg)
{
	struct waker *w = arg;
	struct pollfd p = { .fd = w->v->uffd, .events = POLLIN };
	struct err e = ERR_INIT;
	struct uffd_msg m;

	fcntl(p.fd, F_SETFL, O_NONBLOCK);
	while (!atomic_load(&w->stop) && w->wrong == 0) {
		struct uffdio_range r = { .len = w->v->page_size };

		if (poll(&p, 1, 5) != 1 || read(p.fd, &m, sizeof(m)) != (ssize_t)sizeof(m))
			continue;
		r.start = align_down(m.arg.pagefault.address, w->v->page_size);
		if (server_provide(w->v->server, 0, r.start - (uintptr_t)w->v->at, r.len, &e) ==
			-1 ||
		    ioctl(p.fd, UFFDIO_WAKE, &r) == -1)
			w->wrong = 1;
	}
	return NULL;
}

/* Like look, but it does not ask: the kernel looks for us. */
static void *
touch_around(void *arg)
{
	struct looker *l = arg;
	uint64_t n = length / PAGE, state = l->seed, step = random_next(&state) | 1;
	uint64_t page = random_next(&state);
	int scratch = memfd_create("scratch", MFD_CLOEXEC);
	uint8_t got[PAGE];

	for (uint64_t i = 0; i < n && l->wrong == 0; i++, page += step) {
		uint64_t off = page % n * PAGE;

		l->wrong = pwrite(scratch, l->v->at + off, PAGE, 0) != PAGE ||
			   pread(scratch, got, PAGE, 0) != PAGE ||
			   memcmp(got, memory + off, PAGE) != 0;
		if (l->wrong != 0)
			printf("# at %#lx: %#x, not %#x\n", off, got[0], memory[off]);
	}
	close(scratch);
	return NULL;
}

static int
by_faults(struct vmm *v)
{
	struct waker w = { .v = v };
	struct looker l[3];
	pthread_t thread;
	int wrong = 0;

	pthread_create(&thread, NULL, answer_faults, &w);
	for (unsigned i = 0; i < 3; i++) {
		l[i] = (struct looker){ .v = v, .seed = 9 + i };
		pthread_create(&l[i].thread, NULL, touch_around, &l[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(l[i].thread, NULL);
		wrong |= l[i].wrong;
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	return wrong | w.wrong;
}

/* ---- how it is asked ---- */

static int
in_order(struct vmm *v)
{
	return look_at_all(v);
}

static int
at_random(struct vmm *v)
{
	return with_threads(v, 1, 3);
}

static int
by_many(struct vmm *v)
{
	return with_threads(v, 4, 5) || with_threads(v, 2, 0);
}

static int
by_many_in_order(struct vmm *v)
{
	return with_threads(v, 4, 0);
}

static int
in_pieces(struct vmm *v)
{
	struct err e = ERR_INIT;
	uint64_t n;

	for (uint64_t off = 0; off < length; off += n) {
		n = MIN(length - off, 13 * PAGE + 77);
		if (server_provide(v->server, 0, off, n, &e) == -1) {
			printf("# %s\n", e.msg);
			return 1;
		}
	}
	return look_at_all(v);
}

/* What the guest has written stays, however often the page is asked for. */
static int
written(struct vmm *v)
{
	struct err e = ERR_INIT;

	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t page = round; page < npages(v); page += 2 + round) {
			if (ask(v, page) != 0)
				return 1;
			v->at[page * v->page_size + 99] ^= 1;
			memory[page * v->page_size + 99] ^= 1;
		}
		if (look_at_all(v) != 0)
			return 1;
	}
	return await_server(v, &e) != SERVER_COMPLETE || look_at_all(v);
}

static int
when_complete(struct vmm *v)
{
	struct err e = ERR_INIT;

	return await_server(v, &e) != SERVER_COMPLETE || look_at_all(v) || look_at_all(v);
}

/* A balloon. */
static int
given_back(struct vmm *v)
{
	const uint64_t from = length / 4, len = length / 2;

	if (look_at_all(v) != 0 || fallocate(v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       (off_t)(v->offset + from), (off_t)len) == -1)
		return 1;
	memset(memory + from, 0, len);
	return look_at_all(v);
}

/* Before anybody has asked for it; not that of the first chunk, nor the zeros with it. */
static int
given_back_first(struct vmm *v)
{
	const uint64_t from = HUGE, len = length - 2 * HUGE;
	struct err e = ERR_INIT;

	if (await_server(v, &e) != SERVER_COMPLETE || look(v, 0) != 0 ||
	    fallocate(v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		(off_t)(v->offset + from), (off_t)len) == -1)
		return 1;
	memset(memory + from, 0, len);
	return look_at_all(v) || look_at_all(v);
}

struct setup {
	const char *name;
	int (*play)(struct vmm *v);
	bool no_background;
	uint64_t page_size; /* 0: 4096 */
	uint64_t offset; /* of the region in the memory object */
	enum serve_engine engine;
	bool missing_only; /* it registers for these */
};

static const struct setup setups[] = {
	{ .name = "in order", .play = in_order },
	{ .name = "in order, no background", .play = in_order, .no_background = true },
	{ .name = "in order, not at the start of the file",
	    .play = in_order,
	    .offset = 3 * PAGE },
	{ .name = "at random", .play = at_random },
	{ .name = "at random, no background", .play = at_random, .no_background = true },
	{ .name = "by many", .play = by_many },
	{ .name = "by many, no background", .play = by_many, .no_background = true },
	{ .name = "by many in order", .play = by_many_in_order },
	{ .name = "many pages at once", .play = in_pieces },
	{ .name = "what is written stays", .play = written },
	{ .name = "when all is there", .play = when_complete },
	{ .name = "given back", .play = given_back },
	{ .name = "given back, no background", .play = given_back, .no_background = true },
	{ .name = "missing faults only", .play = by_faults, .missing_only = true },
	{ .name = "missing faults only, no background",
	    .play = by_faults,
	    .missing_only = true,
	    .no_background = true },
	{ .name = "given back before it was asked for", .play = given_back_first },
	{ .name = "given back before it was asked for, eager",
	    .play = given_back_first,
	    .engine = SERVE_EAGER },
	{ .name = "eager", .play = in_order, .engine = SERVE_EAGER },
	{ .name = "eager, at random, by many", .play = by_many, .engine = SERVE_EAGER },
	{ .name = "asked for by name", .play = in_order, .engine = SERVE_SOURCE },
};

static const struct setup huge_setups[] = {
	{ .name = "huge pages, in order", .play = in_order, .page_size = HUGE },
	{ .name = "huge pages, by many", .play = by_many, .page_size = HUGE },
	{ .name = "huge pages, no background",
	    .play = by_many,
	    .page_size = HUGE,
	    .no_background = true },
	{ .name = "huge pages, missing faults only",
	    .play = by_faults,
	    .page_size = HUGE,
	    .missing_only = true },
	{ .name = "huge pages, what is written stays", .play = written, .page_size = HUGE },
	{ .name = "huge pages, when all is there", .play = when_complete, .page_size = HUGE },
	{ .name = "huge pages, given back", .play = given_back, .page_size = HUGE },
	{ .name = "huge pages, given back before they were asked for",
	    .play = given_back_first,
	    .page_size = HUGE },
	{ .name = "huge pages, eager",
	    .play = in_order,
	    .page_size = HUGE,
	    .engine = SERVE_EAGER },
};

/* ---- the server ---- */

static int
start_vmm(struct vmm *v, bool missing_only)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct err e;

	if (!missing_only)
		r.mode |= UFFDIO_REGISTER_MODE_MINOR;

	v->at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, v->fd,
	    (off_t)v->offset);
	if (v->at == MAP_FAILED || uffd_create(&v->uffd, &e) == -1)
		return -1;
	r.range = (struct uffdio_range){ (uintptr_t)v->at, length };
	return ioctl(v->uffd, UFFDIO_API, &api) == -1 ||
		       ioctl(v->uffd, UFFDIO_REGISTER, &r) == -1
		   ? -1
		   : 0;
}

static int
start_server(struct vmm *v, const struct setup *how, struct err *e)
{
	struct server_options o = { .nfillers = 2,
		.background = how->no_background ? BACKGROUND_OFF : BACKGROUND_ON,
		.engine = how->engine,
		.prefetch.kind = prefetch };
	struct served_memory m = { .fd = v->fd,
		.offset = v->offset,
		.page_size = v->page_size,
		.bitmap = -1,
		.source = true };

	if (image_open(&v->img, image_path, e) == -1 ||
	    server_new(&v->server, v->img, &o, e) == -1 ||
	    server_add_memory(v->server, 0, &m, e) == -1 || server_start(v->server, e) == -1)
		return -1;
	return 0;
}

static void
refusals(const struct vmm *v)
{
	struct err e = ERR_INIT;
	unsigned id;
	int fd;

	ok(server_provide(v->server, 1, 0, PAGE, &e) == -1, "refused: %s", e.msg);
	ok(server_provide(v->server, 0, length, PAGE, &e) == -1, "refused: %s", e.msg);
	ok(server_provide(v->server, 0, UINT64_MAX, PAGE, &e) == -1, "refused: %s", e.msg);
	if (uffd_create(&fd, &e) == 0 && server_add_process(v->server, fd, &id, &e) == 0)
		ok(server_add_mapping(v->server, id, UINT64_C(1) << 40, length, 0, 0, &e) == -1,
		    "refused: %s", e.msg);
	e = (struct err){ .kind = ERR_FAILED, .msg = "the end" };
	server_fail(v->server, &e);
	ok(server_provide(v->server, 0, 0, PAGE, &e) == -1 && strcmp(e.msg, "the end") == 0,
	    "refused: %s", e.msg);
}

static void
play(const struct setup *how)
{
	struct vmm v = {
		.uffd = -1, .offset = how->offset, .page_size = MAX(how->page_size, PAGE)
	};
	uint8_t *before = malloc(length);
	struct serve_stats stats;
	struct server_times times;
	struct err e = ERR_INIT;
	int wrong;

	memcpy(before, memory, length);
	v.fd = memfd_create("vm", MFD_CLOEXEC | (v.page_size > PAGE ? MFD_HUGETLB : 0));
	if (v.fd == -1 || ftruncate(v.fd, (off_t)(v.offset + length)) == -1 ||
	    start_server(&v, how, &e) == -1 || start_vmm(&v, how->missing_only) == -1) {
		ok(false, "%s: start: %s", how->name, e.msg);
	} else {
		wrong = how->play(&v);
		e = (struct err)ERR_INIT;
		ok(wrong == 0 && server_state(v.server, &e) != SERVER_FAILED, "%s %s",
		    how->name, e.msg);
		server_stats(v.server, &stats, &times);
		printf(
		    "# %lu stored, %lu zero; pages: %lu demand, %lu around, %lu background\n",
		    stat_get(&stats.faults_stored), stat_get(&stats.faults_zero),
		    stat_get(&stats.pages_demand), stat_get(&stats.pages_around),
		    stat_get(&stats.pages_background));
		if (how == setups)
			refusals(&v);
		munmap(v.at, length);
	}
	memcpy(memory, before, length);
	free(before);
	server_free(v.server);
	image_close(v.img);
	close(v.uffd);
	close(v.fd);
}

static bool
huge_pages_free(uint64_t n)
{
	void *p = mmap(NULL, n * HUGE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, n * HUGE);
	return true;
}

static void
play_all(const struct setup *list, size_t n, uint32_t chunk, int argc, char **argv)
{
	struct err e = ERR_INIT;

	if (small_image(image_path, memory, length, chunk, &e) == -1) {
		ok(false, "image: %s", e.msg);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (argc < 2 || strstr(list[i].name, argv[1]) != NULL)
			play(&list[i]);
}

int
main(int argc, char **argv)
{
	const uint32_t chunks[] = { 4096, 65536, 2097152 };
	char path[] = "test-serve-source.XXXXXX";
	struct err e = ERR_INIT;
	int fd;

	log_setup("test-serve-source", LOG_LEVEL_ERROR);
	if (uffd_create(&fd, &e) == -1) {
		skip(1, "userfaultfd: %s", e.msg);
		return done();
	}
	close(fd);
	memory = calloc(1, length);
	fd = mkstemp(path);
	if (memory == NULL || fd == -1)
		return 99;
	close(fd);
	image_path = path;
	fill_memory(memory + PAGE, length / 4 - PAGE, 12, 1);
	fill_memory(memory + length / 2, length / 2, 5, 2);
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		printf("# chunks of %u\n", chunks[i]);
		play_all(setups, sizeof(setups) / sizeof(setups[0]), chunks[i], argc, argv);
	}
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		printf("# chunks of %u, prefetched\n", chunks[i]);
		prefetch = PREFETCH_ALL;
		play_all(setups, sizeof(setups) / sizeof(setups[0]), chunks[i], argc, argv);
	}
	if (huge_pages_free(length / HUGE))
		play_all(huge_setups, sizeof(huge_setups) / sizeof(huge_setups[0]), 65536, argc,
		    argv);
	else
		skip(1, "huge pages");
	unlink(path);
	return done();
}
