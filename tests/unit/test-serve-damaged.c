/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Pages that cannot be had, for those whom gmem-restore's own tests don't reach: memory of the
 * VMM's own (engine copy), a VMM that asks for pages (source), vCPUs (userfault).  The VMM is
 * this program.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "image/reader.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "tap.h"

#define PAGE 4096u
#define LENGTH (1u << 20)
#define NPAGES (LENGTH / PAGE)

static const char path[] = "test-serve-damaged.gmem";
static uint8_t memory[LENGTH];
static bool bad[NPAGES];
static uint64_t nbad, first_bad;

/* ---- the image ---- */

/* A bit in the middle of the record that holds the page, or the next one that is stored. */
static int
spoil(struct image_reader *r, const struct object *o, uint64_t page, struct err *e)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), there = 0;
	struct place p;
	uint8_t byte;
	off_t at;

	while (there == 0 && page < NPAGES)
		there = image_reader_place(r, o, page++, &p, e);
	if (fd == -1 || there != 1)
		return -1;
	at = (off_t)(p.entry.offset + p.entry.length / 2);
	if (pread(fd, &byte, 1, at) != 1)
		return -1;
	byte ^= 16;
	if (pwrite(fd, &byte, 1, at) != 1)
		return -1;
	return close(fd);
}

/* By itself, as a fault would ask for it. */
static bool
is_lost(const struct image *img, uint64_t page, struct err *e)
{
	struct image_reader *r = NULL;
	const uint8_t *content;
	bool lost = false;
	struct place p;

	if (image_reader_new(&r, img, e) == 0 &&
	    image_reader_place(r, &img->manifest.regions[0], page, &p, e) == 1)
		lost = image_reader_get(r, &p, &content, e) == -1;
	image_reader_free(r);
	return lost;
}

static int
make_image(struct err *e)
{
	struct image_reader *r = NULL;
	struct image *img = NULL;
	int rc = -1;

	fill_memory(memory, LENGTH, 12, 3);
	if (small_image(path, memory, LENGTH, 32768, e) == 0 &&
	    image_open(&img, path, e) == 0 && image_reader_new(&r, img, e) == 0)
		rc = spoil(r, &img->manifest.regions[0], 100, e);
	for (uint64_t page = 0; rc == 0 && page < NPAGES; page++) {
		bad[page] = is_lost(img, page, e);
		if (bad[page] && nbad++ == 0)
			first_bad = page;
	}
	image_reader_free(r);
	image_close(img);
	return rc;
}

/* ---- the server ---- */

struct game {
	struct image *img;
	struct server *server;
	int fd, bitmap, uffd;
};

static int
start(struct game *g, enum on_error on_error, enum background background, struct err *e)
{
	const struct server_options o = {
		.nworkers = 2, .background = background, .on_error = on_error, .io_timeout = 60
	};

	*g = (struct game){ .fd = -1, .bitmap = -1, .uffd = -1 };
	return image_open(&g->img, path, e) == -1 || server_new(&g->server, g->img, &o, e) == -1
		   ? -1
		   : 0;
}

static void
end(struct game *g)
{
	server_free(g->server);
	image_close(g->img);
	if (g->fd != -1)
		close(g->fd);
	if (g->bitmap != -1)
		close(g->bitmap);
}

static enum server_state
await_failure(const struct game *g, struct err *e)
{
	struct pollfd p = { .fd = server_event_fd(g->server), .events = POLLIN };
	uint64_t count;

	while (server_state(g->server, e) == SERVER_FILLING && poll(&p, 1, 60000) == 1)
		if (read(p.fd, &count, sizeof(count)) == -1)
			break;
	return server_state(g->server, e);
}

/* ---- memory of the VMM's own ---- */

static sigjmp_buf on_bus;

static void
bus(int sig)
{
	(void)sig;
	siglongjmp(on_bus, 1);
}

enum { RIGHT, WRONG, POISONED };

static int
look(const uint8_t *at, uint64_t page)
{
	if (sigsetjmp(on_bus, 1) != 0)
		return POISONED;
	return memcmp(at + page * PAGE, memory + page * PAGE, PAGE) == 0 ? RIGHT : WRONG;
}

static unsigned
look_at_all(const uint8_t *at)
{
	unsigned wrong = 0;

	for (uint64_t page = 0; page < NPAGES; page++)
		if (look(at, page) != (bad[page] ? POISONED : RIGHT)) {
			printf("# page %lu\n", (unsigned long)page);
			wrong++;
		}
	return wrong;
}

/* The range is anonymous memory of ours; *features are those of the kernel. */
static int
hand_over(struct game *g, uint8_t **at, uint64_t *features, struct err *e)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
	unsigned id;

	*at = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*at == MAP_FAILED || uffd_create(&g->uffd, e) == -1 ||
	    ioctl(g->uffd, UFFDIO_API, &api) == -1 ||
	    uffd_register_missing(g->uffd, (uintptr_t)*at, LENGTH, e) == -1)
		return -1;
	*features = api.features;
	return server_add_foreign(g->server, 0, PAGE, -1, e) == -1 ||
		       server_adopt_process(g->server, g->uffd, -1, &id, e) == -1 ||
		       server_start(g->server, e) == -1 ||
		       server_add_mapping(g->server, id, (uintptr_t)*at, LENGTH, 0, 0, e) == -1
		   ? -1
		   : 0;
}

