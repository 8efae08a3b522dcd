/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * A page server that is killed at any moment, and one that goes on: server processes are killed
 * again and again while a VMM (takeover-vmm.c) touches its memory and checks every byte.
 *
 * GMEM_TAKEOVER_KILLS is the number of kills for each setup, GMEM_TAKEOVER_SEED repeats one.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "base/log.h"
#include "pass-fd.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "takeover.h"
#include "tap.h"

#define HOT 300u
#define KILLS 12u /* for each setup */
#define KILLS_ROUND 40u /* of one VMM */
#define PATIENCE_NS UINT64_C(60000000000)

static const struct setup setups[] = {
	{ "continue", VM_SHARED, SERVE_CONTINUE, PREFETCH_NONE, .discards = true },
	{ "continue, hot", VM_SHARED, SERVE_CONTINUE, PREFETCH_HOT, .background = true },
	{ "continue, all", VM_SHARED, SERVE_CONTINUE, PREFETCH_ALL, .background = true,
	    .discards = true, .late = true },
	{ "map-continue", VM_SHARED, SERVE_MAP_CONTINUE, PREFETCH_NONE, .discards = true },
	{ "huge pages", VM_SHARED, SERVE_AUTO, PREFETCH_ALL, .huge = true, .background = true,
	    .late = true },
	{ "huge pages, on demand", VM_SHARED, SERVE_AUTO, PREFETCH_NONE, .huge = true },
	{ "guest_memfd", VM_SHARED, SERVE_AUTO, PREFETCH_HOT, .discards = true,
	    .gmem = GMEM_SHARED },
	{ "guest_memfd, map-continue", VM_SHARED, SERVE_MAP_CONTINUE, PREFETCH_ALL,
	    .discards = true, .background = true, .gmem = GMEM_SHARED },
	{ "eager", VM_SHARED, SERVE_EAGER, PREFETCH_NONE, .huge = false },
	{ "copy", VM_OWN, SERVE_COPY, PREFETCH_NONE, .discards = true, .events = true },
	{ "copy, all", VM_OWN, SERVE_COPY, PREFETCH_ALL, .background = true, .discards = true,
	    .events = true, .late = true },
	{ "copy, hot, no events", VM_OWN, SERVE_AUTO, PREFETCH_HOT, .background = true },
	{ "copy, eager", VM_OWN, SERVE_EAGER, PREFETCH_NONE, .huge = false },
	{ "copy, huge pages", VM_OWN, SERVE_AUTO, PREFETCH_NONE, .huge = true,
	    .background = true },
	{ "source", VM_ASKS, SERVE_AUTO, PREFETCH_NONE, .huge = false },
	{ "source, all", VM_ASKS, SERVE_AUTO, PREFETCH_ALL, .background = true, .late = true },
	{ "source, huge pages", VM_ASKS, SERVE_AUTO, PREFETCH_NONE, .huge = true,
	    .background = true },
};

static uint8_t *memory; /* what the image holds */
static const char *image_path;
static uint64_t chance;
static uint64_t start_ns; /* until a server is ready, about */

static uint64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- who starts and kills them ---- */

static uint64_t
below(uint64_t n)
{
	return random_next(&chance) % n;
}

/* At the start, or while it serves: most are killed soon. */
static uint64_t
life(const struct game *g)
{
	if (g->touched && g->late > 0)
		return start_ns + 150000000 + below(150000000);
	if (below(4) == 0)
		return below(start_ns);
	return start_ns + below(UINT64_C(100000) << below(7));
}

static int
start_server(struct game *g, bool kill_it)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return -1;
	g->servers++;
	fflush(stdout);
	g->server = fork();
	if (g->server == 0) {
		fd_close(&ends[0]);
		g->sock = ends[1];
		serve(g, image_path);
	}
	fd_close(&ends[1]);
	g->sock = ends[0];
	g->ready = g->complete = g->told = false;
	g->began = now();
	g->kill_at = kill_it ? g->began + life(g) : 0;
	return g->server == -1 ? -1 : 0;
}

