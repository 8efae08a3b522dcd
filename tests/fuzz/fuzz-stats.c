/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <math.h>
#include <unistd.h>

#include "base/fdio.h"
#include "fuzz.h"
#include "gmem-inspect/start.h"
#include "image/out.h"

/* Statistics of a start: what is taken can be printed and drawn. */

static void
check_latency(const struct start_latency *l)
{
	uint64_t sum = 0;

	must(l->nbuckets <= START_BUCKETS_MAX);
	for (size_t i = 0; i < l->nbuckets; i++) {
		must(i == 0 || l->buckets[i].bound > l->buckets[i - 1].bound);
		sum += l->buckets[i].count;
	}
	must(sum == l->count);
}

static void
check(const struct start *s)
{
	must(s->image != NULL && s->engine != NULL);
	must(s->nsamples <= START_SAMPLES_MAX);
	for (int i = 0; i < MARKS; i++)
		must(isfinite(s->marks[i]));
	for (size_t i = 0; i < s->nsamples; i++)
		must(isfinite(s->ms[i]) && s->ms[i] >= (i > 0 ? s->ms[i - 1] : 0));
	check_latency(&s->latency);
	for (int i = 0; i < BYS; i++)
		check_latency(&s->by[i]);
}

static void
show(const struct start *s)
{
	struct err e = ERR_INIT;
	struct out *out;

	fuzz_quiet();
	must(start_text(s, &e) == 0);
	must(out_open(&out, "-", true, &e) == 0);
	must(starts_svg(s, 1, out, &e) == 0);
	out_free(out);
	fuzz_loud();
}

int
fuzz_one(const uint8_t *data, size_t size)
{
	static struct start s; /* it is not small */
	int fd = fuzz_memfd(data, size);
	struct err e = ERR_INIT;

	if (lseek(fd, 0, SEEK_SET) == 0 && start_read(&s, fd, "fuzz", &e) == 0) {
		check(&s);
		show(&s);
	} else {
		must(e.kind == ERR_CORRUPT && e.msg[0] != '\0');
	}
	start_free(&s);
	fd_close(&fd);
	return 0;
}
