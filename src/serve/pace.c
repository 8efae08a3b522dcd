/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "serve/pace.h"

#include <time.h>

#include "base/ckd.h"
#include "serve/internal.h"

#define NAP_MAX_NS UINT64_C(50000000)

/* A rate is kept over this part of a second. */
#define BURSTS_PER_SECOND 10

static void
nap(uint64_t ns)
{
	const struct timespec ts = { .tv_nsec = (long)MIN(ns, NAP_MAX_NS) };

	nanosleep(&ts, NULL);
}

static bool
goes_on(const struct server *s)
{
	return !atomic_load(&s->stop) && atomic_load(&s->state) != SERVER_FAILED;
}

void
pace_begin(struct pace *p, struct server *s, uint64_t rate)
{
	*p = (struct pace){ .server = s,
		.rate = rate,
		.last = serve_now(),
		.tokens = (int64_t)(rate / BURSTS_PER_SECOND) };
}

/* Bytes that may be given now, after `ns` in which nothing was. */
static int64_t
tokens_after(int64_t tokens, uint64_t rate, uint64_t ns)
{
	uint64_t most = MAX(rate / BURSTS_PER_SECOND, 1);
	/* More time than the bucket takes to fill does not count, and does not overflow. */
	double more = (double)rate * (double)ns / 1e9;

	if (more >= (double)most - (double)tokens)
		return (int64_t)most;
	return tokens + (int64_t)more;
}

/* How long until there are tokens, ns. */
static uint64_t
due(struct pace *p)
{
	uint64_t now = serve_now();
	int64_t tokens = tokens_after(p->tokens, p->rate, now - p->last);

	/* What is less than a byte is not forgotten. */
	if (tokens != p->tokens) {
		p->tokens = tokens;
		p->last = now;
	}
	return tokens > 0 ? 0 : (uint64_t)((double)(1 - tokens) * 1e9 / (double)p->rate) + 1;
}

uint64_t
pace_piece(const struct pace *p, uint64_t most)
{
	return p->rate == 0 ? most : MIN(most, p->rate / BURSTS_PER_SECOND);
}

bool
pace_next(struct pace *p, uint64_t bytes)
{
	uint64_t left;

	p->tokens -= (int64_t)bytes;
	while (p->rate != 0 && goes_on(p->server) && (left = due(p)) != 0)
		nap(left);
	return goes_on(p->server);
}
