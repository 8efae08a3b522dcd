/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-inspect/options.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>

#include "base/ckd.h"
#include "base/log.h"
#include "base/pool.h"
#include "cli/opt.h"
#include "gmem-inspect/inspect.h"

#define THREADS_MAX 256
#define WIDTH_MIN 8
#define WIDTH_MAX 512

static const struct opt_program program = {
	.name = "gmem-inspect",
	.usage = "gmem-inspect [options] info IMAGE\n"
		 "       gmem-inspect [options] verify IMAGE\n"
		 "       gmem-inspect [options] map IMAGE\n"
		 "       gmem-inspect [options] cat IMAGE ADDRESS[+LENGTH | -END]\n"
		 "       gmem-inspect [options] extract IMAGE -o FILE\n"
		 "       gmem-inspect [options] root IMAGE\n"
		 "       gmem-inspect [options] host\n"
		 "       gmem-inspect [options] trace TRACE...\n"
		 "       gmem-inspect [options] stats STATS...\n"
		 "       gmem-inspect [options] plot STATS... [-o FILE]\n",
	.help =
	    "  info     what the image says about itself\n"
	    "  verify   check every byte of it\n"
	    "  map      draw which memory is stored, and how well it is compressed\n"
	    "  cat      guest physical memory, as a hex dump\n"
	    "  extract  write the memory, or a state, to a file\n"
	    "  root     the root hash: what to sign\n"
	    "  host     what this machine can do for gmem-restore\n"
	    "  trace    which pages a VM touched first; several traces: what they share\n"
	    "  stats    statistics of a restore, for people\n"
	    "  plot     draw it as SVG: pages over time, and how long faults waited\n"
	    "\n"
	    "      --deep             verify: the SHA-256 of all content too\n"
	    "      --expect-root HASH refuse any IMAGE but the one with this root hash\n"
	    "      --force            replace an existing FILE\n"
	    "      --image IMAGE      trace: what its pages are in this image\n"
	    "      --json             print JSON: info, verify, map, extract, root, host, "
	    "trace\n"
	    "      --list             map: list the ranges; trace: the runs\n"
	    "      --merge HOW        trace: union or intersection of all, to --output\n"
	    "  -o, --output FILE      extract, plot, trace: where to, - is standard output\n"
	    "      --progress-fd N    verify, extract: lines DONE TOTAL WHAT on descriptor N\n"
	    "      --raw              cat: the bytes themselves\n"
	    "      --region NAME      map, cat, extract: this memory region only\n"
	    "      --state NAME       extract: this state of the VMM, not memory\n"
	    "      --svg FILE         map: draw an SVG, - is standard output\n"
	    "      --threads N        verify, extract: workers (default: one a CPU)\n"
	    "      --width N          map: at most N cells in a row\n"
	    "  -q, --quiet            less talk\n"
	    "  -v, --verbose          more talk; twice: still more\n"
	    "      --help             this text\n"
	    "      --version          version of this program and its libraries\n",
};

static const struct verb verbs[] = {
	{ "info", verb_info, TAKES_JSON | TAKES_ROOT, "IMAGE", 1 },
	{ "verify", verb_verify,
	    TAKES_JSON | TAKES_THREADS | TAKES_PROGRESS | TAKES_ROOT | TAKES_DEEP, "IMAGE", 1 },
	{ "map", verb_map,
	    TAKES_JSON | TAKES_REGION | TAKES_LIST | TAKES_SVG | TAKES_WIDTH | TAKES_FORCE |
		TAKES_ROOT,
	    "IMAGE", 1 },
	{ "cat", verb_cat, TAKES_REGION | TAKES_RAW | TAKES_ROOT,
	    "IMAGE ADDRESS[+LENGTH | -END]", 2 },
	{ "extract", verb_extract,
	    TAKES_JSON | TAKES_OUTPUT | TAKES_REGION | TAKES_STATE | TAKES_FORCE |
		TAKES_THREADS | TAKES_PROGRESS | TAKES_ROOT,
	    "IMAGE -o FILE", 1 },
	{ "root", verb_root, TAKES_JSON | TAKES_ROOT, "IMAGE", 1 },
	{ "host", verb_host, TAKES_JSON, "nothing", 0 },
	{ "trace", verb_trace,
	    TAKES_JSON | TAKES_LIST | TAKES_IMAGE | TAKES_MERGE | TAKES_OUTPUT | TAKES_FORCE |
		TAKES_ROOT,
	    "TRACE...", ANY_FILES },
	{ "stats", verb_stats, 0, "STATS...", ANY_FILES },
	{ "plot", verb_stats, TAKES_OUTPUT | MAY_OUTPUT | TAKES_FORCE, "STATS...", ANY_FILES },
};

#define NVERBS (sizeof(verbs) / sizeof(verbs[0]))