/* Whatever it has said until then was said. */
static void hear_server(struct game *g);

static void
kill_server(struct game *g)
{
	kill(g->server, SIGKILL);
	waitpid(g->server, NULL, 0);
	hear_server(g);
	fd_close(&g->sock);
	g->kills++;
	if (g->touched && g->late > 0)
		g->late--;
}

static void
hear_server(struct game *g)
{
	char what;

	while (g->sock != -1 && recv(g->sock, &what, 1, MSG_DONTWAIT) == 1) {
		switch (what) {
		case MAPPED:
			g->mapped++;
			break;
		case READY:
			g->ready = true;
			start_ns = (3 * start_ns + now() - g->began) / 4;
			break;
		case COMPLETE:
			g->complete = true;
			break;
		case FAILED:
			g->failed = true;
			break;
		case ANSWER:
			g->asked = g->told = false;
			if (send(g->vmm_sock, "", 1, MSG_NOSIGNAL) != 1)
				g->failed = true;
			break;
		}
	}
}

static void
hear_vmm(struct game *g)
{
	ssize_t n = recv(g->vmm_sock, &g->request, sizeof(g->request), 0);

	if (n != (ssize_t)sizeof(g->request) || g->request.what == VM_WRONG)
		g->failed = true;
	else if (g->request.what == VM_TOUCHED)
		g->touched = true;
	else if (g->request.what == VM_FINE)
		g->over = true;
	else
		g->asked = true;
}

static int
nap_ms(const struct game *g)
{
	uint64_t at = now();

	if (g->kill_at == 0)
		return 1000;
	return g->kill_at > at ? (int)((g->kill_at - at) / 1000000) : 0;
}

/* Something has happened, or it is time to kill. */
static void
step(struct game *g)
{
	struct pollfd p[] = { { .fd = g->sock, .events = POLLIN },
		{ .fd = g->asked ? -1 : g->vmm_sock, .events = POLLIN } };
	int n;

	if (g->asked && g->ready && !g->told) {
		g->told = true;
		if (send(g->sock, &g->request, sizeof(g->request), MSG_NOSIGNAL) == -1)
			g->failed = true;
	}
	n = poll(p, 2, nap_ms(g));
	/* To the microsecond, or there are moments when none is ever killed. */
	while (n == 0 && g->kill_at != 0 && now() < g->kill_at)
		n = poll(p, 2, 0);
	if (p[1].revents != 0)
		hear_vmm(g);
	if ((p[0].revents & POLLIN) != 0)
		hear_server(g);
	else if ((p[0].revents & POLLHUP) != 0)
		g->failed = true;
}

/* ---- a round: one VMM, many servers ---- */

static int
start_vmm(struct game *g)
{
	struct vm_plan plan = { .kind = g->how->kind,
		.image = memory,
		.len = LENGTH,
		.page_size = g->page_size,
		.fd = g->fd,
		.discards = g->how->discards,
		.events = g->how->events,
		.seed = random_next(&chance) };
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return -1;
	fflush(stdout);
	g->vmm = fork();
	if (g->vmm == 0) {
		fd_close(&ends[0]);
		vm_main(&plan, ends[1]);
	}
	fd_close(&ends[1]);
	g->vmm_sock = ends[0];
	if (g->vmm == -1)
		return -1;
	return take_fd(g->vmm_sock, &g->offer, sizeof(g->offer), &g->uffd);
}

/* Until it may touch its memory. */
static bool
is_prepared(const struct game *g)
{
	return g->ready && (g->how->kind == VM_ASKS || g->mapped == g->offer.n);
}

/* The servers are killed until the VMM has touched all, and the last one lives. */
static void
go(struct game *g, unsigned kills)
{
	uint64_t until = now() + PATIENCE_NS;
	bool started = false;

	while (!g->over && !g->failed && now() < until) {
		bool kill_it = g->touched ? g->late > 0 : g->kills < kills;

		if (g->sock == -1 && start_server(g, kill_it) == -1)
			break;
		step(g);
		if (!started && is_prepared(g)) {
			started = true;
			if (send(g->vmm_sock, "g", 1, MSG_NOSIGNAL) != 1)
				break;
		}
		if (g->kill_at != 0 && now() >= g->kill_at && !g->failed)
			kill_server(g);
		else if (g->touched && g->kill_at == 0 &&
			 (g->complete || (g->ready && !g->how->background))) {
			g->touched = false;
			if (send(g->vmm_sock, "", 1, MSG_NOSIGNAL) != 1)
				break;
		}
	}
}

