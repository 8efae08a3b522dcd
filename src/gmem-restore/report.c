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

static json_t *
latency_json(const struct histogram *h)
{
	json_t *buckets = json_array();
	unsigned i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (stat_get(&h->count[i]) != 0)
			json_array_append_new(
			    buckets, json_pack("[I,I]", (json_int_t)histogram_bound(i),
					 (json_int_t)stat_get(&h->count[i])));
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "count", (json_int_t)stat_get(&h->n),
	    "sum_ns", (json_int_t)stat_get(&h->sum), "p50_ns",
	    (json_int_t)histogram_permille(h, 500), "p90_ns",
	    (json_int_t)histogram_permille(h, 900), "p99_ns",
	    (json_int_t)histogram_permille(h, 990), "max_ns", (json_int_t)stat_get(&h->max),
	    "buckets", buckets);
}

/* Those of first answers. */
static json_t *
latencies_json(const struct serve_stats *s)
{
	struct histogram *h = calloc(1, sizeof(*h));
	json_t *json = NULL;

	if (h != NULL) {
		serve_stats_latency(s, h);
		json = latency_json(h);
	}
	free(h);
	return json;
}

static json_t *
faults_json(const struct serve_stats *s)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "stored",
	    (json_int_t)stat_get(&s->faults_stored), "zero",
	    (json_int_t)stat_get(&s->faults_zero), "present",
	    (json_int_t)stat_get(&s->faults_present), "waited",
	    (json_int_t)stat_get(&s->faults_waited), "outside",
	    (json_int_t)stat_get(&s->faults_outside), "write",
	    (json_int_t)stat_get(&s->faults_write), "vcpu",
	    (json_int_t)stat_get(&s->faults_vcpu));
}

static json_t *
pages_json(const struct serve_stats *s)
{
	return json_pack("{s:I,s:I,s:I}", "demand", (json_int_t)stat_get(&s->pages_demand),
	    "around", (json_int_t)stat_get(&s->pages_around), "background",
	    (json_int_t)stat_get(&s->pages_background));
}

/* Milliseconds since gmem-restore was started; what has not happened is left out. */
static json_t *
times_json(const struct timeline *t)
{
	const struct {
		const char *name;
		uint64_t at;
	} steps[] = {
		{ "launched", t->launched },
		{ "first_mapping", t->server.first_mapping },
		{ "first_fault", t->server.first_fault },
		{ "vmm_connected", t->load.connected },
		{ "state_loaded", t->load.loaded },
		{ "running", t->load.running },
		{ "complete", t->server.complete },
		{ "ended", t->ended },
	};
	json_t *times = json_object();

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (steps[i].at != 0)
			json_object_set_new(times, steps[i].name,
			    json_real(milliseconds(t->started, steps[i].at)));
	return times;
}

static json_t *
report_json(const struct report *r)
{
	json_t *out = json_output();

	json_object_set_new(out, "image", json_string(r->img->path));
	json_object_set_new(out, "root", json_digest(r->img->root));
	json_object_set_new(out, "engine", json_string(r->engine));
	json_object_set_new(out, "times_ms", times_json(&r->times));
	json_object_set_new(out, "faults", faults_json(&r->stats));
	json_object_set_new(out, "pages", pages_json(&r->stats));
	json_object_set_new(
	    out, "bytes_read", json_integer((json_int_t)stat_get(&r->stats.bytes_read)));
	json_object_set_new(
	    out, "bytes_decoded", json_integer((json_int_t)stat_get(&r->stats.bytes_decoded)));
	json_object_set_new(out, "latency", latencies_json(&r->stats));
	return out;
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

void
report_log(const struct report *r)
{
	const struct timeline *t = &r->times;
	char read[16];

	if (t->load.running != 0)
		log_info("the guest ran again after %.1f ms",
		    milliseconds(t->started, t->load.running));
	if (strcmp(r->engine, serve_engine_name(SERVE_EAGER)) == 0)
		return;
	log_info("faults: %llu stored, %llu zero, %llu present; %llu pages around them, "
		 "%llu in the background; %s read",
	    (unsigned long long)stat_get(&r->stats.faults_stored),
	    (unsigned long long)stat_get(&r->stats.faults_zero),
	    (unsigned long long)stat_get(&r->stats.faults_present),
	    (unsigned long long)stat_get(&r->stats.pages_around),
	    (unsigned long long)stat_get(&r->stats.pages_background),
	    opt_human(read, stat_get(&r->stats.bytes_read)));
}
