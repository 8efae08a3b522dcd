/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * stand-in-firecracker: plays Firecracker, as it looks from outside, with a "guest" that
 * knows each byte of its memory.  Written from Firecracker's documents and behaviour, and
 * not from gmem's side of it; an ordinary program, without sanitizers.
 *
 *	stand-in-firecracker --api-sock S [OPTION...]		a VMM: not started, as the real
 *one stand-in-firecracker --api-sock S --boot [OPTION...]	its guest runs already
 *	stand-in-firecracker --make [OPTION...] MEMORY VMSTATE	writes the files of a snapshot
 *	stand-in-firecracker --api-sock S --request METHOD PATH [BODY]	a client: prints
 *						"STATUS BODY"; status 0 for 2xx, else 1
 *	stand-in-firecracker --bench SOCKET [OPTION...]		maps --mem-size (128 MiB), hands
 *it over, touches --touch pages, prints the seconds
 *	stand-in-firecracker --help				all options, all lies
 *
 * The API: GET / /version /machine-config /vm/config; PUT /machine-config, /actions
 * (InstanceStart), PATCH /vm, PUT /snapshot/create, PUT /snapshot/load.  HTTP as of
 * micro-http: 204, 200 with JSON, 400 with {"fault_message":...}; keep-alive; no reason
 * phrase.  Fields that a version does not know are refused.  The socket's file must not be
 * there and stays there.  A failed load is answered with 400 and ends the process with
 * status 1.
 *
 * --version-as N (1.1 to 1.17, main) changes, as it was in Firecracker:
 *	1.1-1.6   the message has base_host_virt_addr, size, offset
 *	1.7-1.11  and page_size_kib (in bytes); huge pages exist
 *	1.12-     and page_size; the socket is never closed (before: at once); always
 *		  EVENT_REMOVE (before: with a balloon device alone); network_overrides
 *	-1.10     restored memory that is given back is mapped over: no event comes
 *	1.13-     track_dirty_pages; Diff without it by mincore (before: refused)
 *	1.15-     bitcode: a byte in front of vmstate's magic
 *	1.16-     vsock_override, clock_realtime
 *	1.17-     huge_pages at load; sync_snapshot_files (1.17 alone: main has it not, as read)
 *
 * The guest's memory has the pattern of vmm-pattern.h, the page of the memory file being
 * the page of the pattern (as a region of vmm-image with the same seed and density).
 * vmstate has the seed, the sizes of the regions, the pages' size and what was written to
 * each page; so a process that loads needs no options to know what has to be there.  Its
 * contents are nobody's business but for magic, version and CRC-64 at the end.
 *
 * The guest's work, once it runs: the balloon (--balloon before), then all --threads
 * compare all (or --touch) pages in --order, while another thread inflates the balloon
 * (--balloon while: the second half of the memory) or gives back a quarter of the memory
 * again and again (--storm ROUNDS); then each counts words up in pages of its own, then
 * compares those of another.  Pages that were given back are zeros ever after.  It says
 * "guest: ok: ..." on stdout and exits with 0, unless --stay (the VM lives on) or --busy
 * (it goes on writing and comparing for ever).  A wrong byte: "guest: WRONG: ..." on
 * stdout, with region, page and address, and status 3.  Inside PUT /snapshot/load, before
 * the answer and whatever resume_vm says, a few pages of each region are read and one is
 * written, by us and by the kernel, as restoring devices does.
 *
 * --die STEP (by SIGKILL): before-connect, connected, half (of the message), sent, checks (in
 *	the middle of them)
 * --api MODE[:PATH] (requests whose path contains PATH): silent, close, die, slow (2 s before
 *	it is done), refuse (400, with an escape sequence), garbage (no HTTP), much (16 MiB),
 *	half (of the answer), done-silent (does it, says nothing), busy (503 three times
 *	to who wants the VM resumed)
 * --create MODE: refuse (400), nothing (204, and no file), die (in the middle of the memory
 *	file), slow (3 s there), no-space (400 there), short (half a memory file, 204),
 *	bad-crc, short-state (of vmstate, 204)
 * --lie NAME: what is wrong with the hand-off: see --help
 *
 * Exit status: 0; 1 a failed load; 2 usage; 3 wrong byte; 4 a call failed.
 */

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "stand-in-firecracker.h"

