/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-snap/options.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/pool.h"
#include "cli/opt.h"
#include "codec/codec.h"
#include "format/layout.h"
#include "gmem-snap/text.h"

#define THREADS_MAX 256
#define DRIVERS_MAX 16
#define LONG_OPTIONS 32 /* room for our own */
#define HELP_COLUMN 25 /* where --help explains */

/* "      --firecracker SOCKET": two lines of --help for each driver. */
static void
list_drivers(void)
{
	for (size_t i = 0; vmm_drivers[i] != NULL; i++)
		printf("      --%s SOCKET\n%*s%s\n", vmm_drivers[i]->name, HELP_COLUMN, "",
		    vmm_drivers[i]->help);
}

/* clang-format off */
static const struct opt_program program = {
	.name = "gmem-snap",
	.usage =
	    "gmem-snap --qmp SOCKET [--pid PID] [--leave HOW] [options] -o IMAGE\n"
	    "       gmem-snap --handoff SOCKET [options] -o IMAGE\n"
	    "       gmem-snap --VMM SOCKET [--leave HOW] [options] -o IMAGE\n"
	    "       gmem-snap --pid PID [--region NAME|N]… [--pause HOW] [options] -o IMAGE\n"
	    "       gmem-snap --file [NAME=]RAW [--diff FILE]… [options] -o IMAGE\n"
	    "       gmem-snap --mapped-ram FILE [--region NAME]… [options] -o IMAGE\n"
	    "       gmem-snap --from IMAGE [--hot TRACE]… [options] -o IMAGE\n"
	    "       gmem-snap --list --pid PID [--json]\n",
	.help =
	    "Save the memory of a virtual machine, and its state, as an image.\n"
	    "\n"
	    "Where the memory is:\n"
	    "      --qmp SOCKET       a running QEMU, by its QMP socket\n"
	    "      --handoff SOCKET   a running VMM that speaks the gmem hand-off\n"
	    "      --pid PID          any running process (with --qmp: the QEMU process)\n"
	    "      --file [NAME=]RAW  a raw memory file; may be given several times\n"
	    "      --diff FILE        a diff snapshot over that file: its data replaces, its\n"
	    "                         holes leave what is below; may be given several times\n"
	    "      --mapped-ram FILE  a VM that QEMU or libvirt saved with mapped-ram\n"
	    "      --from IMAGE       an image, to write it anew: with the pages of --hot\n"
	    "                         first, or without that as without a hot section\n"
	    "      --expect-root HASH refuse any image of --from but the one with this root hash\n"
	    "      --list             show the memory objects of --pid\n"
	    "      --region NAME|N    only this object of the process, by name or number, or\n"
	    "                         this RAM block of the file; may be given several times\n",
	.more = list_drivers,
	.rest =
	    "\n"
	    "The virtual machine:\n"
	    "      --leave HOW        running, paused or quit; else the VM is left as it was\n"
	    "      --pause HOW        pause the process by auto, freezer, stop or none\n"
	    "      --pause-less       save the memory while the VM runs on; it is paused for its\n"
	    "                         state alone\n"
	    "\n"
	    "The image:\n"
	    "  -o, --output IMAGE     file to write, or - for standard output\n"
	    "  -f, --force            replace an image that exists\n"
	    "      --hot TRACE        put the pages that a restore recorded first; may be given\n"
	    "                         several times\n"
	    "      --state NAME=FILE  put a file of VMM state into the image\n"
	    "      --annotate K=V     put a note into the image\n"
	    "      --digest           put a SHA-256 of all content into the image, to be\n"
	    "                         verified by gmem-inspect\n"
	    "      --timestamp        put the time of creation into the image\n"
	    "      --chunk-size SIZE  what is compressed as one, 4K to 2M\n"
	    "      --level N          compression level of zstd (default: 1)\n"
	    "      --threads N        worker threads (default: one a CPU)\n"
	    "\n"
	    "Talk:\n"
	    "      --json             print the result as JSON\n"
	    "      --progress-fd N    write progress to this descriptor\n"
	    "  -q, --quiet            print errors only\n"
	    "  -v, --verbose          print more; twice: even more\n"
	    "  -h, --help             print this\n"
	    "  -V, --version          print the versions of program and libraries\n",
};
/* clang-format on */

