/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/start.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "vmm/json-read.h"

#define MS_MAX 1e12

static const char *const mark_keys[MARKS] = {
	[MARK_LAUNCHED] = "launched",
	[MARK_FIRST_MAPPING] = "first_mapping",
	[MARK_FIRST_FAULT] = "first_fault",
	[MARK_CONNECTED] = "vmm_connected",
	[MARK_LOADED] = "state_loaded",
	[MARK_PREFETCHED] = "prefetched",
	[MARK_RUNNING] = "running",
	[MARK_COMPLETE] = "complete",
	[MARK_ENDED] = "ended",
};

static const char *const class_keys[CLASSES] = {
	[CLASS_PREFETCHED] = "prefetched",
	[CLASS_DEMAND] = "demand",
	[CLASS_AROUND] = "around",
	[CLASS_BACKGROUND] = "background",
};

const char *
start_mark_name(enum start_mark mark)
{
	return mark_keys[mark];
}

const char *start_class_name(enum start_class class)
{
	return class_keys[class];
}

uint64_t
start_given(const struct start *s)
{
	uint64_t sum = 0;

	for (int i = 0; i < CLASSES; i++)
		sum += s->pages[i];
	return sum;
}

/* ---- values ---- */

static int
wrong(const struct start *s, struct err *e, const char *where, const char *what)
{
	return err_set(e, ERR_CORRUPT, "%s: %s: %s", s->path, where, what);
}

static int
get_object(const struct start *s, json_t *in, const char *key, json_t **out, struct err *e)
{
	*out = json_object_get(in, key);
	return json_is_object(*out) ? 0 : wrong(s, e, key, "is not there, or no object");
}

static int
take_number(const struct start *s, const json_t *j, const char *key, uint64_t *n, struct err *e)
{
	if (!json_is_integer(j) || json_integer_value(j) < 0 ||
	    (uint64_t)json_integer_value(j) > START_NUMBER_MAX)
		return wrong(s, e, key, "is no number from 0 to 2^53");
	*n = (uint64_t)json_integer_value(j);
	return 0;
}

/* 0 where there is none: fields were added over time. */
static int
get_number(const struct start *s, json_t *in, const char *key, uint64_t *n, struct err *e)
{
	const json_t *j = json_object_get(in, key);

	*n = 0;
	return j == NULL ? 0 : take_number(s, j, key, n, e);
}

/* Milliseconds; -1 where there are none. */
static int
take_ms(const struct start *s, const json_t *j, const char *key, double *ms, struct err *e)
{
	*ms = -1;
	if (j == NULL || json_is_null(j))
		return 0;
	if (!json_is_number(j) || !isfinite(json_number_value(j)) || json_number_value(j) < 0 ||
	    json_number_value(j) > MS_MAX)
		return wrong(s, e, key, "is no time in milliseconds");
	*ms = json_number_value(j);
	return 0;
}

/* From 0 to 1; -1 where there is none. */
static int
get_share(const struct start *s, json_t *in, const char *key, double *share, struct err *e)
{
	if (take_ms(s, json_object_get(in, key), key, share, e) == -1 || *share > 1)
		return wrong(s, e, key, "is no share from 0 to 1");
	return 0;
}

static int
get_text(const struct start *s, json_t *in, const char *key, char **text, struct err *e)
{
	const char *value = json_string_value(json_object_get(in, key));

	if (value == NULL)
		return wrong(s, e, key, "is not there, or no text");
	*text = strdup(value);
	return *text == NULL ? err_sys(e, "%s", s->path) : 0;
}

struct field {
	const char *key;
	uint64_t *value;
};

static int
get_fields(const struct start *s, json_t *in, const struct field *list, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (get_number(s, in, list[i].key, list[i].value, e) == -1)
			return -1;
	return 0;
}

#define GET_FIELDS(s, in, list, e) get_fields(s, in, list, sizeof(list) / sizeof((list)[0]), e)

/* ---- its parts ---- */

static int
get_marks(struct start *s, json_t *in, struct err *e)
{
	json_t *times;

	if (get_object(s, in, "times_ms", &times, e) == -1)
		return -1;
	for (int i = 0; i < MARKS; i++)
		if (take_ms(s, json_object_get(times, mark_keys[i]), mark_keys[i], &s->marks[i],
			e) == -1)
			return -1;
	return 0;
}