struct settings opt = {
	.id = "anonymous-instance",
	.version = VERSION_MAIN,
	.version_text = "1.17.0-dev",
	.threads = 2,
	.lie_ms = 500,
	.machine = { .seed = 1, .density = 20, .page_size = PAGE },
};

struct vm vm = { .uffd = -1 };

/* ---- for all parts ---- */

void
quit(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (status == EXIT_WRONG) {
		vprintf(fmt, ap);
		printf("\n");
		fflush(stdout);
	} else {
		fprintf(stderr, "stand-in-firecracker: ");
		vfprintf(stderr, fmt, ap);
		fprintf(stderr, "\n");
	}
	va_end(ap);
	_exit(status);
}

bool
fail(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, WHY, fmt, ap);
	va_end(ap);
	return false;
}

bool
fail_sys(char *why, const char *fmt, ...)
{
	int error = errno;
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(why, WHY, fmt, ap);
	va_end(ap);
	n = strlen(why);
	snprintf(why + n, WHY - n, ": %s (os error %d)", strerror(error), error);
	return false;
}

void
die_at(const char *step)
{
	if (step != NULL && (opt.die == NULL || strcmp(opt.die, step) != 0))
		return;
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

void
sleep_ms(unsigned ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&ts, NULL);
}

double
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- options ---- */

enum {
	OPT_API_SOCK = 256,
	OPT_ID,
	OPT_VERSION_AS,
	OPT_VERSION,
	OPT_SNAPSHOT_VERSION,
	OPT_IGNORED,
	OPT_IGNORED_ARG,
	OPT_MEM_SIZE,
	OPT_REGIONS,
	OPT_SIZES,
	OPT_HOLE,
	OPT_ADJACENT,
	OPT_PAGE_SIZE,
	OPT_SEED,
	OPT_DENSITY,
	OPT_BALLOON_DEVICE,
	OPT_TRACK_DIRTY,
	OPT_BOOT,
	OPT_STAY,
	OPT_BUSY,
	OPT_THREADS,
	OPT_ORDER,
	OPT_TOUCH,
	OPT_NO_WRITE,
	OPT_STORM,
	OPT_BALLOON,
	OPT_DELAY,
	OPT_LIE,
	OPT_LIE_MS,
	OPT_DIE,
	OPT_API,
	OPT_CREATE,
	OPT_JAIL,
	OPT_DETACH,
	OPT_MAKE,
	OPT_REQUEST,
	OPT_BENCH,
	OPT_HELP,
};

