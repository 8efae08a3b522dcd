/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json.h"
#include "gmem-restore/report.h"

/*
 * gmem-stats(5) is the norm.  Adding to what could not be made fails quietly; json_text
 * then says so.
 */

static double
milliseconds(uint64_t from, uint64_t to)
{
	return to > from ? (double)(to - from) / 1e6 : 0;
}

static void
put_counter(json_t *to, const char *key, const stat_counter *counter)
{
	json_put(to, key, stat_get(counter));
}

static json_t *
latency_json(const struct histogram *h)
{
	json_t *json = json_object(), *buckets = json_array();

	put_counter(json, "count", &h->n);
	put_counter(json, "sum_ns", &h->sum);
	json_put(json, "p50_ns", histogram_permille(h, 500));
	json_put(json, "p90_ns", histogram_permille(h, 900));
	json_put(json, "p99_ns", histogram_permille(h, 990));
	put_counter(json, "max_ns", &h->max);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (stat_get(&h->count[i]) != 0)
			json_array_append_new(
			    buckets, json_pack("[I,I]", (json_int_t)histogram_bound(i),
					 (json_int_t)stat_get(&h->count[i])));
	json_object_set_new(json, "buckets", buckets);
	return json;
}

/* Those of first answers. */
static json_t *
first_latency_json(const struct serve_stats *s)
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
latency_by_json(const struct serve_stats *s)
{
	static const char *const names[ANSWERS] = {
		[ANSWER_STORED] = "stored",
		[ANSWER_HOT] = "hot",
		[ANSWER_ZERO] = "zero",
		[ANSWER_PRESENT] = "present",
	};
	json_t *json = json_object();

	for (int i = 0; i < ANSWERS; i++)
		json_object_set_new(json, names[i], latency_json(&s->latency[i]));
	return json;
}

static json_t *
faults_json(const struct serve_stats *s)
{
	json_t *json = json_object();

	put_counter(json, "stored", &s->faults_stored);
	put_counter(json, "hot", &s->faults_hot);
	put_counter(json, "zero", &s->faults_zero);
	put_counter(json, "present", &s->faults_present);
	put_counter(json, "waited", &s->faults_waited);
	put_counter(json, "outside", &s->faults_outside);
	put_counter(json, "write", &s->faults_write);
	put_counter(json, "vcpu", &s->faults_vcpu);
	return json;
}

static uint64_t
pages_given(const struct serve_stats *s)
{
	return stat_get(&s->pages_demand) + stat_get(&s->pages_around) +
	       stat_get(&s->pages_prefetched) + stat_get(&s->pages_background);
}

static json_t *
pages_json(const struct serve_stats *s)
{
	json_t *json = json_object();

	put_counter(json, "demand", &s->pages_demand);
	put_counter(json, "around", &s->pages_around);
	put_counter(json, "prefetched", &s->pages_prefetched);
	put_counter(json, "background", &s->pages_background);
	json_put(json, "given", pages_given(s));
	put_counter(json, "zero", &s->pages_zero);
	put_counter(json, "poisoned", &s->pages_poisoned);
	put_counter(json, "left", &s->pages_left);
	return json;
}

static json_t *
crossings_json(const struct serve_stats *s)
{
	uint64_t n = stat_get(&s->crossings), pages = pages_given(s);
	json_t *json = json_object();

	json_put(json, "count", n);
	json_object_set_new(json, "per_1000_pages",
	    pages == 0 ? json_null() : json_real((double)n * 1000 / (double)pages));
	return json;
}

/* What part of n pages were both prefetched and touched. */
static void
put_share(json_t *json, const char *key, const struct report *r, uint64_t n)
{
	json_object_set_new(json, key,
	    !r->recorded || n == 0 ? json_null() : json_real((double)r->hits / (double)n));
}

/* Null where nothing was to be prefetched, or where nobody can know. */
static json_t *
prefetch_json(const struct report *r)
{
	const struct serve_stats *s = &r->stats;
	uint64_t us = stat_get(&s->prefetch_us);
	json_t *json;

	if (stat_get(&s->prefetch_listed) == 0 && stat_get(&s->pages_prefetched) == 0)
		return json_null();
	json = json_object();
	put_counter(json, "listed", &s->prefetch_listed);
	put_counter(json, "pages", &s->pages_prefetched);
	put_counter(json, "bytes", &s->bytes_prefetched);
	put_counter(json, "late", &s->prefetch_late);
	json_object_set_new(json, "ms", us == 0 ? json_null() : json_real((double)us / 1000));
	/* The guest's first access to a page that is mapped tells nobody, unless it is
	 * recorded. */
	put_share(json, "precision", r, stat_get(&s->prefetch_listed));
	put_share(json, "recall", r, r->touched);
	return json;
}

static json_t *
process_json(const struct self *self)
{
	json_t *json = json_object();

	json_object_set_new(json, "cpu_user_ms", json_real((double)self->user_us / 1000));
	json_object_set_new(json, "cpu_system_ms", json_real((double)self->system_us / 1000));
	json_put(json, "rss_max", self->rss_max);
	json_put(json, "rss_anon", self->rss_anon);
	json_put(json, "rss_shmem", self->rss_shmem);
	return json;
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
		{ "prefetched", t->server.prefetched },
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

/* Column by column. */
static json_t *
series_json(const struct report *r)
{
	static const struct {
		const char *name;
		size_t offset;
	} columns[] = {
		{ "demand", offsetof(struct sample, demand) },
		{ "around", offsetof(struct sample, around) },
		{ "prefetched", offsetof(struct sample, prefetched) },
		{ "background", offsetof(struct sample, background) },
		{ "zero", offsetof(struct sample, zero) },
		{ "faults", offsetof(struct sample, faults) },
		{ "bytes_read", offsetof(struct sample, bytes_read) },
	};
	json_t *json = json_object(), *list = json_array();

	for (size_t i = 0; i < r->nsamples; i++)
		json_array_append_new(
		    list, json_real(milliseconds(r->times.started, r->samples[i].at)));
	json_object_set_new(json, "ms", list);
	for (size_t c = 0; c < sizeof(columns) / sizeof(columns[0]); c++) {
		list = json_array();
		for (size_t i = 0; i < r->nsamples; i++) {
			const char *sample = (const char *)&r->samples[i];
			uint64_t value;

			memcpy(&value, sample + columns[c].offset, sizeof(value));
			json_array_append_new(list, json_integer((json_int_t)value));
		}
		json_object_set_new(json, columns[c].name, list);
	}
	return json;
}

json_t *
report_json(const struct report *r)
{
	const struct serve_stats *s = &r->stats;
	json_t *out = json_output();

	json_object_set_new(out, "image", json_string(r->img->path));
	json_object_set_new(out, "root", json_digest(r->img->root));
	json_object_set_new(out, "engine", json_string(r->engine));
	json_object_set_new(out, "times_ms", times_json(&r->times));
	json_object_set_new(out, "faults", faults_json(s));
	json_object_set_new(out, "pages", pages_json(s));
	put_counter(out, "bytes_read", &s->bytes_read);
	put_counter(out, "bytes_decoded", &s->bytes_decoded);
	json_object_set_new(out, "crossings", crossings_json(s));
	json_object_set_new(out, "prefetch", prefetch_json(r));
	json_object_set_new(out, "latency", first_latency_json(s));
	json_object_set_new(out, "latency_by", latency_by_json(s));
	json_object_set_new(out, "process", process_json(&r->self));
	json_put(out, "restarts", r->pager.restarts);
	json_object_set_new(out, "series", series_json(r));
	return out;
}
