/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * gmem-bench-fault: what a demand fault costs, without a guest.  A process touches pages
 * of memory that the real gmem-restore serves; in the same rounds it touches memory that the
 * least possible serves.  Medians of rounds, ratios within each round.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "fault.h"
#include "serve/stats.h"

#define ROUNDS_MAX 99u
#define RESTORE_ARGS_MAX 24

static const char usage[] =
    "usage: gmem-bench-fault [OPTION]... IMAGE [-- OPTION-OF-GMEM-RESTORE...]\n"
    "       gmem-bench-fault --make GIB,CHUNKS[,CHUNK-SIZE] IMAGE\n"
    "       gmem-bench-fault --touch MEMORY PLAN\n"
    "  --order random|sequential|mix   of the touches; mix: 8.6 % are of the next page\n"
    "  --threads N --touches N         touchers (1 to 4), and touches of each\n"
    "  --gap US                        between touches\n"
    "  --place same|other|float        where bare servers run; and gmem-restore, unless it\n"
    "                                  was given options\n"
    "  --against IMAGE                 the same with that image, compared\n"
    "  --scale                         the same with one thread, compared\n"
    "  --hogs N                        the same with N busy neighbours, compared\n"
    "  --rounds N --seed N --json\n";

static struct {
	const char *image, *against;
	int order; /* enum order */
	unsigned threads, touches, gap_us, rounds, hogs;
	uint64_t seed;
	int place; /* 0: same, 1: other, 2: anywhere */
	bool scale, json;
	char **restore_args;
	int nrestore_args;
} o = { .threads = 1, .touches = 2000, .rounds = 5, .seed = 7, .place = 0 };

/* One way to serve the touches, in every round. */
struct side {
	const char *name;
	enum { BARE, DECODE, PRODUCT } kind;
	enum bare bare;
	const char *image; /* of PRODUCT */
	unsigned threads, hogs;
	double p50[ROUNDS_MAX], p90[ROUNDS_MAX], p99[ROUNDS_MAX], max[ROUNDS_MAX];
	double rate[ROUNDS_MAX]; /* touches per second */
	double faults, crossings, decoded, around; /* of the last round */
};

static struct err e;

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double
quantile(const double *list, size_t n, double q)
{
	double *v = malloc(n * sizeof(*v)), x;

	if (v == NULL)
		err(1, "memory");
	memcpy(v, list, n * sizeof(*v));
	qsort(v, n, sizeof(*v), compare);
	x = v[(size_t)((double)(n - 1) * q + 0.5)];
	free(v);
	return x;
}

/* ---- rounds ---- */