enum {
	OPT_ANNOTATE = CHAR_MAX + 1,
	OPT_CHUNK_SIZE,
	OPT_DIFF,
	OPT_DIGEST,
	OPT_EXPECT_ROOT,
	OPT_FILE,
	OPT_FROM,
	OPT_HANDOFF,
	OPT_HOT,
	OPT_JSON,
	OPT_LEAVE,
	OPT_LEVEL,
	OPT_LIST,
	OPT_MAPPED_RAM,
	OPT_PAUSE,
	OPT_PAUSE_LESS,
	OPT_PID,
	OPT_PROGRESS_FD,
	OPT_QMP,
	OPT_REGION,
	OPT_STATE,
	OPT_THREADS,
	OPT_TIMESTAMP,
	OPT_DRIVER, /* the first of the drivers */
	OPT_END = OPT_DRIVER + DRIVERS_MAX,
};

static struct option long_options[LONG_OPTIONS + DRIVERS_MAX + 1] = {
	{ "annotate", required_argument, NULL, OPT_ANNOTATE },
	{ "chunk-size", required_argument, NULL, OPT_CHUNK_SIZE },
	{ "diff", required_argument, NULL, OPT_DIFF },
	{ "digest", no_argument, NULL, OPT_DIGEST },
	{ "expect-root", required_argument, NULL, OPT_EXPECT_ROOT },
	{ "file", required_argument, NULL, OPT_FILE },
	{ "force", no_argument, NULL, 'f' },
	{ "from", required_argument, NULL, OPT_FROM },
	{ "handoff", required_argument, NULL, OPT_HANDOFF },
	{ "help", no_argument, NULL, 'h' },
	{ "hot", required_argument, NULL, OPT_HOT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "leave", required_argument, NULL, OPT_LEAVE },
	{ "level", required_argument, NULL, OPT_LEVEL },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "mapped-ram", required_argument, NULL, OPT_MAPPED_RAM },
	{ "output", required_argument, NULL, 'o' },
	{ "pause", required_argument, NULL, OPT_PAUSE },
	{ "pause-less", no_argument, NULL, OPT_PAUSE_LESS },
	{ "pid", required_argument, NULL, OPT_PID },
	{ "progress-fd", required_argument, NULL, OPT_PROGRESS_FD },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "quiet", no_argument, NULL, 'q' },
	{ "region", required_argument, NULL, OPT_REGION },
	{ "state", required_argument, NULL, OPT_STATE },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "timestamp", no_argument, NULL, OPT_TIMESTAMP },
	{ "verbose", no_argument, NULL, 'v' },
	{ "version", no_argument, NULL, 'V' },
};

/* Each driver is an option, named like it. */
static void
add_drivers(void)
{
	size_t n = 0;

	while (long_options[n].name != NULL)
		n++;
	for (size_t i = 0; i < DRIVERS_MAX && vmm_drivers[i] != NULL; i++)
		long_options[n + i] = (struct option){ vmm_drivers[i]->name, required_argument,
			NULL, OPT_DRIVER + (int)i };
}

/* What options go with: a bit for each mode. */
#define QEMU (1u << SNAP_QEMU)
#define PROCESS (1u << SNAP_PROCESS)
#define LIST (1u << SNAP_LIST)
#define FILES (1u << SNAP_FILE)
#define MAPPED (1u << SNAP_MAPPED)
#define HANDOFF (1u << SNAP_HANDOFF)
#define VMM (1u << SNAP_VMM)
#define FROM (1u << SNAP_IMAGE)
#define LIVE (QEMU | HANDOFF | VMM | PROCESS | FILES | MAPPED)
#define IMAGE (LIVE | FROM)

