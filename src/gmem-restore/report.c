/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/json.h"
#include "cli/opt.h"
#include "image/out.h"

static double
milliseconds(uint64_t from, uint64_t to)
{
	return to > from ? (double)(to - from) / 1e6 : 0;
}

int
report_write(const struct report *r, const char *path, struct err *e)
{
	struct out *out = NULL;
	char *text;
	int rc;

	if (strcmp(path, "-") == 0)
		return json_write(STDOUT_FILENO, report_json(r), e);
	if (out_open(&out, path, true, e) == -1)
		return -1;
	text = json_text(report_json(r), e);
	rc = text != NULL && out_write(out, text, strlen(text), e) == 0 &&
		     out_commit(out, e) == 0
		 ? 0
		 : -1;
	free(text);
	out_free(out);
	return rc;
}

static void
log_pages(const struct serve_stats *s)
{
	char read[16];

	log_info("faults: %llu stored, %llu zero, %llu present; %llu pages around them, "
		 "%llu prefetched, %llu in the background; %s read",
	    (unsigned long long)stat_get(&s->faults_stored),
	    (unsigned long long)stat_get(&s->faults_zero),
	    (unsigned long long)stat_get(&s->faults_present),
	    (unsigned long long)stat_get(&s->pages_around),
	    (unsigned long long)stat_get(&s->pages_prefetched),
	    (unsigned long long)stat_get(&s->pages_background),
	    opt_human(read, stat_get(&s->bytes_read)));
}

static void
log_damage(const struct serve_stats *s)
{
	uint64_t poisoned = stat_get(&s->pages_poisoned);

	if (poisoned != 0)
		log_error("the VM has asked for %llu pages that could not be had, and were "
			  "poisoned",
		    (unsigned long long)poisoned);
}

static void
log_latency(const struct serve_stats *s)
{
	struct histogram *h = calloc(1, sizeof(*h));
	uint64_t p50, p99;

	if (h == NULL)
		return;
	serve_stats_latency(s, h);
	p50 = histogram_permille(h, 500);
	p99 = histogram_permille(h, 990);
	if (p50 != 0)
		log_info("a fault waited %llu us (median), %llu us (p99), %llu us (most)",
		    (unsigned long long)p50 / 1000, (unsigned long long)p99 / 1000,
		    (unsigned long long)stat_get(&h->max) / 1000);
	free(h);
}

void
report_log(const struct report *r)
{
	const struct timeline *t = &r->times;
	char most[16], now[16];

	if (t->load.running != 0)
		log_info("the guest ran again after %.1f ms",
		    milliseconds(t->started, t->load.running));
	if (t->server.complete != 0)
		log_info("all memory was there after %.1f ms",
		    milliseconds(t->started, t->server.complete));
	if (strcmp(r->engine, serve_engine_name(SERVE_EAGER)) != 0) {
		log_pages(&r->stats);
		log_latency(&r->stats);
	}
	log_damage(&r->stats);
	log_info("gmem-restore took %.1f ms of CPU, %s of memory at most, %s of its own now",
	    (double)(r->self.user_us + r->self.system_us) / 1e3,
	    opt_human(most, r->self.rss_max), opt_human(now, r->self.rss_anon));
}