enum {
	KEY_DEEP = CHAR_MAX + 1,
	KEY_EXPECT_ROOT,
	KEY_FORCE,
	KEY_HELP,
	KEY_IMAGE,
	KEY_JSON,
	KEY_LIST,
	KEY_MERGE,
	KEY_PROGRESS,
	KEY_RAW,
	KEY_REGION,
	KEY_STATE,
	KEY_SVG,
	KEY_THREADS,
	KEY_VERSION,
	KEY_WIDTH,
};

static const struct option long_options[] = {
	{ "deep", no_argument, NULL, KEY_DEEP },
	{ "expect-root", required_argument, NULL, KEY_EXPECT_ROOT },
	{ "force", no_argument, NULL, KEY_FORCE },
	{ "help", no_argument, NULL, KEY_HELP },
	{ "image", required_argument, NULL, KEY_IMAGE },
	{ "json", no_argument, NULL, KEY_JSON },
	{ "list", no_argument, NULL, KEY_LIST },
	{ "merge", required_argument, NULL, KEY_MERGE },
	{ "output", required_argument, NULL, 'o' },
	{ "progress-fd", required_argument, NULL, KEY_PROGRESS },
	{ "quiet", no_argument, NULL, 'q' },
	{ "raw", no_argument, NULL, KEY_RAW },
	{ "region", required_argument, NULL, KEY_REGION },
	{ "state", required_argument, NULL, KEY_STATE },
	{ "svg", required_argument, NULL, KEY_SVG },
	{ "threads", required_argument, NULL, KEY_THREADS },
	{ "verbose", no_argument, NULL, 'v' },
	{ "version", no_argument, NULL, KEY_VERSION },
	{ "width", required_argument, NULL, KEY_WIDTH },
	{ NULL, 0, NULL, 0 },
};

/* What the command line holds beyond struct options. */
struct parse {
	struct options *opt;
	unsigned given; /* option_bit */
	int verbosity;
};

static const struct {
	unsigned bit;
	const char *name;
} bit_names[] = {
	{ TAKES_JSON, "--json" },
	{ TAKES_REGION, "--region" },
	{ TAKES_STATE, "--state" },
	{ TAKES_OUTPUT, "--output" },
	{ TAKES_FORCE, "--force" },
	{ TAKES_THREADS, "--threads" },
	{ TAKES_PROGRESS, "--progress-fd" },
	{ TAKES_LIST, "--list" },
	{ TAKES_SVG, "--svg" },
	{ TAKES_WIDTH, "--width" },
	{ TAKES_RAW, "--raw" },
	{ TAKES_IMAGE, "--image" },
	{ TAKES_MERGE, "--merge" },
	{ TAKES_ROOT, "--expect-root" },
	{ TAKES_DEEP, "--deep" },
};

#define NBITS (sizeof(bit_names) / sizeof(bit_names[0]))

/* Sets of which a command line may have one. */
static const unsigned exclusive[] = {
	TAKES_JSON | TAKES_LIST | TAKES_SVG | TAKES_MERGE,
	TAKES_IMAGE | TAKES_LIST | TAKES_MERGE,
	TAKES_REGION | TAKES_STATE,
};

static const char *
bit_name(unsigned bits)
{
	for (size_t i = 0; i < NBITS; i++)
		if ((bits & bit_names[i].bit) != 0)
			return bit_names[i].name;
	return "?";
}

static int
open_descriptor(const char *arg)
{
	int fd = (int)opt_number(&program, "--progress-fd", arg, 0, INT_MAX);

	if (fcntl(fd, F_GETFD) == -1)
		opt_bad(&program, "--progress-fd %d: is not open", fd);
	return fd;
}

static enum merge
merge_named(const char *name)
{
	if (strcmp(name, "union") == 0)
		return MERGE_UNION;
	if (strcmp(name, "intersection") == 0)
		return MERGE_INTERSECTION;
	opt_bad(&program, "--merge %s: union or intersection", name);
}

/* The options that take an argument. */
static unsigned
take_argument(struct options *opt, int key)
{
	switch (key) {
	case 'o':
		opt->output = optarg;
		return TAKES_OUTPUT;
	case KEY_EXPECT_ROOT:
		opt->expect_root = opt_digest(&program, "--expect-root", optarg, opt->expected);
		return TAKES_ROOT;
	case KEY_IMAGE:
		opt->with_image = optarg;
		return TAKES_IMAGE;
	case KEY_MERGE:
		opt->merge = merge_named(optarg);
		return TAKES_MERGE;
	case KEY_PROGRESS:
		opt->progress_fd = open_descriptor(optarg);
		return TAKES_PROGRESS;
	case KEY_REGION:
		opt->region = optarg;
		return TAKES_REGION;
	case KEY_STATE:
		opt->state = optarg;
		return TAKES_STATE;
	case KEY_SVG:
		opt->svg = optarg;
		return TAKES_SVG;
	case KEY_THREADS:
		opt->threads =
		    (unsigned)opt_number(&program, "--threads", optarg, 1, THREADS_MAX);
		return TAKES_THREADS;
	case KEY_WIDTH:
		opt->width =
		    (unsigned)opt_number(&program, "--width", optarg, WIDTH_MIN, WIDTH_MAX);
		return TAKES_WIDTH;
	default:
		opt_bad(&program, "wrong usage");
	}
}