static const struct {
	const char *name, *arg, *help;
	int value;
} options[] = {
	/* clang-format off */
	{ "api-sock", "PATH", "the API's socket", OPT_API_SOCK },
	{ "id", "ID", "of the VM", OPT_ID },
	{ "version-as", "VERSION", "1.1 to 1.17, or main", OPT_VERSION_AS },
	{ "version", NULL, "prints the version, as Firecracker", OPT_VERSION },
	{ "snapshot-version", NULL, "prints that of vmstate", OPT_SNAPSHOT_VERSION },
	{ "no-seccomp", NULL, NULL, OPT_IGNORED },
	{ "enable-pci", NULL, NULL, OPT_IGNORED },
	{ "boot-timer", NULL, NULL, OPT_IGNORED },
	{ "show-level", NULL, NULL, OPT_IGNORED },
	{ "show-log-origin", NULL, NULL, OPT_IGNORED },
	{ "level", "LEVEL", NULL, OPT_IGNORED_ARG },
	{ "log-path", "PATH", NULL, OPT_IGNORED_ARG },
	{ "metrics-path", "PATH", NULL, OPT_IGNORED_ARG },
	{ "seccomp-filter", "PATH", NULL, OPT_IGNORED_ARG },
	{ "mem-size", "MIB", "of the guest: 32", OPT_MEM_SIZE },
	{ "regions", "N", "1 to 16, as large as each other", OPT_REGIONS },
	{ "sizes", "A,B,...", "of the regions, with K or M", OPT_SIZES },
	{ "hole", NULL, "their addresses are apart", OPT_HOLE },
	{ "adjacent", NULL, "their addresses follow each other", OPT_ADJACENT },
	{ "page-size", "BYTES", "4096 or 2097152", OPT_PAGE_SIZE },
	{ "seed", "N", "of the pattern: 1", OPT_SEED },
	{ "density", "N", "of 32 stretches of pages, that many have data: 20", OPT_DENSITY },
	{ "balloon-device", NULL, "the guest has one", OPT_BALLOON_DEVICE },
	{ "track-dirty", NULL, "for Diff, from boot on", OPT_TRACK_DIRTY },
	{ "boot", NULL, "starts the guest", OPT_BOOT },
	{ "stay", NULL, "the VM lives on when the guest is done", OPT_STAY },
	{ "busy", NULL, "the guest writes for ever", OPT_BUSY },
	{ "threads", "N", "vCPUs, 1 to 16: 2", OPT_THREADS },
	{ "order", "ORDER", "random, up or down", OPT_ORDER },
	{ "touch", "PAGES", "that many of them; all", OPT_TOUCH },
	{ "no-write", NULL, "reads alone", OPT_NO_WRITE },
	{ "storm", "ROUNDS", "a quarter of the memory is given back so often", OPT_STORM },
	{ "balloon", "WHEN", "half is given back before or while pages are touched", OPT_BALLOON },
	{ "delay", "MS", "before the guest's first step", OPT_DELAY },
	{ "lie", "NAME", "one of the list below", OPT_LIE },
	{ "lie-ms", "MS", "how long lies wait: 500", OPT_LIE_MS },
	{ "die", "STEP", "before-connect, connected, half, sent, checks", OPT_DIE },
	{ "api", "MODE[:PATH]", "silent, close, die, slow, refuse, garbage, much, half, done-silent, busy", OPT_API },
	{ "create", "MODE", "refuse, nothing, die, slow, no-space, short, bad-crc, short-state", OPT_CREATE },
	{ "jail", "DIR,UID,GID", "as the jailer: chroot, with dev/userfaultfd, and another user", OPT_JAIL },
	{ "detach", NULL, "goes on in a child, as the jailer's --new-pid-ns", OPT_DETACH },
	{ "make", NULL, "writes MEMORY and VMSTATE", OPT_MAKE },
	{ "request", NULL, "asks METHOD PATH [BODY]", OPT_REQUEST },
	{ "bench", "SOCKET", "hands over, touches, prints the seconds", OPT_BENCH },
	{ "help", NULL, "this", OPT_HELP },
	/* clang-format on */
};

#define OPTIONS (sizeof(options) / sizeof(options[0]))

static enum { VMM, MAKE, REQUEST, BENCH } mode;
static const char *bench_socket, *jail;
static bool detach;
static unsigned long mem_size_mib, nregions = 1;

static void __attribute__((noreturn)) help(void)
{
	for (size_t i = 0; i < OPTIONS; i++)
		if (options[i].help != NULL)
			printf("  --%s%s%s\n\t%s\n", options[i].name, options[i].arg ? " " : "",
			    options[i].arg ? options[i].arg : "", options[i].help);
	printf("Lies:\n");
	lies_list();
	exit(0);
}

static unsigned long
number(const char *text, unsigned long min, unsigned long max)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end != 0 || errno != 0 || n < min || n > max)
		quit(EXIT_USAGE, "%s: a number from %lu to %lu", text, min, max);
	return n;
}

/* The place of text in a list that ends with NULL. */
static unsigned
word(const char *text, const char *const *list)
{
	for (unsigned i = 0; list[i] != NULL; i++)
		if (strcmp(list[i], text) == 0)
			return i;
	quit(EXIT_USAGE, "%s?", text);
}

static void
set_version(const char *text)
{
	if (strcmp(text, "main") == 0)
		return;
	if (strncmp(text, "1.", 2) != 0)
		quit(EXIT_USAGE, "--version-as %s?", text);
	opt.version = 100 + (unsigned)number(text + 2, 1, 17);
	snprintf(opt.version_text, sizeof(opt.version_text), "%s.0", text);
}

