/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Engine copy: a child plays a VMM that has memory of its own, registers it, and hands over
 * its userfaultfd after the handshake.  What it sees is compared with what the image was made
 * of, and what it has discarded with zeros.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/log.h"
#include "pass-fd.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "tap.h"

#define PAGE 4096u
#define HUGE (2u << 20)
#define PARTS_MAX 4
#define PATIENCE_MS 60000

/* ---- the VMM ---- */

struct part {
	uint8_t *at;
	uint64_t off, len; /* of the region */
};

struct offer {
	struct part parts[PARTS_MAX];
	unsigned n;
};

struct vm {
	struct offer offer;
	int uffd, sock;
	uint32_t page_size;
	unsigned seed;
};

struct setup {
	const char *name;
	int (*play)(struct vm *vm); /* in the child: its exit status */
	uint64_t features;
	bool blocking;
	bool no_background;
	bool split; /* into many VMAs */
	bool populated; /* each seventh page was there before it registered */
	bool late; /* its parts are mapped while it runs already */
	bool dense; /* no page of zeros */
	bool sparing; /* neighbours spare most of the faults */
	bool lies; /* its pages are small, whatever page_size says */
	bool killed; /* it is, in the middle */
	bool untold; /* nobody tells the server that it is dead */
	bool wants_complete; /* it waits until all is there before it goes on */
	enum serve_engine engine;
	uint32_t page_size; /* 0: 4096 */
	uint64_t cuts[PARTS_MAX - 1]; /* where parts end, in pages; 0: no more */
	const char *fails; /* what the server says in the end */
};

static uint8_t *memory; /* what the image holds */
static uint64_t length = 4u << 20;
#define LENGTH_MAX (8u << 20) /* with huge pages */
static const char *image_path;
static enum prefetch_kind prefetch = PREFETCH_NONE;

enum { FRESH, GOING, GONE };
static _Atomic uint8_t *removed; /* for each page, of the child */

static uint8_t *
place(const struct vm *vm, uint64_t off)
{
	for (unsigned i = 0; i < vm->offer.n; i++)
		if (off - vm->offer.parts[i].off < vm->offer.parts[i].len)
			return vm->offer.parts[i].at + (off - vm->offer.parts[i].off);
	return NULL;
}

static bool
is_populated(uint64_t page)
{
	return page % 7 == 3;
}

static bool populated;

/* Reads a page and compares it: 0, or 1 and says what is wrong. */
static int
look(const struct vm *vm, uint64_t page)
{
	const volatile uint64_t *is = (const void *)place(vm, page * PAGE);
	const uint64_t *want = (const void *)(memory + page * PAGE);
	uint8_t before = atomic_load(&removed[page]);
	uint64_t got[PAGE / 8];

	for (unsigned i = 0; i < PAGE / 8; i++)
		got[i] = is[i];
	for (unsigned i = 0; i < PAGE / 8; i++) {
		uint64_t w = populated && is_populated(page) ? ~want[i] : want[i];

		if ((before != GONE && got[i] == w) ||
		    (got[i] == 0 && atomic_load(&removed[page]) != FRESH))
			continue;
		printf("# page %lu word %u: %#lx, not %#lx; %s\n", page, i, got[i], w,
		    before == FRESH  ? "fresh"
		    : before == GONE ? "was discarded"
				     : "is being discarded");
		fflush(stdout);
		return 1;
	}
	return 0;
}

static int
look_at_all(const struct vm *vm)
{
	int wrong = 0;

	for (uint64_t page = 0; page < length / PAGE && wrong == 0; page++)
		wrong = place(vm, page * PAGE) != NULL ? look(vm, page) : 0;
	return wrong;
}

struct looker {
	const struct vm *vm;
	pthread_t thread;
	unsigned seed;
	int wrong;
};

/* Every page, in an order of its own. */
static void *
look_around(void *arg)
{
	struct looker *l = arg;
	uint64_t n = length / PAGE, state = l->seed, step = random_next(&state) | 1;
	uint64_t page = random_next(&state);

	for (uint64_t i = 0; i < n && l->wrong == 0; i++, page += step)
		l->wrong = look(l->vm, page % n);
	return NULL;
}

