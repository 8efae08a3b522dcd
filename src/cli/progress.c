/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cli/progress.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fdio.h"
#include "cli/opt.h"

#define INTERVAL_NS UINT64_C(100000000)
#define BAR_WIDTH 40

static volatile sig_atomic_t asked;

static void
on_usr1(int sig)
{
	(void)sig;
	asked = 1;
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void
progress_start(struct progress *p, const char *what, bool quiet, int fd)
{
	struct sigaction sa = { .sa_handler = on_usr1, .sa_flags = SA_RESTART };

	*p = (struct progress){ .what = what, .fd = fd };
	p->bar = !quiet && isatty(STDERR_FILENO);
	sigaction(SIGUSR1, &sa, NULL);
}

static void
emit(int fd, const char *text)
{
	struct err e;

	/* Progress that cannot be shown is no reason to fail. */
	(void)fd_write_full(fd, text, strlen(text), &e);
}

static int
percent(const struct progress *p)
{
	return p->total == 0 ? 0 : (int)(p->done * 100 / p->total);
}

static void
draw_bar(struct progress *p)
{
	char line[160], bar[BAR_WIDTH + 1], done[16], total[16];
	int full = percent(p) * BAR_WIDTH / 100;

	memset(bar, ' ', BAR_WIDTH);
	memset(bar, '#', (size_t)full);
	bar[BAR_WIDTH] = '\0';
	snprintf(line, sizeof(line), "\r%s [%s] %3d%% %s of %s\033[K", p->what, bar, percent(p),
	    opt_human(done, p->done), opt_human(total, p->total));
	emit(STDERR_FILENO, line);
	p->shown = true;
}

static void
write_line(struct progress *p)
{
	char line[160];

	snprintf(line, sizeof(line), "%llu %llu %s\n", (unsigned long long)p->done,
	    (unsigned long long)p->total, p->what);
	emit(p->fd, line);
}

static void
answer(struct progress *p)
{
	char line[160], done[16], total[16];

	asked = 0;
	snprintf(line, sizeof(line), "%s: %d%%, %s of %s\n", p->what, percent(p),
	    opt_human(done, p->done), opt_human(total, p->total));
	emit(STDERR_FILENO, line);
}

void
progress_update(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now;

	p->done = done;
	p->total = total;
	if (asked)
		answer(p);
	if (!p->bar && p->fd == -1)
		return;
	now = now_ns();
	if (now - p->last_ns < INTERVAL_NS)
		return;
	p->last_ns = now;
	if (p->bar)
		draw_bar(p);
	if (p->fd != -1)
		write_line(p);
}

void
progress_end(struct progress *p, bool success)
{
	if (p->shown)
		emit(STDERR_FILENO, "\r\033[K");
	if (success && p->fd != -1) {
		p->done = p->total;
		write_line(p);
	}
}