bool
parse_sizes(const char *text, struct machine *m)
{
	m->nregions = 0;
	while (m->nregions < REGIONS_MAX) {
		char *end;
		uint64_t size = strtoul(text, &end, 10);

		if (end == text || (*end != 'K' && *end != 'M'))
			return false;
		m->sizes[m->nregions++] = size << (*end == 'K' ? 10 : 20);
		if (end[1] == 0)
			return true;
		text = end + 2;
		if (end[1] != ',')
			return false;
	}
	return false;
}

static void
set_words(int value, const char *arg)
{
	static const char *const orders[] = { "random", "up", "down", NULL };
	static const char *const balloons[] = { "none", "before", "while", NULL };
	static const char *const steps[] = { "before-connect", "connected", "half", "sent",
		"checks", NULL };
	static const char *const creates[] = { "refuse", "nothing", "die", "slow", "no-space",
		"short", "bad-crc", "short-state", NULL };

	if (value == OPT_ORDER)
		opt.order = word(arg, orders);
	else if (value == OPT_BALLOON)
		opt.balloon = word(arg, balloons);
	else if (value == OPT_DIE)
		opt.die = steps[word(arg, steps)];
	else if (value == OPT_CREATE)
		opt.create = creates[word(arg, creates)];
	else if (value == OPT_LIE && lie_known(arg))
		opt.lie = arg;
	else
		quit(EXIT_USAGE, "--lie %s?", arg);
}

static void
set_numbers(int value, const char *arg)
{
	unsigned long n = number(arg,
	    value == OPT_THREADS || value == OPT_REGIONS || value == OPT_MEM_SIZE, INT32_MAX);

	if (value == OPT_MEM_SIZE)
		mem_size_mib = n;
	else if (value == OPT_REGIONS)
		nregions = number(arg, 1, REGIONS_MAX);
	else if (value == OPT_PAGE_SIZE)
		opt.machine.page_size = (uint32_t)n;
	else if (value == OPT_SEED)
		opt.machine.seed = n;
	else if (value == OPT_DENSITY)
		opt.machine.density = (uint32_t)number(arg, 0, 32);
	else if (value == OPT_THREADS)
		opt.threads = (unsigned)number(arg, 1, VCPUS_MAX);
	else if (value == OPT_TOUCH)
		opt.touch = n;
	else if (value == OPT_STORM)
		opt.storm = (unsigned)n;
	else if (value == OPT_DELAY)
		opt.delay_ms = (unsigned)n;
	else
		opt.lie_ms = (unsigned)n;
}

static void
set_flags(int value)
{
	static const struct {
		int value;
		bool *flag;
	} flags[] = { { OPT_HOLE, &opt.hole }, { OPT_ADJACENT, &opt.adjacent },
		{ OPT_TRACK_DIRTY, &opt.track_dirty }, { OPT_BOOT, &opt.boot },
		{ OPT_STAY, &opt.stay }, { OPT_BUSY, &opt.busy },
		{ OPT_NO_WRITE, &opt.no_write }, { OPT_DETACH, &detach } };

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (flags[i].value == value)
			*flags[i].flag = true;
}

static void
set_option(int value, char *arg)
{
	switch (value) {
	case OPT_API_SOCK:
		opt.api_sock = arg;
		break;
	case OPT_ID:
		opt.id = arg;
		break;
	case OPT_VERSION_AS:
		set_version(arg);
		break;
	case OPT_SIZES:
		if (!parse_sizes(arg, &opt.machine))
			quit(EXIT_USAGE, "--sizes %s?", arg);
		break;
	case OPT_BALLOON_DEVICE:
		opt.machine.balloon = 1;
		break;
	case OPT_API:
		opt.api = arg;
		break;
	case OPT_JAIL:
		jail = arg;
		break;
	case OPT_BENCH:
		mode = BENCH;
		bench_socket = arg;
		break;
	case OPT_ORDER:
	case OPT_BALLOON:
	case OPT_DIE:
	case OPT_CREATE:
	case OPT_LIE:
		set_words(value, arg);
		break;
	default:
		if (arg != NULL)
			set_numbers(value, arg);
		else
			set_flags(value);
	}
}