static int
get_counts(struct start *s, json_t *in, struct err *e)
{
	const struct field faults[] = { { "stored", &s->faults.stored },
		{ "hot", &s->faults.hot }, { "zero", &s->faults.zero },
		{ "present", &s->faults.present }, { "waited", &s->faults.waited },
		{ "outside", &s->faults.outside }, { "write", &s->faults.write },
		{ "vcpu", &s->faults.vcpu } };
	const struct field top[] = { { "bytes_read", &s->bytes_read },
		{ "bytes_decoded", &s->bytes_decoded } };
	json_t *object;

	if (get_object(s, in, "faults", &object, e) == -1 ||
	    GET_FIELDS(s, object, faults, e) == -1 ||
	    get_object(s, in, "pages", &object, e) == -1 ||
	    get_number(s, object, "zero", &s->zero, e) == -1)
		return -1;
	for (int i = 0; i < CLASSES; i++)
		if (get_number(s, object, class_keys[i], &s->pages[i], e) == -1)
			return -1;
	object = json_object_get(in, "crossings");
	if (object != NULL && get_number(s, object, "count", &s->crossings, e) == -1)
		return -1;
	return GET_FIELDS(s, in, top, e);
}

static int
get_prefetch(struct start *s, json_t *in, struct err *e)
{
	const struct field fields[] = { { "listed", &s->prefetch.listed },
		{ "pages", &s->prefetch.pages }, { "bytes", &s->prefetch.bytes },
		{ "late", &s->prefetch.late } };
	json_t *object = json_object_get(in, "prefetch");

	s->prefetch.any = json_is_object(object);
	if (!s->prefetch.any)
		return 0;
	if (take_ms(s, json_object_get(object, "ms"), "prefetch: ms", &s->prefetch.ms, e) ==
		-1 ||
	    get_share(s, object, "precision", &s->prefetch.precision, e) == -1 ||
	    get_share(s, object, "recall", &s->prefetch.recall, e) == -1)
		return -1;
	return GET_FIELDS(s, object, fields, e);
}

static int
get_process(struct start *s, json_t *in, struct err *e)
{
	json_t *object = json_object_get(in, "process");
	double user, system;

	s->cpu_ms = -1;
	if (object == NULL)
		return 0;
	if (take_ms(s, json_object_get(object, "cpu_user_ms"), "cpu_user_ms", &user, e) == -1 ||
	    take_ms(s, json_object_get(object, "cpu_system_ms"), "cpu_system_ms", &system, e) ==
		-1)
		return -1;
	if (user >= 0 && system >= 0)
		s->cpu_ms = user + system;
	return get_number(s, object, "rss_max", &s->rss_max, e);
}

static int
get_buckets(const struct start *s, const char *where, json_t *list, struct start_latency *l,
    struct err *e)
{
	uint64_t sum = 0, last = 0;

	if (!json_is_array(list) || json_array_size(list) > START_BUCKETS_MAX)
		return wrong(s, e, where, "buckets: is no list, or is too long");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *pair = json_array_get(list, i);
		uint64_t *bound = &l->buckets[i].bound, *count = &l->buckets[i].count;

		if (json_array_size(pair) != 2 ||
		    take_number(s, json_array_get(pair, 0), where, bound, e) == -1 ||
		    take_number(s, json_array_get(pair, 1), where, count, e) == -1)
			return wrong(s, e, where, "buckets: is no list of pairs of numbers");
		if (*bound < last || (i > 0 && *bound == last) || ckd_add(&sum, sum, *count) ||
		    sum > START_NUMBER_MAX)
			return wrong(s, e, where, "buckets: are out of order, or too many");
		last = *bound;
	}
	l->nbuckets = json_array_size(list);
	return sum == l->count ? 0 : wrong(s, e, where, "buckets: hold not what was counted");
}

static int
get_latency(
    const struct start *s, json_t *in, const char *key, struct start_latency *l, struct err *e)
{
	const struct field fields[] = { { "count", &l->count }, { "p50_ns", &l->p50 },
		{ "p90_ns", &l->p90 }, { "p99_ns", &l->p99 }, { "max_ns", &l->max } };
	json_t *object;

	if (get_object(s, in, key, &object, e) == -1 || GET_FIELDS(s, object, fields, e) == -1)
		return -1;
	return get_buckets(s, key, json_object_get(object, "buckets"), l, e);
}