static const struct {
	int option;
	unsigned modes;
	const char *text;
} allowed[] = {
	{ OPT_ANNOTATE, IMAGE, "--annotate goes with an image, not with --list" },
	{ OPT_CHUNK_SIZE, IMAGE, "--chunk-size goes with an image, not with --list" },
	{ OPT_DIFF, FILES, "--diff goes with --file" },
	{ OPT_DIGEST, IMAGE, "--digest goes with an image, not with --list" },
	{ OPT_EXPECT_ROOT, FROM, "--expect-root goes with --from" },
	{ OPT_FILE, FILES, "--file excludes --list and other places of memory" },
	{ 'f', IMAGE, "--force goes with an image, not with --list" },
	{ OPT_FROM, FROM, "--from excludes --list and other places of memory" },
	{ OPT_HANDOFF, HANDOFF, "--handoff excludes --list and other places of memory" },
	{ OPT_HOT, IMAGE, "--hot goes with an image, not with --list" },
	{ OPT_LEAVE, QEMU | VMM,
	    "--leave goes with a VMM that is told what to do, as by --qmp (one of --handoff is "
	    "as before once we disconnect)" },
	{ OPT_LEVEL, IMAGE, "--level goes with an image, not with --list" },
	{ OPT_LIST, LIST, "--list excludes all places of memory but --pid" },
	{ OPT_MAPPED_RAM, MAPPED, "--mapped-ram excludes --list and other places of memory" },
	{ 'o', IMAGE, "-o goes with an image, not with --list" },
	{ OPT_PAUSE, PROCESS,
	    "--pause goes with --pid (QEMU, or who speaks the hand-off, pauses by itself)" },
	{ OPT_PAUSE_LESS, HANDOFF | QEMU | PROCESS,
	    "--pause-less goes with --handoff, --qmp or --pid" },
	{ OPT_PID, QEMU | PROCESS | LIST, "--pid excludes other places of memory but --qmp" },
	{ OPT_PROGRESS_FD, IMAGE, "--progress-fd goes with an image, not with --list" },
	{ OPT_QMP, QEMU, "--qmp excludes --list and other places of memory but --pid" },
	{ OPT_REGION, PROCESS | MAPPED, "--region goes with --pid or --mapped-ram" },
	{ OPT_STATE, LIVE, "--state goes with a new image, not with --list or --from" },
	{ OPT_THREADS, IMAGE, "--threads goes with an image, not with --list" },
	{ OPT_TIMESTAMP, IMAGE, "--timestamp goes with an image, not with --list" },
};

static const struct {
	const char *name;
	enum vmm_leave leave;
} leaves[] = {
	{ "paused", VMM_LEAVE_PAUSED },
	{ "quit", VMM_LEAVE_QUIT },
	{ "running", VMM_LEAVE_RUNNING },
};

static void *
grown(void *array, size_t n, size_t size)
{
	array = reallocarray(array, n + 1, size);
	if (array == NULL)
		opt_bad(&program, "out of memory");
	return array;
}

static void
add_arg(struct arg_list *list, const char *arg)
{
	list->v = grown(list->v, list->n, sizeof(*list->v));
	list->v[list->n++] = arg;
}

static void
add_pair(struct pairs *p, const char *key, const char *value)
{
	p->list = grown(p->list, p->n, sizeof(*p->list));
	p->list[p->n++] = (struct pair){ key, value };
}

/* The name of a region or state. */
static void
check_name(const char *option, const char *name)
{
	if (!manifest_name_ok(name))
		opt_bad(&program,
		    "%s: '%s' is no name: 1 to 255 printable characters but space / { } = "
		    "are wanted",
		    option, name);
}

/* [NAME=]RAW: what is no name belongs to the path. */
static void
add_file(struct options *o, char *arg)
{
	char *equals = strchr(arg, '=');

	if (equals != NULL)
		*equals = '\0';
	if (equals != NULL && manifest_name_ok(arg)) {
		add_pair(&o->files, arg, equals + 1);
		return;
	}
	if (equals != NULL)
		*equals = '=';
	add_pair(&o->files, NULL, arg);
}

static void
add_diff(struct options *o, const char *arg)
{
	if (o->files.n == 0)
		opt_bad(&program, "--diff %s: stands behind the --file it is a diff to", arg);
	o->diffs = grown(o->diffs, o->ndiffs, sizeof(*o->diffs));
	o->diffs[o->ndiffs++] = (struct diff){ o->files.n - 1, arg };
}

static void
add_state(struct options *o, char *arg)
{
	char *file = opt_pair(&program, "--state", arg);

	check_name("--state", arg);
	add_pair(&o->states, arg, file);
}