static void
test_own_memory(void)
{
	static const uint8_t zeros[PAGE];
	struct server_times times;
	struct serve_stats stats;
	struct err e = ERR_INIT;
	uint64_t features;
	struct game g;
	uint8_t *at;

	if (start(&g, ON_ERROR_POISON, BACKGROUND_OFF, &e) == -1 ||
	    hand_over(&g, &at, &features, &e) == -1) {
		skip(4, "%s", e.msg);
		return;
	}
	if (!uffd_can_poison(features)) {
		skip(4, "this kernel cannot poison pages");
		return;
	}
	signal(SIGBUS, bus);
	ok(look_at_all(at) == 0, "copied: %lu pages are poisoned, all others right", nbad);
	ok(look_at_all(at) == 0, "and stay so");
	server_stats(g.server, &stats, &times);
	ok(stat_get(&stats.pages_poisoned) == nbad &&
		server_state(g.server, &e) == SERVER_FILLING,
	    "each is counted once");
	/* The event is read by a thread of the server. */
	ok(madvise(at + first_bad * PAGE, PAGE, MADV_DONTNEED) == 0 &&
		sigsetjmp(on_bus, 1) == 0 && memcmp(at + first_bad * PAGE, zeros, PAGE) == 0,
	    "what is discarded is zeros");
	signal(SIGBUS, SIG_DFL);
	munmap(at, LENGTH);
	end(&g);
}

static void
test_background(void)
{
	struct err e = ERR_INIT;
	uint64_t features;
	struct game g;
	uint8_t *at;

	if (start(&g, ON_ERROR_STOP, BACKGROUND_ON, &e) == -1 ||
	    hand_over(&g, &at, &features, &e) == -1) {
		skip(1, "%s", e.msg);
		return;
	}
	ok(await_failure(&g, &e) == SERVER_FAILED && strstr(e.msg, "record at byte") != NULL,
	    "copied, and nothing to be poisoned: %s", e.msg);
	munmap(at, LENGTH);
	end(&g);
}

/* ---- who asks ---- */

static int
add_memory(struct game *g, bool source, struct err *e)
{
	struct served_memory m = { .page_size = PAGE, .bitmap = -1, .source = source };

	g->fd = memfd_create("ram", MFD_CLOEXEC);
	if (g->fd == -1 || ftruncate(g->fd, LENGTH) == -1)
		return -1;
	m.fd = g->fd;
	if (!source) {
		g->bitmap = memfd_create("bits", MFD_CLOEXEC);
		if (g->bitmap == -1 || ftruncate(g->bitmap, PAGE) == -1)
			return -1;
		m.bitmap = g->bitmap;
		m.slots = true;
	}
	return server_add_memory(g->server, 0, &m, e) == -1 ? -1 : server_start(g->server, e);
}

static int
ask(const struct game *g, bool source, uint64_t page, struct err *e)
{
	return source ? server_provide(g->server, 0, page * PAGE, PAGE, e)
		      : server_fault(g->server, 0, page * PAGE, e);
}

static void
test_asked(bool source, enum on_error how)
{
	const char *what = source ? "a VMM that asks" : "a vCPU";
	struct err e = ERR_INIT, told = ERR_INIT;
	uint64_t good = 0;
	struct game g;

	if (start(&g, how, BACKGROUND_OFF, &e) == -1 || add_memory(&g, source, &e) == -1) {
		skip(4, "%s: %s", what, e.msg);
		end(&g);
		return;
	}
	while (bad[good])
		good++;
	ok(ask(&g, source, good, &e) == 0, "%s gets what is there", what);
	ok(ask(&g, source, first_bad, &e) == -1 && strstr(e.msg, "record at byte") != NULL,
	    "%s: %s", what, e.msg);
	ok(server_state(g.server, &told) == SERVER_FAILED, "%s: the server has failed", what);
	ok(ask(&g, source, first_bad, &e) == -1, "%s: who asks again does not wait for ever",
	    what);
	end(&g);
}

int
main(void)
{
	struct err e = ERR_INIT;
	int rc;

	log_setup("test-serve-damaged", LOG_LEVEL_ERROR);
	rc = make_image(&e);
	if (!ok(rc == 0 && nbad > 0, "an image of which %lu pages are lost: %s", nbad, e.msg))
		return done();
	test_own_memory();
	test_background();
	for (enum on_error how = ON_ERROR_STOP; how <= ON_ERROR_POISON; how++) {
		test_asked(true, how);
		test_asked(false, how);
	}
	unlink(path);
	return done();
}