static void
do_option(int value, char *arg)
{
	switch (value) {
	case OPT_HELP:
		help();
	case OPT_VERSION:
		printf("Firecracker v%s\n", opt.version_text);
		exit(0);
	case OPT_SNAPSHOT_VERSION:
		printf("v%s\n", snapshot_version());
		exit(0);
	case OPT_MAKE:
		mode = MAKE;
		break;
	case OPT_REQUEST:
		mode = REQUEST;
		break;
	case OPT_IGNORED:
	case OPT_IGNORED_ARG:
		break;
	case '?':
		exit(EXIT_USAGE);
	default:
		set_option(value, arg);
	}
}

static void
parse_options(int argc, char **argv)
{
	static struct option table[OPTIONS + 1];
	int value;

	for (size_t i = 0; i < OPTIONS; i++)
		table[i] = (struct option){ options[i].name, options[i].arg != NULL, NULL,
			options[i].value };
	while ((value = getopt_long(argc, argv, "+", table, NULL)) != -1)
		do_option(value, optarg);
}

/* The regions of --mem-size and --regions, unless there were --sizes. */
static void
complete_machine(void)
{
	struct machine *m = &opt.machine;
	uint64_t left = (mem_size_mib ? mem_size_mib : mode == BENCH ? 128 : 32) << 20;
	uint64_t each;

	if (m->page_size != PAGE && m->page_size != HUGE_PAGE)
		quit(EXIT_USAGE, "--page-size %u?", m->page_size);
	if (m->nregions == 0) {
		m->nregions = (uint32_t)nregions;
		each = left / nregions / m->page_size * m->page_size;
		for (uint32_t i = 0; i < m->nregions; i++, left -= each)
			m->sizes[i] = i + 1 < m->nregions ? each : left;
	}
	if (machine_size(m) == 0)
		quit(EXIT_USAGE, "regions must have whole pages");
	vm.m = *m;
	vm.track_dirty = opt.track_dirty;
}

/* ---- what to do ---- */

static void
enter_jail(void)
{
	char path[4096], *comma = strchr(jail, ',');
	unsigned uid, gid;
	struct stat st;

	if (comma == NULL || sscanf(comma, ",%u,%u", &uid, &gid) != 2)
		quit(EXIT_USAGE, "--jail %s?", jail);
	*comma = 0;
	snprintf(path, sizeof(path), "%s/dev", jail);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/dev/userfaultfd", jail);
	if (stat("/dev/userfaultfd", &st) == 0 &&
	    (mknod(path, S_IFCHR | 0600, st.st_rdev) == -1 || chown(path, uid, gid) == -1))
		quit(EXIT_CALL, "%s: %s", path, strerror(errno));
	if (chroot(jail) == -1 || chdir("/") == -1 || setgid(gid) == -1 || setuid(uid) == -1)
		quit(EXIT_CALL, "--jail %s: %s", jail, strerror(errno));
}

static void
boot(void)
{
	char why[WHY];

	if (!memory_map(-1, why))
		quit(EXIT_LOAD, "%s", why);
	memory_fill();
}

static int
make_snapshot(const char *memory, const char *state)
{
	char why[WHY];

	boot();
	if (!snapshot_create(state, memory, false, why))
		quit(EXIT_LOAD, "%s", why);
	return 0;
}

static int
run(char **args, int n)
{
	if (mode == BENCH && n == 0)
		return client_bench(bench_socket);
	if (mode == MAKE && n == 2)
		return make_snapshot(args[0], args[1]);
	if (opt.api_sock == NULL || (mode == REQUEST ? n < 2 || n > 3 : mode != VMM || n != 0))
		quit(EXIT_USAGE, "usage: see --help");
	if (mode == REQUEST)
		return client_request(args[0], args[1], n == 3 ? args[2] : NULL);
	if (jail != NULL)
		enter_jail();
	if (detach && fork() != 0)
		_exit(0);
	if (opt.boot) {
		boot();
		vm.state = RUNNING;
		guest_run();
	}
	http_serve();
}

int
main(int argc, char **argv)
{
	uint8_t probe[16];

	/* The CRC of Firecracker's own test. */
	memset(probe, 123, sizeof(probe));
	if (crc64_jones(0, probe, sizeof(probe)) != UINT64_C(0x29D5357216326566))
		quit(EXIT_CALL, "the CRC is not Firecracker's");
	parse_options(argc, argv);
	complete_machine();
	return run(argv + optind, argc - optind);
}