static void
add_annotation(struct options *o, char *arg)
{
	char *value = opt_pair(&program, "--annotate", arg);

	if (strlen(arg) > NAME_LENGTH_MAX || strlen(value) > TEXT_LENGTH_MAX)
		opt_bad(&program,
		    "--annotate %.32s: the key is longer than %u or the value longer "
		    "than %u bytes",
		    arg, NAME_LENGTH_MAX, TEXT_LENGTH_MAX);
	if (!text_is_utf8(arg) || !text_is_utf8(value))
		opt_bad(&program, "--annotate: is not UTF-8");
	if (pairs_get(&o->annotations, arg) != NULL)
		opt_bad(&program, "--annotate %.32s: is given twice", arg);
	if (o->annotations.n == PAIRS_MAX)
		opt_bad(&program, "--annotate: more than %u", PAIRS_MAX);
	add_pair(&o->annotations, arg, value);
}

static uint32_t
chunk_size(const char *arg)
{
	uint64_t size = opt_size(&program, "--chunk-size", arg, CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);

	if ((size & (size - 1)) != 0)
		opt_bad(&program, "--chunk-size %s: a power of two is wanted", arg);
	return (uint32_t)size;
}

static enum vmm_leave
leave(const char *arg)
{
	for (size_t i = 0; i < sizeof(leaves) / sizeof(*leaves); i++)
		if (strcmp(arg, leaves[i].name) == 0)
			return leaves[i].leave;
	opt_bad(&program, "--leave %s: running, paused or quit is wanted", arg);
}

static enum pause_method
pause_method(const char *arg)
{
	enum pause_method method;
	struct err e = ERR_INIT;

	if (pause_method_parse(arg, &method, &e) == -1)
		opt_bad(&program, "--pause %s: auto, freezer, stop or none is wanted", arg);
	return method;
}

static int
progress_fd(const char *arg)
{
	int fd = (int)opt_number(&program, "--progress-fd", arg, 0, INT_MAX);

	if (fcntl(fd, F_GETFD) == -1)
		opt_bad(&program, "--progress-fd %d: is not open", fd);
	return fd;
}

static void
set_driver(struct options *o, const struct vmm_driver *driver, const char *arg)
{
	if (o->driver != NULL && o->driver != driver)
		opt_bad(&program, "--%s excludes --%s", driver->name, o->driver->name);
	o->driver = driver;
	o->api = arg;
}

/* Options about where the memory is and what happens to the VM. */
static bool
set_source(struct options *o, int option, char *arg)
{
	if (option >= OPT_DRIVER) {
		set_driver(o, vmm_drivers[option - OPT_DRIVER], arg);
		return true;
	}
	switch (option) {
	case OPT_QMP:
		o->qmp = arg;
		break;
	case OPT_HANDOFF:
		o->handoff = arg;
		break;
	case OPT_PID:
		o->pid = (pid_t)opt_number(&program, "--pid", arg, 1, INT_MAX);
		break;
	case OPT_DIFF:
		add_diff(o, arg);
		break;
	case OPT_FILE:
		add_file(o, arg);
		break;
	case OPT_MAPPED_RAM:
		o->mapped_ram = arg;
		break;
	case OPT_FROM:
		o->from = arg;
		break;
	case OPT_EXPECT_ROOT:
		o->expect_root = opt_digest(&program, "--expect-root", arg, o->expected);
		break;
	case OPT_REGION:
		add_arg(&o->regions, arg);
		break;
	case OPT_LEAVE:
		o->leave = leave(arg);
		break;
	case OPT_PAUSE:
		o->pause = pause_method(arg);
		break;
	case OPT_PAUSE_LESS:
		o->pause_less = true;
		break;
	default:
		return false;
	}
	return true;
}

/* Options about the image. */
static bool
set_image(struct options *o, int option, char *arg)
{
	switch (option) {
	case 'o':
		o->output = arg;
		break;
	case 'f':
		o->force = true;
		break;
	case OPT_STATE:
		add_state(o, arg);
		break;
	case OPT_ANNOTATE:
		add_annotation(o, arg);
		break;
	case OPT_DIGEST:
		o->digest = true;
		break;
	case OPT_TIMESTAMP:
		o->timestamp = true;
		break;
	case OPT_CHUNK_SIZE:
		o->chunk_size = chunk_size(arg);
		o->chunk_size_given = true;
		break;
	case OPT_LEVEL:
		o->level = (int)opt_number(
		    &program, "--level", arg, codec_level_min(), codec_level_max());
		o->level_given = true;
		break;
	case OPT_HOT:
		add_arg(&o->hot, arg);
		break;
	case OPT_THREADS:
		o->nthreads = (unsigned)opt_number(&program, "--threads", arg, 1, THREADS_MAX);
		break;
	default:
		return false;
	}
	return true;
}

