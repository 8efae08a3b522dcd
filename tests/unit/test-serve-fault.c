/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * How little is done for a fault: this program is the VMM, and the server's threads are its
 * own.  Memory mostly of zeros, at whose borders there are pages.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "image/pack.h"
#include "image/reader.h"
#include "image/writer.h"
#include "serve/extents.h"
#include "serve/internal.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "tap.h"

#define PAGE 4096u
#define MIB ((size_t)1 << 20)
#define LENGTH (48 * MIB)
#define CHUNK (64u << 10)

static uint8_t *memory; /* what the image holds */
static const char *path;

struct vm {
	struct server *server;
	struct image *img;
	int fd, uffd;
	unsigned id;
	uint8_t *at;
};

static struct err e;

/* ---- memory with long stretches of zeros ---- */

/* Stored: [4, 8) MiB but for its second half's every other page; a page at each end of [16,
 * 18); all of [30, 31); the last page. */
static bool
is_stored(size_t page)
{
	size_t at = page * PAGE;

	if (at >= 4 * MIB && at < 8 * MIB)
		return at < 6 * MIB || page % 2 == 0;
	return at == 16 * MIB || at + PAGE == 18 * MIB || (at >= 30 * MIB && at < 31 * MIB) ||
	       at + PAGE == LENGTH;
}

static bool
is_left(size_t at)
{
	static const size_t blocks[][2] = { { 4, 8 }, { 16, 18 }, { 30, 32 }, { 46, 48 } };

	for (unsigned i = 0; i < 4; i++)
		if (at >= blocks[i][0] * MIB && at < blocks[i][1] * MIB)
			return false;
	return true;
}

static void
fill(void)
{
	uint64_t seed = 7;

	for (size_t page = 0; page < LENGTH / PAGE; page++)
		for (size_t i = 0; is_stored(page) && i < PAGE; i += 8)
			memcpy(
			    memory + page * PAGE + i, &(uint64_t){ random_next(&seed) | 1 }, 8);
}

static bool
start(struct vm *v, struct server_options options)
{
	struct served_memory m = { .page_size = PAGE, .bitmap = -1 };

	options.nworkers = 2;
	v->fd = memfd_create("vm", MFD_CLOEXEC);
	m.fd = v->fd;
	if (ftruncate(v->fd, LENGTH) == -1 || image_open(&v->img, path, &e) == -1 ||
	    server_new(&v->server, v->img, &options, &e) == -1 ||
	    server_add_memory(v->server, 0, &m, &e) == -1 || uffd_create(&v->uffd, &e) == -1 ||
	    server_add_process(v->server, v->uffd, &v->id, &e) == -1)
		return false;
	v->at = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	return v->at != MAP_FAILED &&
	       server_add_mapping(v->server, v->id, (uintptr_t)v->at, LENGTH, 0, 0, &e) == 0;
}

static void
stop(struct vm *v)
{
	server_free(v->server);
	image_close(v->img);
	munmap(v->at, LENGTH);
	close(v->fd);
}

static struct serve_stats
stats(const struct vm *v)
{
	struct server_times times;
	struct serve_stats s;

	server_stats(v->server, &s, &times);
	return s;
}

/* ---- zeros ---- */

static size_t
look(const struct vm *v, bool left)
{
	size_t wrong = 0;

	for (size_t at = 0; at < LENGTH; at += PAGE)
		if (is_left(at) == left)
			wrong += memcmp(v->at + at, memory + at, PAGE) != 0;
	return wrong;
}