static int
with_threads(const struct vm *vm, unsigned n)
{
	struct looker l[8];
	int wrong = 0;

	for (unsigned i = 0; i < n; i++) {
		l[i] = (struct looker){ .vm = vm, .seed = vm->seed + i };
		pthread_create(&l[i].thread, NULL, look_around, &l[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(l[i].thread, NULL);
		wrong |= l[i].wrong;
	}
	return wrong;
}

static int
discard(const struct vm *vm, uint64_t page, uint64_t n)
{
	uint8_t *at = place(vm, page * PAGE), *end = place(vm, (page + n - 1) * PAGE);

	if (at == NULL || end != at + (n - 1) * PAGE)
		return 0;
	for (uint64_t i = page; i < page + n; i++)
		if (atomic_load(&removed[i]) == FRESH)
			atomic_store(&removed[i], GOING);
	if (madvise(at, n * PAGE, MADV_DONTNEED) == -1) {
		printf("# discard page %lu: %s\n", page, strerror(errno));
		return 1;
	}
	for (uint64_t i = page; i < page + n; i++)
		atomic_store(&removed[i], GONE);
	return 0;
}

static atomic_bool enough;

/* Discards about half of the memory, again and again. */
static void *
storm(void *arg)
{
	const struct vm *vm = arg;
	uint64_t unit = vm->page_size / PAGE, n = length / PAGE / unit, state = vm->seed;

	while (!atomic_load(&enough)) {
		uint64_t at = random_next(&state) % n, len = 1 + random_next(&state) % 16;

		if (at % 32 < 16 && at % 32 + len <= 16 && at + len <= n &&
		    discard(vm, at * unit, len * unit) != 0)
			_exit(1);
	}
	return NULL;
}

struct neighbour {
	const struct vm *vm;
	pthread_barrier_t *start;
	pthread_t thread;
	uint64_t page;
	int wrong;
};

static void *
look_once(void *arg)
{
	struct neighbour *n = arg;

	pthread_barrier_wait(n->start);
	n->wrong = look(n->vm, n->page);
	return NULL;
}

/* Threads that look at neighbours in the same moment, of pages of zeros for the most part. */
static int
play_neighbours(struct vm *vm)
{
	struct neighbour n[8];
	pthread_barrier_t start;
	int wrong = 0;

	pthread_barrier_init(&start, NULL, 8);
	for (uint64_t page = length / 4 / PAGE; page < length / 2 / PAGE; page += 64) {
		for (unsigned i = 0; i < 8; i++) {
			n[i] = (struct neighbour){ vm, &start, 0, page + i * 8, 0 };
			pthread_create(&n[i].thread, NULL, look_once, &n[i]);
		}
		for (unsigned i = 0; i < 8; i++) {
			pthread_join(n[i].thread, NULL);
			wrong |= n[i].wrong;
		}
	}
	pthread_barrier_destroy(&start);
	return wrong;
}

static int
await(const struct vm *vm, char what)
{
	char c;

	return read(vm->sock, &c, 1) == 1 && c == what ? 0 : 1;
}

static int
play_look(struct vm *vm)
{
	return look_at_all(vm);
}

static int
play_threads(struct vm *vm)
{
	return with_threads(vm, 4);
}

static int
play_complete(struct vm *vm)
{
	return await(vm, 'c') != 0 || look_at_all(vm);
}

static int
play_discard_first(struct vm *vm)
{
	uint64_t unit = vm->page_size / PAGE;

	for (uint64_t page = 0; page < length / PAGE; page += 3 * unit)
		if (discard(vm, page, unit) != 0)
			return 1;
	return with_threads(vm, 2);
}

/* Discards every other page, once, one by one. */
static void *
discard_once(void *arg)
{
	const struct vm *vm = arg;
	uint64_t n = length / PAGE, state = vm->seed, step = random_next(&state) | 1;

	for (uint64_t i = 0, page = 0; i < n; i++, page += step)
		if (page % 2 == 1 && discard(vm, page % n, 1) != 0)
			_exit(1);
	return NULL;
}

static int
play_discard_while(struct vm *vm)
{
	pthread_t thread;
	int wrong;

	pthread_create(&thread, NULL, discard_once, vm);
	wrong = with_threads(vm, 2);
	pthread_join(thread, NULL);
	return wrong || await(vm, 'c') || look_at_all(vm);
}

static int
play_discard_while_filled(struct vm *vm)
{
	discard_once(vm);
	return await(vm, 'c') || look_at_all(vm);
}

static int
play_discard_then(struct vm *vm)
{
	if (look_at_all(vm) != 0 || await(vm, 'c') != 0)
		return 1;
	return play_discard_first(vm);
}

static int
play_storm(struct vm *vm)
{
	pthread_t threads[2];
	struct vm other = *vm;
	int wrong;

	other.seed += 77;
	pthread_create(&threads[0], NULL, storm, vm);
	pthread_create(&threads[1], NULL, storm, &other);
	wrong = with_threads(vm, 4);
	/* Also when all is there, and after the release. */
	wrong |= await(vm, 'c');
	wrong |= with_threads(vm, 2);
	atomic_store(&enough, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return wrong || look_at_all(vm);
}

static int
play_storm_for_ever(struct vm *vm)
{
	pthread_t thread;

	pthread_create(&thread, NULL, storm, vm);
	for (;;)
		if (with_threads(vm, 2) != 0)
			return 1;
}

/* What the guest writes stays. */
static int
play_write(struct vm *vm)
{
	for (uint64_t page = 0; page < length / PAGE; page += 2) {
		uint64_t *word = (void *)place(vm, page * PAGE);

		if (word == NULL)
			return 1;
		word[7] ^= 1;
		*(uint64_t *)(void *)(memory + page * PAGE + 56) ^= 1;
	}
	return with_threads(vm, 2) || await(vm, 'c') || look_at_all(vm);
}

/* The kernel reads and writes it. */
static int
play_syscalls(struct vm *vm)
{
	int ends[2];

	if (pipe(ends) == -1)
		return 1;
	for (uint64_t page = 0; page < length / PAGE; page++) {
		uint8_t *at = place(vm, page * PAGE), got[PAGE];

		if (page % 2 == 0) {
			if (write(ends[1], at, PAGE) != PAGE ||
			    read(ends[0], got, PAGE) != PAGE ||
			    memcmp(got, memory + page * PAGE, PAGE) != 0)
				return 1;
		} else if (write(ends[1], memory + page * PAGE + 100, 50) != 50 ||
			   read(ends[0], at + 100, 50) != 50) {
			return 1;
		}
	}
	return look_at_all(vm);
}

/* Without an event: whoever knows nothing of it gives the page, but only once. */
static int
play_silent_discard(struct vm *vm)
{
	return look_at_all(vm) || play_discard_first(vm);
}

static int
play_unmap(struct vm *vm)
{
	struct part *p = &vm->offer.parts[0];
	uint64_t half = p->len / 2;

	if (look(vm, 0) != 0 || munmap(p->at, half) == -1)
		return 1;
	p->at += half;
	p->off += half;
	p->len -= half;
	return look_at_all(vm) || await(vm, 'c') || look_at_all(vm);
}

static int
play_remap(struct vm *vm)
{
	void *p =
	    mremap(vm->offer.parts[0].at, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	return p == MAP_FAILED;
}

static int
play_fork(struct vm *vm)
{
	pid_t pid = fork();

	(void)vm;
	if (pid == 0)
		_exit(0);
	return waitpid(pid, NULL, 0) == -1;
}

/* Memory that it registers and hands over to nobody. */
static int
play_untold(struct vm *vm)
{
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	volatile uint8_t *at =
	    mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	r.range = (struct uffdio_range){ (uintptr_t)at, PAGE };
	return ioctl(vm->uffd, UFFDIO_REGISTER, &r) == -1 || *at != 0;
}

static int
play_late(struct vm *vm)
{
	unsigned n = vm->offer.n;

	vm->offer.n = 1;
	if (look_at_all(vm) != 0)
		return 1;
	vm->offer.n = n;
	return with_threads(vm, 2) || await(vm, 'c') || look_at_all(vm);
}

/* Behind the server's back. */
static int
play_block(struct vm *vm)
{
	return fcntl(vm->uffd, F_SETFL, 0) == -1 || with_threads(vm, 4);
}

/* ---- its start ---- */

static int
make_part(struct vm *vm, const struct setup *how, uint64_t from, uint64_t to)
{
	bool huge = vm->page_size > PAGE && !how->lies;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0);
	struct part p = { NULL, from, to - from };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	p.at = mmap(NULL, p.len + (how->lies ? HUGE : 0), PROT_READ | PROT_WRITE, flags, -1, 0);
	if (p.at == MAP_FAILED)
		return -1;
	p.at += how->lies ? align_up((uintptr_t)p.at, HUGE) - (uintptr_t)p.at : 0;
	for (uint64_t off = 0; populated && off < p.len; off += PAGE)
		for (unsigned i = 0; is_populated((from + off) / PAGE) && i < PAGE; i++)
			p.at[off + i] = (uint8_t)~memory[from + off + i];
	r.range = (struct uffdio_range){ (uintptr_t)p.at, p.len };
	if (ioctl(vm->uffd, UFFDIO_REGISTER, &r) == -1)
		return -1;
	for (uint64_t off = 5 * PAGE; how->split && off + 3 * PAGE < p.len; off += 11 * PAGE)
		if (madvise(p.at + off, 3 * PAGE, MADV_DONTDUMP) == -1)
			return -1;
	vm->offer.parts[vm->offer.n++] = p;
	return 0;
}

static void __attribute__((noreturn)) vmm(const struct setup *how, int sock)
{
	struct vm vm = { .sock = sock, .page_size = MAX(how->page_size, PAGE), .seed = 5 };
	struct uffdio_api api = { .api = UFFD_API, .features = how->features };
	uint64_t from = 0;
	struct err e;

	populated = how->populated;
	removed = calloc(length / PAGE, 1);
	if (uffd_create(&vm.uffd, &e) == -1 || ioctl(vm.uffd, UFFDIO_API, &api) == -1 ||
	    fcntl(vm.uffd, F_SETFL, how->blocking ? 0 : O_NONBLOCK) == -1)
		_exit(2);
	for (unsigned i = 0; from < length; i++) {
		uint64_t to =
		    i < PARTS_MAX - 1 && how->cuts[i] != 0 ? how->cuts[i] * PAGE : length;

		if (make_part(&vm, how, from, to) == -1)
			_exit(3);
		from = to;
	}
	if (pass_fd(sock, &vm.offer, sizeof(vm.offer), vm.uffd) == -1 || await(&vm, 'g') != 0)
		_exit(4);
	_exit(how->play(&vm));
}

/* ---- the server ---- */

struct game {
	const struct setup *how;
	struct server *server;
	struct image *img;
	pid_t pid;
	int sock, uffd;
	struct offer offer;
	unsigned process;
};

static int
start_vmm(struct game *g)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return -1;
	fflush(stdout);
	g->pid = fork();
	if (g->pid == 0) {
		close(ends[0]);
		vmm(g->how, ends[1]);
	}
	close(ends[1]);
	g->sock = ends[0];
	if (g->pid == -1)
		return -1;
	return take_fd(g->sock, &g->offer, sizeof(g->offer), &g->uffd);
}

static int
add_part(struct game *g, unsigned i, struct err *e)
{
	const struct part *p = &g->offer.parts[i];

	return server_add_mapping(
	    g->server, g->process, (uintptr_t)p->at, p->len, 0, p->off, e);
}

static int
start_server(struct game *g, struct err *e)
{
	struct server_options o = { .nworkers = 3,
		.nfillers = 2,
		.background = g->how->no_background ? BACKGROUND_OFF : BACKGROUND_ON,
		.engine = g->how->engine,
		.prefetch.kind = prefetch };
	unsigned n = g->how->late ? 0 : g->offer.n;

	if (image_open(&g->img, image_path, e) == -1 ||
	    server_new(&g->server, g->img, &o, e) == -1 ||
	    server_add_foreign(g->server, 0, MAX(g->how->page_size, PAGE), -1, e) == -1 ||
	    server_adopt_process(g->server, g->uffd, -1, &g->process, e) == -1 ||
	    server_start(g->server, e) == -1)
		return -1;
	for (unsigned i = 0; i < n; i++)
		if (add_part(g, i, e) == -1)
			return -1;
	return 0;
}

/* Until the state is another one than FILLING. */
static enum server_state
await_server(struct game *g, struct err *e)
{
	struct pollfd p = { .fd = server_event_fd(g->server), .events = POLLIN };
	uint64_t count;

	while (server_state(g->server, e) == SERVER_FILLING && poll(&p, 1, PATIENCE_MS) == 1)
		if (read(p.fd, &count, sizeof(count)) == -1)
			break;
	return server_state(g->server, e);
}

static int
await_child(pid_t pid)
{
	int status = 0;

	for (int ms = 0; ms < PATIENCE_MS; ms += 5) {
		const struct timespec nap = { .tv_nsec = 5000000 };

		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		nanosleep(&nap, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

static void
sleep_ms(long ms)
{
	const struct timespec nap = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&nap, NULL);
}

static void
map_late(struct game *g)
{
	struct err e = ERR_INIT;
	int rc = 0;

	for (unsigned i = 0; i < g->offer.n && rc == 0; i++) {
		sleep_ms(2);
		rc = add_part(g, i, &e);
	}
	ok(rc == 0, "%s: mapped late %s", g->how->name, e.msg);
}

static void
conclude(struct game *g)
{
	const struct setup *how = g->how;
	struct serve_stats stats;
	struct server_times times;
	enum server_state state = SERVER_FILLING;
	struct err e = ERR_INIT;
	int status;

	if (how->late)
		map_late(g);
	if ((!how->no_background && !how->killed) || how->fails != NULL)
		state = await_server(g, &e);
	if (how->killed) {
		sleep_ms(30);
		kill(g->pid, SIGKILL);
	}
	if (how->fails != NULL)
		kill(g->pid, SIGKILL);
	if (write(g->sock, "c", 1) != 1)
		printf("# %s: it is gone\n", how->name);
	status = await_child(g->pid);
	if (how->killed && !how->untold)
		server_remove_process(g->server, g->process);
	if (how->killed)
		state = await_server(g, &e);
	if (how->fails != NULL) {
		ok(state == SERVER_FAILED && strstr(e.msg, how->fails) != NULL, "%s: %s",
		    how->name, e.msg);
		return;
	}
	state = server_state(g->server, &e);
	server_stats(g->server, &stats, &times);
	if (!ok(status == (how->killed ? SIGKILL : 0) &&
		    state == (how->no_background ? SERVER_FILLING : SERVER_COMPLETE),
		"%s", how->name))
		printf("# status %#x, state %u %s\n", (unsigned)status, state, e.msg);
	if (how->sparing)
		ok(stat_get(&stats.pages_demand) * 2 < length / PAGE, "%s: few faults",
		    how->name);
	printf("# faults: %lu stored, %lu zero, %lu present, %lu waited, %lu outside; "
	       "pages: %lu demand, %lu around, %lu background\n",
	    stat_get(&stats.faults_stored), stat_get(&stats.faults_zero),
	    stat_get(&stats.faults_present), stat_get(&stats.faults_waited),
	    stat_get(&stats.faults_outside), stat_get(&stats.pages_demand),
	    stat_get(&stats.pages_around), stat_get(&stats.pages_background));
}

/* In pages of 4 KiB, whatever the pages are. */
static uint64_t
stored_pages(uint64_t page_size)
{
	uint64_t n = 0, i;

	for (uint64_t off = 0; off < length; off += page_size) {
		for (i = 0; i < page_size && memory[off + i] == 0; i++)
			;
		n += i < page_size ? page_size / PAGE : 0;
	}
	return n;
}

static void
play(const struct setup *how)
{
	struct game g = { .how = how, .sock = -1 };
	struct serve_stats stats;
	struct server_times times;
	struct err e = ERR_INIT;

	if (start_vmm(&g) == -1 || start_server(&g, &e) == -1) {
		ok(false, "%s: start: %s", how->name, e.msg);
	} else {
		if (how->engine == SERVE_EAGER) {
			server_stats(g.server, &stats, &times);
			ok(stat_get(&stats.pages_background) ==
				stored_pages(MAX(how->page_size, PAGE)),
			    "%s: all is there before it runs", how->name);
		}
		if (write(g.sock, "g", 1) != 1)
			printf("# it did not start\n");
		conclude(&g);
	}
	if (g.pid > 0)
		kill(g.pid, SIGKILL);
	server_free(g.server);
	image_close(g.img);
	close(g.sock);
}

static const struct setup setups[] = {
	{ .name = "touched in order",
	    .play = play_look,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "touched in order, no background",
	    .play = play_look,
	    .no_background = true,
	    .sparing = true },
	{ .name = "4 threads", .play = play_threads, .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "4 threads, no background", .play = play_threads, .no_background = true },
	{ .name = "in the background alone",
	    .play = play_complete,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "a blocking descriptor", .play = play_threads, .blocking = true },
	{ .name = "a descriptor that is blocking again",
	    .play = play_block,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "a descriptor that is blocking again, no background",
	    .play = play_block,
	    .no_background = true },
	{ .name = "parts that cut chunks",
	    .play = play_threads,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .cuts = { 37, 38, 1003 } },
	{ .name = "parts that cut chunks, no background",
	    .play = play_threads,
	    .no_background = true,
	    .cuts = { 37, 38, 1003 } },
	{ .name = "parts, in the background alone",
	    .play = play_complete,
	    .cuts = { 37, 38, 1003 } },
	{ .name = "parts that come late", .play = play_late, .late = true, .cuts = { 1003 } },
	{ .name = "many VMAs",
	    .play = play_threads,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .split = true },
	{ .name = "many VMAs, in the background alone", .play = play_complete, .split = true },
	{ .name = "pages that were there before", .play = play_threads, .populated = true },
	{ .name = "pages that were there, among zeros",
	    .play = play_neighbours,
	    .populated = true,
	    .no_background = true },
	{ .name = "pages that were there, in the background alone",
	    .play = play_complete,
	    .populated = true },
	{ .name = "what is written stays",
	    .play = play_write,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "the kernel reads and writes it", .play = play_syscalls },
	{ .name = "eager",
	    .play = play_complete,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .engine = SERVE_EAGER,
	    .cuts = { 37, 1003 } },
	{ .name = "asked for by name", .play = play_look, .engine = SERVE_COPY },
	{ .name = "discarded before it is touched",
	    .play = play_discard_first,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "discarded before it is touched, no background",
	    .play = play_discard_first,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .no_background = true,
	    .cuts = { 37, 38, 1003 } },
	{ .name = "discarded while it is filled",
	    .play = play_discard_while_filled,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .late = true,
	    .dense = true },
	{ .name = "discarded while it is filled and touched",
	    .play = play_discard_while,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .late = true,
	    .dense = true },
	{ .name = "discarded before it is known",
	    .play = play_discard_first,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .late = true,
	    .cuts = { 37, 1003 } },
	{ .name = "discarded when all is there",
	    .play = play_discard_then,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "a storm of discards",
	    .play = play_storm,
	    .features = UFFD_FEATURE_EVENT_REMOVE },
	{ .name = "a storm of discards, blocking, in parts",
	    .play = play_storm,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .blocking = true,
	    .cuts = { 37, 1003 } },
	{ .name = "a storm of discards, eager",
	    .play = play_storm,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .engine = SERVE_EAGER },
	{ .name = "discards without events",
	    .play = play_silent_discard,
	    .no_background = true },
	{ .name = "unmapped in part",
	    .play = play_unmap,
	    .features = UFFD_FEATURE_EVENT_UNMAP },
	{ .name = "unmapped in part, without events", .play = play_unmap },
	{ .name = "killed in a storm",
	    .play = play_storm_for_ever,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .killed = true },
	{ .name = "killed in a storm, and nobody tells",
	    .play = play_storm_for_ever,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .killed = true,
	    .untold = true },
	{ .name = "moves memory",
	    .no_background = true,
	    .play = play_remap,
	    .features = UFFD_FEATURE_EVENT_REMAP,
	    .fails = "moves memory" },
	{ .name = "memory that is not handed over",
	    .no_background = true,
	    .play = play_untold,
	    .fails = "not handed over" },
	{ .name = "says that its pages are huge",
	    .play = play_threads,
	    .lies = true,
	    .populated = true,
	    .page_size = HUGE,
	    .fails = "are not of 2048 KiB" },
	{ .name = "says that its pages are huge, no background",
	    .no_background = true,
	    .play = play_threads,
	    .lies = true,
	    .populated = true,
	    .page_size = HUGE,
	    .fails = "are not of 2048 KiB" },
	{ .name = "forks",
	    .no_background = true,
	    .play = play_fork,
	    .features = UFFD_FEATURE_EVENT_FORK,
	    .fails = "makes a child" },
};

static const struct setup huge_setups[] = {
	{ .name = "huge pages: 4 threads",
	    .play = play_threads,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .page_size = HUGE },
	{ .name = "huge pages, no background",
	    .play = play_threads,
	    .no_background = true,
	    .page_size = HUGE,
	    .cuts = { 512 } },
	{ .name = "huge pages, in the background alone",
	    .play = play_complete,
	    .page_size = HUGE },
	{ .name = "huge pages, eager",
	    .play = play_complete,
	    .page_size = HUGE,
	    .engine = SERVE_EAGER },
	{ .name = "huge pages, discarded",
	    .play = play_discard_first,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .page_size = HUGE },
	{ .name = "huge pages, a storm",
	    .play = play_storm,
	    .features = UFFD_FEATURE_EVENT_REMOVE,
	    .page_size = HUGE },
	{ .name = "huge pages, what is written stays", .play = play_write, .page_size = HUGE },
};

/* ---- what is refused ---- */

static void
refused(int rc, enum err_kind kind, const struct err *e, const char *name)
{
	if (!ok(rc == -1 && e->kind == kind, "refused: %s", name))
		printf("# %d %u %s\n", rc, e->kind, e->msg);
	else
		printf("# %s\n", e->msg);
}

static int
new_uffd(bool handshake)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct err e;
	int fd = -1;

	if (uffd_create(&fd, &e) == 0 && handshake && ioctl(fd, UFFDIO_API, &api) == -1)
		printf("# handshake: %s\n", strerror(errno));
	return fd;
}

static void
try_engine(
    const struct image *img, enum serve_engine engine, uint64_t page_size, const char *name)
{
	struct server_options o = { .engine = engine };
	struct err e = ERR_INIT;
	struct server *s;

	if (server_new(&s, img, &o, &e) == -1)
		return;
	refused(server_add_foreign(s, 0, page_size, -1, &e), ERR_UNSUPPORTED, &e, name);
	server_free(s);
}

static void
try_memfd(const struct image *img, enum serve_engine engine, bool source, const char *name)
{
	struct server_options o = { .engine = engine };
	struct served_memory m = { .fd = memfd_create("test", MFD_CLOEXEC),
		.page_size = PAGE,
		.bitmap = -1,
		.source = source };
	struct err e = ERR_INIT;
	struct server *s;

	if (ftruncate(m.fd, (off_t)length) == -1 || server_new(&s, img, &o, &e) == -1)
		return;
	refused(server_add_memory(s, 0, &m, &e), ERR_UNSUPPORTED, &e, name);
	server_free(s);
	close(m.fd);
}

static void
try_mappings(const struct image *img)
{
	struct server_options o = { 0 };
	uint64_t at = UINT64_C(1) << 40, half = length / 2;
	unsigned own, other, more;
	struct err e = ERR_INIT;
	struct server *s;
	int zero = open("/dev/zero", O_RDONLY);

	if (server_new(&s, img, &o, &e) == -1 || server_add_foreign(s, 0, PAGE, -1, &e) == -1)
		return;
	refused(server_add_foreign(s, 0, PAGE, -1, &e), ERR_CORRUPT, &e, "a region twice");
	refused(
	    server_add_foreign(s, 1, PAGE, -1, &e), ERR_CORRUPT, &e, "a region that is not");
	refused(server_adopt_process(s, zero, -1, &own, &e), ERR_SYS, &e, "no userfaultfd");
	refused(server_adopt_process(s, new_uffd(false), -1, &own, &e), ERR_SYS, &e,
	    "no handshake");
	if (server_adopt_process(s, new_uffd(true), -1, &own, &e) == -1 ||
	    server_adopt_process(s, new_uffd(true), -1, &more, &e) == -1 ||
	    server_add_process(s, new_uffd(false), &other, &e) == -1 ||
	    server_add_mapping(s, own, at, half, 0, 0, &e) == -1) {
		ok(false, "adopt: %s", e.msg);
		return;
	}
	refused(server_add_mapping(s, own, at + length, PAGE / 2, 0, half, &e), ERR_CORRUPT, &e,
	    "half a page");
	refused(server_add_mapping(s, own, at + length + 1, PAGE, 0, half, &e), ERR_CORRUPT, &e,
	    "an address within a page");
	refused(server_add_mapping(s, own, at + length, half + PAGE, 0, half, &e), ERR_CORRUPT,
	    &e, "beyond the end");
	refused(server_add_mapping(s, own, at + length, half, 0, half - PAGE, &e), ERR_CORRUPT,
	    &e, "a part twice");
	refused(server_add_mapping(s, own, at + half - PAGE, half, 0, half, &e), ERR_CORRUPT,
	    &e, "an address twice");
	refused(server_add_mapping(s, other, at + length, half, 0, half, &e), ERR_CORRUPT, &e,
	    "of a process that was not adopted");
	refused(server_add_mapping(s, more, at + length, half, 0, half, &e), ERR_CORRUPT, &e,
	    "of a second process");
	server_free(s);
}

static void
refusals(void)
{
	struct err e = ERR_INIT;
	struct image *img;

	if (image_open(&img, image_path, &e) == -1) {
		ok(false, "%s", e.msg);
		return;
	}
	try_engine(img, SERVE_CONTINUE, PAGE, "engine continue for foreign memory");
	try_engine(img, SERVE_SOURCE, PAGE, "engine source for foreign memory");
	try_engine(img, SERVE_AUTO, PAGE / 2, "pages of 2 KiB");
	try_engine(img, SERVE_AUTO, 3 * PAGE, "pages of 12 KiB");
	try_memfd(img, SERVE_COPY, false, "engine copy for a memfd");
	try_memfd(img, SERVE_SOURCE, false, "engine source for a memfd");
	try_memfd(img, SERVE_COPY, true, "engine copy for a VMM that asks");
	try_mappings(img);
	image_close(img);
}

/* ---- all ---- */

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

static int
make_image(bool dense, uint32_t chunk, struct err *e)
{
	memset(memory, 0, length);
	fill_memory(memory, length / 4, dense ? 16 : 12, 1);
	if (dense)
		fill_memory(memory + length / 4, length / 4, 16, 3);
	fill_memory(memory + length / 2, length / 2, dense ? 16 : 5, 2);
	return small_image(image_path, memory, length, chunk, e);
}

static void
play_all(const struct setup *list, size_t n, uint32_t chunk, int argc, char **argv)
{
	struct err e = ERR_INIT;

	for (unsigned dense = 0; dense < 2; dense++) {
		if (make_image(dense, chunk, &e) == -1) {
			ok(false, "image: %s", e.msg);
			return;
		}
		for (size_t i = 0; i < n; i++)
			if (list[i].dense == dense &&
			    (argc < 2 || strstr(list[i].name, argv[1]) != NULL))
				play(&list[i]);
	}
}

int
main(int argc, char **argv)
{
	const uint32_t chunks[] = { 16384, 65536, 2097152 };
	char path[] = "test-serve-copy.XXXXXX";
	struct err e = ERR_INIT;
	int fd;

	log_setup("test-serve-copy", LOG_LEVEL_ERROR);
	if (uffd_create(&fd, &e) == -1) {
		skip(1, "userfaultfd: %s", e.msg);
		return done();
	}
	close(fd);
	memory = calloc(1, LENGTH_MAX);
	fd = mkstemp(path);
	if (memory == NULL || fd == -1)
		return 99;
	close(fd);
	image_path = path;
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		printf("# chunks of %u\n", chunks[i]);
		play_all(setups, sizeof(setups) / sizeof(setups[0]), chunks[i], argc, argv);
	}
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		printf("# chunks of %u, prefetched\n", chunks[i]);
		prefetch = PREFETCH_ALL;
		play_all(setups, sizeof(setups) / sizeof(setups[0]), chunks[i], argc, argv);
	}
	length = LENGTH_MAX;
	if (huge_pages_free(length / HUGE))
		play_all(huge_setups, sizeof(huge_setups) / sizeof(huge_setups[0]), 65536, argc,
		    argv);
	else
		skip(1, "huge pages");
	refusals();
	unlink(path);
	return done();
}