static void
end(struct game *g)
{
	int *fds[] = { &g->fd, &g->claims, &g->events, &g->uffd, &g->vmm_sock, &g->sock };

	if (g->vmm > 0 && kill(g->vmm, SIGKILL) == 0)
		waitpid(g->vmm, NULL, 0);
	if (g->sock != -1 && g->server > 0 && kill(g->server, SIGKILL) == 0)
		waitpid(g->server, NULL, 0);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		fd_close(fds[i]);
}

/* False: something is wrong. */
static bool
play_round(const struct setup *how, unsigned kills, unsigned *killed)
{
	uint64_t seed = chance;
	struct game g = { .how = how,
		.page_size = how->huge ? HUGE : VM_PAGE,
		.late = how->late ? 2 : 0,
		.fd = -1,
		.claims = -1,
		.events = -1,
		.uffd = -1,
		.vmm_sock = -1,
		.sock = -1 };
	struct err e = ERR_INIT;

	if (takeover_memory(&g, &e) == 0 && start_vmm(&g) == 0)
		go(&g, kills);
	*killed += g.kills;
	if (!g.over)
		printf("# seed %#lx, after %u kills: %s %s\n", seed, g.kills,
		    g.failed ? "failed" : "it took too long", e.msg);
	end(&g);
	return g.over;
}

static void
play(const struct setup *how, unsigned kills)
{
	unsigned killed = 0, rounds = 0;
	bool good = true;

	start_ns = 2000000;
	for (; good && killed < kills; rounds++)
		good = play_round(how, MIN(kills - killed, KILLS_ROUND), &killed);
	ok(good, "%s: %u kills, %u rounds", how->name, killed, rounds);
}

static int
make_image(struct err *e)
{
	struct hot_page hot[HOT];

	fill_memory(memory, LENGTH / 2, 13, 1);
	fill_memory(memory + LENGTH / 2, LENGTH / 4, 5, 2);
	for (uint32_t i = 0; i < HOT; i++)
		hot[i] = (struct hot_page){ .page = (i * UINT64_C(37)) % (LENGTH / VM_PAGE) };
	return small_hot_image(image_path, memory, LENGTH, 65536, hot, HOT, NULL, e);
}

static void
play_all(int argc, char **argv)
{
	const char *kills = getenv("GMEM_TAKEOVER_KILLS");
	const char *why;

	for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
		if (argc > 1 && strcmp(setups[i].name, argv[1]) != 0)
			continue;
		why = takeover_lacks(&setups[i]);
		if (why != NULL)
			skip(1, "%s: %s", setups[i].name, why);
		else
			play(&setups[i],
			    kills != NULL ? (unsigned)atoi(kills) : (unsigned)KILLS);
	}
}

int
main(int argc, char **argv)
{
	const char *seed = getenv("GMEM_TAKEOVER_SEED");
	char path[] = "test-serve-takeover.XXXXXX";
	struct err e = ERR_INIT;
	int fd;

	log_setup("test-serve-takeover", LOG_LEVEL_ERROR);
	if (uffd_create(&fd, &e) == -1) {
		skip(1, "userfaultfd: %s", e.msg);
		return done();
	}
	fd_close(&fd);
	chance = seed != NULL ? strtoull(seed, NULL, 0) : now();
	memory = calloc(1, LENGTH);
	fd = mkstemp(path);
	if (memory == NULL || fd == -1)
		return 99;
	fd_close(&fd);
	image_path = path;
	if (make_image(&e) == -1)
		ok(false, "image: %s", e.msg);
	else
		play_all(argc, argv);
	unlink(path);
	return done();
}