static void
test_zeros(bool background)
{
	struct vm v = { 0 };
	struct serve_stats s;

	ok(start(&v, (struct server_options){ .background = background }), "starts: %s", e.msg);
	ok(look(&v, true) == 0, "what is not registered is zeros");
	s = stats(&v);
	ok(stat_get(&s.faults_zero) + stat_get(&s.faults_stored) +
		    stat_get(&s.faults_present) ==
		0,
	    "and nobody was asked");
	for (size_t at = 0; at < LENGTH; at += 16 * PAGE)
		if (is_left(at))
			v.at[at] = memory[at] = 0x5a;
	ok(server_start(v.server, &e) == 0, "goes on");
	ok(look(&v, false) == 0, "what is stored is there");
	ok(look(&v, true) == 0, "what was written stays");
	s = stats(&v);
	ok(background || stat_get(&s.pages_zero) <= 10 * MIB / PAGE,
	    "zeros are given only beside pages");
	stop(&v);
	memset(memory, 0, LENGTH);
	fill();
}

/* At the borders, on both sides. */
static void
test_discard(void)
{
	static const size_t borders[] = { 4, 8, 16, 18, 30, 32, 46 };
	static const uint8_t zeros[2 * PAGE];
	struct vm v = { 0 };
	size_t wrong = 0;
	uint8_t *again;

	ok(start(&v, (struct server_options){ 0 }), "discards: starts");
	for (unsigned i = 0; i < 7; i++) {
		size_t off = borders[i] * MIB - PAGE;

		if (i % 2 == 0)
			v.at[off] = 1;
		if (server_discard(v.server, 0, off, 2 * PAGE, &e) == -1 ||
		    madvise(v.at + off, 2 * PAGE, MADV_REMOVE) == -1)
			wrong++;
		wrong += memcmp(v.at + off, zeros, 2 * PAGE) != 0;
		memset(memory + off, 0, 2 * PAGE);
	}
	ok(wrong == 0, "what is discarded is zeros");
	/* Where it was mapped before nobody has looked yet. */
	again = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, v.fd, 0);
	ok(again != MAP_FAILED && server_add_mapping(v.server, v.id, (uintptr_t)again + 5 * MIB,
				      12 * MIB, 0, 5 * MIB, &e) == 0,
	    "a second mapping that begins and ends in extents");
	ok(memcmp(again + 5 * MIB, memory + 5 * MIB, 12 * MIB) == 0, "is right");
	ok(look(&v, true) == 0 && look(&v, false) == 0, "and so is the first");
	munmap(again, LENGTH);
	stop(&v);
	fill();
}

/* ---- extents ---- */

static void
test_extents(void)
{
	struct object sparse = { .name = "ram" };
	struct extents x;
	struct image *img;
	size_t registered = 0;

	ok(image_open(&img, path, &e) == 0, "opens");
	ok(extents_find(&x, img, &img->manifest.regions[0], 0, LENGTH, PAGE, &e) == 0 &&
		x.n == 4,
	    "four extents");
	for (size_t i = 0; i < x.n; i++)
		registered += x.list[i].len;
	ok(registered == 10 * MIB, "of 10 MiB");
	extents_fini(&x);
	/* Blocks are those of the file. */
	ok(extents_find(&x, img, &img->manifest.regions[0], PAGE, LENGTH, PAGE, &e) == 0,
	    "not at the start of a file");
	registered = 0;
	for (size_t i = 0; i < x.n; i++) {
		registered += (x.list[i].off + PAGE) % (2 * MIB) != 0;
		registered += (x.list[i].off + x.list[i].len + PAGE) % (2 * MIB) != 0 &&
			      x.list[i].off + x.list[i].len != LENGTH;
		for (size_t k = i + 1; k < x.n; k++)
			registered += x.list[k].off <= x.list[i].off + x.list[i].len;
	}
	ok(registered == 0, "they end where huge pages do");
	registered = 0;
	for (size_t page = 0; page < LENGTH / PAGE; page++) {
		bool in = false;

		for (size_t i = 0; i < x.n; i++)
			in |= page * PAGE >= x.list[i].off &&
			      page * PAGE < x.list[i].off + x.list[i].len;
		registered += is_stored(page) && !in;
	}
	ok(registered == 0, "nothing that is stored is left out");
	extents_fini(&x);
	ok(extents_find(&x, img, &sparse, 0, 0, PAGE, &e) == 0 && x.n == 0, "none of nothing");
	extents_fini(&x);
	image_close(img);
}