static void
set_talk(struct options *o, int option, const char *arg)
{
	switch (option) {
	case OPT_JSON:
		o->json = true;
		break;
	case OPT_PROGRESS_FD:
		o->progress_fd = progress_fd(arg);
		break;
	case 'q':
		o->log_level = LOG_LEVEL_ERROR;
		break;
	case 'v':
		o->log_level = o->log_level < LOG_LEVEL_INFO ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG;
		break;
	case 'h':
		opt_help(&program);
	case 'V':
		opt_version(&program);
	default:
		break;
	}
}

static enum snap_mode
mode_of(const struct options *o, const bool *given)
{
	if (given[OPT_LIST])
		return SNAP_LIST;
	if (o->handoff != NULL)
		return SNAP_HANDOFF;
	if (o->qmp != NULL)
		return SNAP_QEMU;
	if (o->driver != NULL)
		return SNAP_VMM;
	if (o->from != NULL)
		return SNAP_IMAGE;
	if (o->mapped_ram != NULL)
		return SNAP_MAPPED;
	if (o->files.n != 0)
		return SNAP_FILE;
	return o->pid != 0 ? SNAP_PROCESS : SNAP_NONE;
}

static void
check(struct options *o, const bool *given)
{
	o->mode = mode_of(o, given);
	if (o->mode == SNAP_NONE)
		opt_bad(&program,
		    "one of --qmp, --handoff, --pid, --file, --mapped-ram and --from is "
		    "wanted, or the name of a "
		    "VMM (--help lists them)");
	if (o->driver != NULL && o->mode != SNAP_VMM)
		opt_bad(&program, "--%s excludes --list and other places of memory",
		    o->driver->name);
	for (size_t i = 0; i < sizeof(allowed) / sizeof(*allowed); i++)
		if (given[allowed[i].option] && (allowed[i].modes >> o->mode & 1) == 0)
			opt_bad(&program, "%s", allowed[i].text);
	if (o->mode == SNAP_LIST && o->pid == 0)
		opt_bad(&program, "--list wants --pid");
	if (o->mode == SNAP_LIST)
		return;
	if (o->pause_less && o->mode == SNAP_PROCESS && o->pause == PAUSE_NONE)
		opt_bad(&program, "--pause-less needs a short pause: not --pause none");
	if (o->pause_less && (o->leave == VMM_LEAVE_PAUSED || o->leave == VMM_LEAVE_QUIT))
		opt_bad(
		    &program, "--pause-less lets the VM run on: not --leave paused or quit");
	/* The pages of the traces are read before all others, while the VM would run. */
	if (o->pause_less && o->hot.n != 0)
		opt_bad(&program,
		    "--hot does not go with --pause-less: pack the image afterwards, with "
		    "--from");
	if (o->output == NULL || *o->output == '\0')
		opt_bad(&program, "-o IMAGE is wanted");
	if (strcmp(o->output, "-") != 0)
		return;
	if (o->json)
		opt_bad(&program, "--json and -o - both want standard output");
	if (isatty(STDOUT_FILENO))
		opt_bad(&program, "-o -: standard output is a terminal");
}

void
options_parse(struct options *o, int argc, char **argv)
{
	bool given[OPT_END] = { false };
	int option;

	*o = (struct options){
		.pause = PAUSE_AUTO,
		.leave = VMM_LEAVE_AS_BEFORE,
		.chunk_size = CHUNK_SIZE_DEFAULT,
		.level = 1,
		.nthreads = MIN(pool_ncpus(), (unsigned)THREADS_MAX),
		.progress_fd = -1,
		.log_level = LOG_LEVEL_WARN,
	};
	add_drivers();
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":o:fqvhV", long_options, NULL)) != -1) {
		if (option == '?' || option == ':')
			opt_unknown(&program, option, argv);
		given[option] = true;
		if (!set_source(o, option, optarg) && !set_image(o, option, optarg))
			set_talk(o, option, optarg);
	}
	if (optind < argc)
		opt_bad(&program, "'%s' is one argument too many", argv[optind]);
	check(o, given);
}

void
options_fini(struct options *o)
{
	free(o->regions.v);
	free(o->hot.v);
	free(o->files.list);
	free(o->diffs);
	free(o->states.list);
	free(o->annotations.list);
}