static int
get_latencies(struct start *s, json_t *in, struct err *e)
{
	static const char *const keys[BYS] = { [BY_STORED] = "stored",
		[BY_HOT] = "hot",
		[BY_ZERO] = "zero",
		[BY_PRESENT] = "present" };
	json_t *by = json_object_get(in, "latency_by");

	if (get_latency(s, in, "latency", &s->latency, e) == -1)
		return -1;
	for (int i = 0; by != NULL && i < BYS; i++)
		if (get_latency(s, by, keys[i], &s->by[i], e) == -1)
			return -1;
	return 0;
}

static int
get_column(
    const struct start *s, json_t *series, const char *key, uint64_t **out, struct err *e)
{
	json_t *list = json_object_get(series, key);
	uint64_t *values;

	if (json_array_size(list) != s->nsamples)
		return wrong(s, e, "series", "has columns that differ in length");
	values = *out = calloc(s->nsamples + 1, sizeof(*values));
	if (values == NULL)
		return err_sys(e, "%s", s->path);
	for (size_t i = 0; i < s->nsamples; i++) {
		if (take_number(s, json_array_get(list, i), key, &values[i], e) == -1)
			return err_wrap(e, "series");
		if (i > 0 && values[i] < values[i - 1])
			return wrong(s, e, "series", "has numbers that fall");
	}
	return 0;
}

static int
get_series(struct start *s, json_t *in, struct err *e)
{
	json_t *series = json_object_get(in, "series"), *ms = json_object_get(series, "ms");

	if (series == NULL)
		return 0;
	if (!json_is_array(ms) || json_array_size(ms) > START_SAMPLES_MAX)
		return wrong(s, e, "series", "ms: is no list, or is too long");
	s->nsamples = json_array_size(ms);
	s->ms = calloc(s->nsamples + 1, sizeof(*s->ms));
	if (s->ms == NULL)
		return err_sys(e, "%s", s->path);
	for (size_t i = 0; i < s->nsamples; i++) {
		if (take_ms(s, json_array_get(ms, i), "series: ms", &s->ms[i], e) == -1)
			return -1;
		if (s->ms[i] < (i > 0 ? s->ms[i - 1] : 0))
			return wrong(s, e, "series", "ms: time goes backwards");
	}
	for (int i = 0; i < CLASSES; i++)
		if (get_column(s, series, class_keys[i], &s->series[i], e) == -1)
			return -1;
	return 0;
}

static int
get_all(struct start *s, json_t *in, struct err *e)
{
	uint64_t schema = 0;

	if (!json_is_object(in) || get_number(s, in, "schema", &schema, e) == -1 || schema != 1)
		return wrong(s, e, "schema",
		    "is not 1: these are no statistics of gmem-restore --stats, or newer ones");
	if (get_text(s, in, "image", &s->image, e) == -1 ||
	    get_text(s, in, "engine", &s->engine, e) == -1 || get_marks(s, in, e) == -1 ||
	    get_counts(s, in, e) == -1 || get_prefetch(s, in, e) == -1 ||
	    get_process(s, in, e) == -1 || get_latencies(s, in, e) == -1)
		return -1;
	/* Of nothing it says nothing. */
	if (!s->prefetch.any)
		s->marks[MARK_PREFETCHED] = -1;
	return get_series(s, in, e);
}

/* ---- the file ---- */

int
start_read(struct start *s, int fd, const char *path, struct err *e)
{
	char *text = NULL;
	json_t *in;
	size_t len;
	int rc;

	*s = (struct start){ .path = path };
	rc = fd_slurp_fd(fd, START_FILE_MAX, &text, &len, e);
	if (rc == 1)
		return err_set(e, ERR_CORRUPT, "%s: is larger than %zu MiB: no statistics",
		    path, START_FILE_MAX >> 20);
	if (rc == -1)
		return err_wrap(e, "%s", path);
	in = json_read(text, len, JSON_REJECT_DUPLICATES, e);
	rc = in != NULL ? get_all(s, in, e) : err_wrap(e, "%s", path);
	json_decref(in);
	free(text);
	return rc;
}

void
start_free(struct start *s)
{
	free(s->image);
	free(s->engine);
	free(s->ms);
	for (int i = 0; i < CLASSES; i++)
		free(s->series[i]);
}