/* Every other block: of one more the blocks would be larger. */
static void
test_many_extents(const char *many)
{
	const struct image_params params = { .chunk_size = PAGE, .level = 1, .replace = true };
	struct segment segment = { 0, 0, 2046 * MIB };
	struct object o = { .name = "ram",
		.kind = "memfd",
		.size = segment.size,
		.page_size = PAGE,
		.segments = &segment,
		.nsegments = 1 };
	struct image_writer *w;
	struct packer *p;
	uint8_t root[DIGEST_SIZE];
	struct extents x;
	struct image *img;
	struct entry en;
	bool good = image_writer_new(&w, many, &params, &e) == 0 &&
		    packer_new(&p, image_writer_geometry(w), 1, &e) == 0 &&
		    image_writer_begin(w, &o, false, &e) == 0;
	uint8_t *record = malloc(packer_bound(image_writer_geometry(w)));

	for (uint64_t at = 0; good && at < o.size; at += 4 * MIB)
		good = packer_pack(p, memory + 5 * MIB, PAGE, &en, record, &e) == 0 &&
		       image_writer_chunk(w, at / PAGE, &en, record, &e) == 0;
	ok(good && image_writer_end(w, 0, &e) == 0 && image_writer_commit(w, root, &e) == 0,
	    "an image of many extents");
	image_writer_free(w);
	packer_free(p);
	free(record);
	ok(image_open(&img, many, &e) == 0 &&
		extents_find(&x, img, &img->manifest.regions[0], 0, o.size, PAGE, &e) == 0,
	    "is looked through");
	ok(x.n == EXTENTS_MAX, "%zu extents are not too many", x.n);
	extents_fini(&x);
	image_close(img);
}

/* ---- two in one chunk ---- */

struct toucher {
	const struct vm *v;
	pthread_t thread;
	pthread_barrier_t *barrier;
	unsigned index, wrong;
};

/* Both in the same chunk at the same time, on pages of their own. */
static void *
touch(void *arg)
{
	struct toucher *t = arg;

	for (size_t at = 4 * MIB; at < 6 * MIB; at += CHUNK) {
		size_t off = at + (14 + t->index) * PAGE;

		pthread_barrier_wait(t->barrier);
		t->wrong += memcmp(t->v->at + off, memory + off, PAGE) != 0;
	}
	return NULL;
}