static int
cpu_of(unsigned thread)
{
	return (int)(thread % (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
}

static void
server_cpus(int cpus[THREADS_MAX])
{
	for (unsigned i = 0; i < THREADS_MAX; i++)
		cpus[i] = o.place == 2 ? -1 : o.place == 1 ? cpu_of(i + 1) : cpu_of(i);
}

static void __attribute__((noreturn))
restore_process(const struct side *s, const char *plan, const char *stats)
{
	char *argv[RESTORE_ARGS_MAX + 12] = { (char *)(uintptr_t) "gmem-restore",
		(char *)(uintptr_t) "--no-background", (char *)(uintptr_t) "--stats",
		(char *)(uintptr_t)stats };
	int n = 4, cpus[THREADS_MAX];

	for (int i = 0; i < o.nrestore_args; i++)
		argv[n++] = o.restore_args[i];
	argv[n++] = (char *)(uintptr_t)s->image;
	argv[n++] = (char *)(uintptr_t) "--";
	argv[n++] = realpath("/proc/self/exe", NULL);
	argv[n++] = (char *)(uintptr_t) "--touch";
	argv[n++] = (char *)(uintptr_t) "{mem}";
	argv[n++] = (char *)(uintptr_t)plan;
	server_cpus(cpus);
	if (o.nrestore_args == 0 && s->threads == 1)
		pin_to(cpus[0]);
	execvp(argv[0], argv);
	err(127, "gmem-restore");
}

static double
number(const json_t *stats, const char *group, const char *key)
{
	const json_t *from = group != NULL ? json_object_get(stats, group) : stats;

	json_int_t n = json_integer_value(json_object_get(from, key));

	return (double)n;
}

static void
read_stats(struct side *s, const char *path)
{
	json_t *stats = json_load_file(path, 0, NULL);

	s->faults = number(stats, "faults", "stored");
	s->around = number(stats, "pages", "around");
	s->decoded = number(stats, NULL, "bytes_decoded");
	s->crossings = number(stats, "crossings", "count");
	json_decref(stats);
	unlink(path);
}

static void
run_product(struct side *s, const char *plan)
{
	char stats[40];
	pid_t pid;
	int status;

	snprintf(stats, sizeof(stats), "%s.stats", plan);
	pid = fork();
	if (pid == 0)
		restore_process(s, plan, stats);
	if (pid == -1 || waitpid(pid, &status, 0) == -1 || status != 0)
		errx(1, "gmem-restore failed");
	read_stats(s, stats);
}

static void
start_hogs(unsigned n, pid_t *pids)
{
	for (unsigned i = 0; i < n; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			setsid();
			for (volatile unsigned k = 0;; k++)
				;
		}
	}
}

static void
stop_hogs(unsigned n, const pid_t *pids)
{
	for (unsigned i = 0; i < n; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
}

static void
evaluate(struct side *s, unsigned round, struct plan *p)
{
	size_t n = (size_t)p->nthreads * p->n, faults = 0;
	double *ns = malloc((n + 1) * sizeof(*ns));
	uint64_t wall = 1;

	/* What takes less was there. */
	for (size_t i = 0; i < n; i++)
		if (o.order == ORDER_RANDOM || p->touches[i].ns > 1500)
			ns[faults++] = (double)p->touches[i].ns / 1e3;
	for (unsigned i = 0; i < p->nthreads; i++)
		wall = MAX(wall, p->wall_ns[i]);
	if (faults == 0)
		ns[faults++] = 0;
	s->p50[round] = quantile(ns, faults, 0.5);
	s->p90[round] = quantile(ns, faults, 0.9);
	s->p99[round] = quantile(ns, faults, 0.99);
	s->max[round] = quantile(ns, faults, 1);
	s->rate[round] = (double)n * 1e9 / (double)wall;
	free(ns);
}

static void
run_side(struct side *s, unsigned round)
{
	int cpus[THREADS_MAX];
	pid_t hogs[64];
	struct image *img;
	struct plan *p;
	char path[32];

	if (image_open(&img, s->image, &e) == -1)
		errx(1, "%s", e.msg);
	p = plan_make(img, (enum order)o.order, s->threads, o.touches, o.seed + round, path);
	p->gap_us = o.gap_us;
	for (unsigned i = 0; i < s->threads; i++)
		p->cpu[i] = cpu_of(i);
	server_cpus(cpus);
	start_hogs(s->hogs, hogs);
	if (s->kind == BARE)
		touch_bare(p, s->bare, img->fd, cpus);
	else if (s->kind == DECODE)
		decode_bare(p, img->fd);
	else
		run_product(s, path);
	stop_hogs(s->hogs, hogs);
	evaluate(s, round, p);
	munmap(p, plan_bytes(p));
	unlink(path);
	image_close(img);
}

/* ---- report ---- */

static json_t *report;

static void
tell(const char *name, const char *what, double value, const char *unit)
{
	char key[64];

	snprintf(key, sizeof(key), "%s_%s", name, what);
	json_object_set_new(report, key, json_real(value));
	if (!o.json)
		printf("%-24s %10.2f %s\n", key, value, unit);
}

static void
tell_side(const struct side *s)
{
	tell(s->name, "p50", quantile(s->p50, o.rounds, 0.5), "us");
	tell(s->name, "p90", quantile(s->p90, o.rounds, 0.5), "us");
	tell(s->name, "p99", quantile(s->p99, o.rounds, 0.5), "us");
	tell(s->name, "max", quantile(s->max, o.rounds, 0.5), "us");
	if (s->kind != DECODE)
		tell(s->name, "rate", quantile(s->rate, o.rounds, 0.5), "/s");
	if (s->kind != PRODUCT)
		return;
	tell(s->name, "faults", s->faults, "");
	tell(s->name, "around", s->around, "pages");
	tell(s->name, "decoded", s->decoded / 1048576, "MiB");
	tell(s->name, "crossings", s->crossings, "");
}

/* The median of what rounds say: a / (b + c). */
static void
tell_ratio(const char *name, const double *a, const double *b, const double *c)
{
	double v[ROUNDS_MAX];

	for (unsigned i = 0; i < o.rounds; i++)
		v[i] = a[i] / (b[i] + (c != NULL ? c[i] : 0));
	tell("ratio", name, quantile(v, o.rounds, 0.5), "x");
}

enum { FLOOR, DECODING, BOTH, COPY, FAULT, OTHER, SIDES };

static void
measure(void)
{
	static struct side s[SIDES] = {
		[FLOOR] = { .name = "floor", .kind = BARE, .bare = BARE_CONTINUE },
		[DECODING] = { .name = "decode", .kind = DECODE },
		[BOTH] = { .name = "bare", .kind = BARE, .bare = BARE_DECODE },
		[COPY] = { .name = "copy", .kind = BARE, .bare = BARE_COPY },
		[FAULT] = { .name = "fault", .kind = PRODUCT },
		[OTHER] = { .name = "other", .kind = PRODUCT },
	};
	bool other = o.against != NULL || o.scale || o.hogs > 0;

	report = json_object();
	for (unsigned i = 0; i < SIDES; i++) {
		s[i].image = o.image;
		s[i].threads = o.threads;
	}
	if (o.against != NULL)
		s[OTHER].image = o.against;
	if (o.scale)
		s[OTHER].threads = 1;
	s[OTHER].hogs = o.hogs;
	for (unsigned round = 0; round < o.rounds; round++)
		for (unsigned i = other ? FAULT : 0; i < (other ? SIDES : OTHER); i++)
			run_side(&s[i], round);
	for (unsigned i = other ? FAULT : 0; i < (other ? SIDES : OTHER); i++)
		tell_side(&s[i]);
	if (!other) {
		tell_ratio("p50_floor_decode", s[FAULT].p50, s[FLOOR].p50, s[DECODING].p50);
		tell_ratio("p99_floor_decode", s[FAULT].p99, s[FLOOR].p99, s[DECODING].p99);
		tell_ratio("p50_bare", s[FAULT].p50, s[BOTH].p50, NULL);
		tell_ratio("p99_bare", s[FAULT].p99, s[BOTH].p99, NULL);
		tell_ratio("p50_copy", s[FAULT].p50, s[COPY].p50, NULL);
	} else if (o.scale) {
		tell_ratio("rate_threads", s[FAULT].rate, s[OTHER].rate, NULL);
	} else {
		tell_ratio("p50_other", s[OTHER].p50, s[FAULT].p50, NULL);
		tell_ratio("p99_other", s[OTHER].p99, s[FAULT].p99, NULL);
	}
	if (o.json)
		json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	json_decref(report);
}

/* ---- options ---- */

static int
one_of(const char *text, const char *const *list)
{
	for (int i = 0; list[i] != NULL; i++)
		if (strcmp(text, list[i]) == 0)
			return i;
	errx(2, "\"%s\"?\n%s", text, usage);
}

static int
make(const char *what, const char *path)
{
	unsigned gib, chunk_size = 64u << 10;
	unsigned long chunks;

	if (path == NULL || sscanf(what, "%u,%lu,%u", &gib, &chunks, &chunk_size) < 2)
		errx(2, "%s", usage);
	make_image(path, gib, chunks, chunk_size);
	return 0;
}

static void
parse(int argc, char **argv)
{
	static const char *const orders[] = { "random", "sequential", "mix", NULL };
	static const char *const places[] = { "same", "other", "float", NULL };
	static const struct option options[] = { { "order", 1, NULL, 'o' },
		{ "threads", 1, NULL, 't' }, { "touches", 1, NULL, 'n' },
		{ "gap", 1, NULL, 'g' }, { "place", 1, NULL, 'p' }, { "against", 1, NULL, 'a' },
		{ "scale", 0, NULL, 's' }, { "hogs", 1, NULL, 'h' }, { "rounds", 1, NULL, 'r' },
		{ "seed", 1, NULL, 'S' }, { "json", 0, NULL, 'j' }, { 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1)
		switch (c) {
		case 'o':
			o.order = one_of(optarg, orders);
			break;
		case 'p':
			o.place = one_of(optarg, places);
			break;
		case 't':
			o.threads = MIN((unsigned)atoi(optarg), THREADS_MAX);
			break;
		case 'n':
			o.touches = (unsigned)atoi(optarg);
			break;
		case 'g':
			o.gap_us = MIN((unsigned)atoi(optarg), 900000u);
			break;
		case 'a':
			o.against = optarg;
			break;
		case 's':
			o.scale = true;
			break;
		case 'h':
			o.hogs = MIN((unsigned)atoi(optarg), 64u);
			break;
		case 'r':
			o.rounds = MIN((unsigned)atoi(optarg), ROUNDS_MAX);
			break;
		case 'S':
			o.seed = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			o.json = true;
			break;
		default:
			errx(2, "%s", usage);
		}
	if (optind == argc || o.threads == 0 || o.touches == 0 || o.rounds == 0)
		errx(2, "%s", usage);
	o.image = argv[optind++];
	if (optind < argc && strcmp(argv[optind], "--") == 0)
		optind++;
	o.restore_args = argv + optind;
	o.nrestore_args = argc - optind;
	if (o.nrestore_args > RESTORE_ARGS_MAX)
		errx(2, "%s", usage);
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "--touch") == 0)
		return touch_memory(argv[2], argv[3]);
	if (argc == 4 && strcmp(argv[1], "--make") == 0)
		return make(argv[2], argv[3]);
	parse(argc, argv);
	measure();
	return 0;
}