static void
take(struct parse *p, int key)
{
	struct options *opt = p->opt;

	switch (key) {
	case KEY_DEEP:
		opt->deep = true;
		p->given |= TAKES_DEEP;
		break;
	case KEY_FORCE:
		opt->force = true;
		p->given |= TAKES_FORCE;
		break;
	case KEY_HELP:
		opt_help(&program);
	case KEY_JSON:
		opt->json = true;
		p->given |= TAKES_JSON;
		break;
	case KEY_LIST:
		opt->list = true;
		p->given |= TAKES_LIST;
		break;
	case 'q':
		opt->quiet = true;
		break;
	case KEY_RAW:
		opt->raw = true;
		p->given |= TAKES_RAW;
		break;
	case 'v':
		p->verbosity++;
		break;
	case KEY_VERSION:
		opt_version(&program);
	default:
		p->given |= take_argument(opt, key);
		break;
	}
}

static const struct verb *
find_verb(const char *name)
{
	for (size_t i = 0; i < NVERBS; i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	opt_bad(&program, "no verb is called '%s'", name);
}

static void
take_operands(struct options *opt, int n, char **operands)
{
	if (n == 0)
		opt_bad(&program, "a verb is missing");
	opt->verb = find_verb(operands[0]);
	if (opt->verb->noperands == ANY_FILES && n > 1) {
		opt->files = operands + 1;
		opt->nfiles = (size_t)n - 1;
		return;
	}
	if (n - 1 != opt->verb->noperands)
		opt_bad(&program, "%s takes %s", opt->verb->name, opt->verb->operands);
	if (n > 1)
		opt->image = operands[1];
	if (n > 2)
		opt->range = operands[2];
}

static void
check_trace(const struct options *opt)
{
	if ((opt->merge != MERGE_NONE) != (opt->output != NULL))
		opt_bad(&program, "--merge and --output go together");
	if (opt->force && opt->output == NULL)
		opt_bad(&program, "--force goes with --output");
	if (opt->expect_root != NULL && opt->with_image == NULL)
		opt_bad(&program, "--expect-root goes with --image");
	if (opt->list && opt->nfiles != 1)
		opt_bad(&program, "--list takes one trace");
}

static void
check(const struct parse *p)
{
	const struct options *opt = p->opt;
	unsigned wrong = p->given & ~opt->verb->takes;

	if (wrong != 0)
		opt_bad(&program, "%s takes no %s", opt->verb->name, bit_name(wrong));
	for (size_t i = 0; i < sizeof(exclusive) / sizeof(exclusive[0]); i++) {
		unsigned both = p->given & exclusive[i];

		if ((both & (both - 1)) != 0)
			opt_bad(&program, "%s and %s exclude each other", bit_name(both),
			    bit_name(both & (both - 1)));
	}
	if ((opt->verb->takes & TAKES_MERGE) != 0) {
		check_trace(opt);
		return;
	}
	if ((opt->verb->takes & TAKES_OUTPUT) != 0 && opt->output == NULL &&
	    (opt->verb->takes & MAY_OUTPUT) == 0)
		opt_bad(&program, "%s needs --output", opt->verb->name);
	if (opt->json && opt->output != NULL && strcmp(opt->output, "-") == 0)
		opt_bad(&program, "--json and --output - both want standard output");
}

void
options_parse(struct options *opt, int argc, char **argv)
{
	struct parse p = { .opt = opt };
	int key, level;

	*opt = (struct options){ .progress_fd = -1, .threads = MIN(pool_ncpus(), THREADS_MAX) };
	log_setup(program.name, LOG_LEVEL_WARN);
	opterr = 0;
	while ((key = getopt_long(argc, argv, ":o:qv", long_options, NULL)) != -1) {
		if (key == '?' || key == ':')
			opt_unknown(&program, key, argv);
		take(&p, key);
	}
	take_operands(opt, argc - optind, argv + optind);
	check(&p);
	if ((opt->verb->takes & MAY_OUTPUT) != 0 && opt->output == NULL)
		opt->output = "-";
	level = opt->quiet ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN + MIN(p.verbosity, 2);
	log_setup(program.name, (enum log_level)level);
}