static void
test_two(void)
{
	struct toucher t[2] = { 0 };
	pthread_barrier_t barrier;
	struct vm v = { 0 };
	struct serve_stats s;

	/* While touches are recorded nobody else decodes anything. */
	ok(start(&v, (struct server_options){ .record = true }), "two threads: starts");
	pthread_barrier_init(&barrier, NULL, 2);
	for (unsigned i = 0; i < 2; i++) {
		t[i] = (struct toucher){ .v = &v, .barrier = &barrier, .index = i };
		pthread_create(&t[i].thread, NULL, touch, &t[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i].thread, NULL);
	pthread_barrier_destroy(&barrier);
	ok(t[0].wrong + t[1].wrong == 0, "both see what is stored");
	/* The last answer may not be counted yet. */
	for (unsigned i = 0; i < 100; i++) {
		usleep(10000);
		s = stats(&v);
		if (stat_get(&s.bytes_decoded) >= 2 * MIB)
			break;
	}
	/* And the page that is written first. */
	ok(stat_get(&s.faults_stored) == 2 * 2 * MIB / CHUNK, "%lu faults",
	    stat_get(&s.faults_stored));
	ok(stat_get(&s.bytes_decoded) <= 2 * MIB + CHUNK,
	    "each chunk was decoded once: %lu KiB", stat_get(&s.bytes_decoded) >> 10);
	ok(stat_get(&s.crossings) > 0, "%lu crossings", stat_get(&s.crossings));
	stop(&v);
}

/* Who comes while somebody is at the chunk leaves its page there. */
static void
test_left(void)
{
	const uint64_t chunk = 5 * MIB / CHUNK, first = chunk * (CHUNK / PAGE);
	bool again, through;
	struct vm v = { 0 };
	struct loaded *l;
	struct filler *f;
	struct claims *c;
	struct entry en;

	ok(start(&v, (struct server_options){ .record = true }) &&
		asked_filler_init(v.server, &e) == 0,
	    "a page that is left to another: starts");
	f = &v.server->asked_filler;
	c = &v.server->objects[0].claims;
	claims_take(c, first + 2);
	l = loaded_get(v.server, 0, chunk, 2, serve_now(), &again, &through);
	ok(l != NULL && !again, "one has the chunk");
	ok(image_reader_entry(f->reader, &v.img->manifest.regions[0], chunk, &en, &e) == 0 &&
		image_reader_load(l->reader, &v.img->manifest.regions[0], chunk, &en, &e) == 0,
	    "and loads it");
	l->entry = en;
	for (uint32_t page = 7; page < 10; page++) {
		claims_take(c, first + page);
		ok(loaded_get(v.server, 0, chunk, page, serve_now(), &again, &through) == NULL,
		    "another leaves page %u", page);
	}
	ok(fill_page(f, l, 2, serve_now(), &e) == 0 && claims_given(c, first + 2) &&
		!claims_given(c, first + 7),
	    "the first page is given");
	ok(loaded_put(f, l, &e) == 0 && claims_given(c, first + 7) &&
		claims_given(c, first + 8) && claims_given(c, first + 9),
	    "and then the others");
	ok(loaded_get(v.server, 0, chunk, 3, serve_now(), &again, &through) == l && again,
	    "it is still decoded");
	ok(loaded_put(f, l, &e) == 0, "let go of");
	ok(memcmp(v.at + 5 * MIB, memory + 5 * MIB, CHUNK) == 0, "all are right");
	stop(&v);
}

/* Without a background the rests come all the same, and the server reads on. */
static void
test_rest(void)
{
	struct vm v = { 0 };
	struct serve_stats s;
	uint8_t sum = 0;

	ok(start(&v, (struct server_options){ 0 }), "a rest: starts");
	for (size_t at = 4 * MIB; at < 6 * MIB; at += CHUNK)
		sum = (uint8_t)(sum + v.at[at]);
	for (unsigned i = 0; i < 300; i++) {
		usleep(10000);
		s = stats(&v);
		/* But for the few that had to make room. */
		if (stat_get(&s.pages_around) + stat_get(&s.pages_demand) >= MIB / PAGE)
			break;
	}
	ok(stat_get(&s.pages_around) > 0, "neighbours are given: %lu (%u)",
	    stat_get(&s.pages_around), sum);
	ok(look(&v, false) == 0, "and right");
	stop(&v);
}

int
main(void)
{
	char name[64], many[64];
	int fd;

	log_setup("test-serve-fault", LOG_LEVEL_ERROR);
	if (uffd_create(&fd, &e) == -1) {
		skip(1, "userfaultfd: %s", e.msg);
		return done();
	}
	close(fd);
	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill();
	snprintf(name, sizeof(name), "/tmp/gmem-fault-%d.gmem", (int)getpid());
	snprintf(many, sizeof(many), "/tmp/gmem-fault-%d-many.gmem", (int)getpid());
	path = name;
	ok(small_image(name, memory, LENGTH, CHUNK, &e) == 0, "image: %s", e.msg);
	test_extents();
	test_many_extents(many);
	test_zeros(false);
	test_zeros(true);
	test_discard();
	test_two();
	test_left();
	test_rest();
	unlink(name);
	unlink(many);
	return done();
}
