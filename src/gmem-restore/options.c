/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "gmem-restore/options.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "cli/opt.h"

/* Bytes per second. */
#define RATE_MIN (UINT64_C(64) << 10)
#define RATE_MAX (UINT64_C(1) << 40)

/* The last lines of --help: who is driven over an API. */
static void
list_drivers(void)
{
	for (size_t i = 0; vmm_drivers[i] != NULL; i++)
		printf("                      %s\n", vmm_drivers[i]->name);
}

static const struct opt_program program = {
	.name = "gmem-restore",
	.usage =
	    "gmem-restore IMAGE [options] -- VMM ARG...\n"
	    "gmem-restore IMAGE --listen SOCKET [options]\n"
	    "gmem-restore --adopt SOCKET\n"
	    "Starts a VMM on the memory in IMAGE and serves its pages as they are needed.\n"
	    "In the arguments {mem}, {mem:NAME}, {state} and {state:NAME} become paths.\n"
	    "With --listen it serves VMMs that somebody else starts.\n",
	.help =
	    "  --adopt SOCKET      go on with a VM whose gmem-restore, which had --orphan "
	    "wait,\n"
	    "                      was killed\n"
	    "  --api SOCKET        the VMM's API socket (default: as its arguments tell)\n"
	    "  --background HOW    how to give what nobody has asked for yet: on (default),\n"
	    "                      idle, rate=SIZE (a second), or off\n"
	    "  --cold-io HOW       read what is not cached: auto, direct (leaves the page "
	    "cache\n"
	    "                      alone) or cached\n"
	    "  --eager             fill all memory before the VM runs: --engine eager\n"
	    "  --engine NAME       auto, continue, map-continue, userfault or eager\n"
	    "  --expect-root HASH  refuse any image but the one with this root hash\n"
	    "  --handoff-fd        the hand-off is an inherited descriptor, not a path\n"
	    "  --handoff-timeout S seconds for a VMM to hand over its memory, 0 for ever\n"
	    "                      (default: 10)\n"
	    "  -h, --help          print this help\n"
	    "  --io-timeout S      seconds for a read of the image, 0 for ever (default: 30);\n"
	    "                      then the VM is stopped, if it waits for that\n"
	    "  --listen SOCKET     start no VMM: serve those that connect, like Firecracker\n"
	    "  --no-background     --background off\n"
	    "  --on-error HOW      where the image cannot be read: stop the VM (default), or\n"
	    "                      poison the page\n"
	    "  --once              with --listen: one VMM, and end with it\n"
	    "  --orphan HOW        if gmem-restore is killed: kill the VMM (default), or wait "
	    "for\n"
	    "                      --adopt; wait=SOCKET says where\n"
	    "  --paused            load the state, leave the VM paused\n"
	    "  --pid-from-peer     with --listen: any number of VMMs, known by their\n"
	    "                      connections (default)\n"
	    "  --placement WHERE   of who answers faults: same, float, or a list of CPUs\n"
	    "  --prefetch WHAT     give pages before they are asked for: hot (default, if the\n"
	    "                      image has such pages), none, all, or trace=FILE\n"
	    "  -q, --quiet         print errors only\n"
	    "  --qmp SOCKET        load the state into a QEMU that has -incoming defer\n"
	    "  --ready-fd N        write a line to descriptor N when all of that is there\n"
	    "  --record TRACE      write down which pages are touched first, in their order\n"
	    "  --record-until WHEN ready (SIGUSR2), settled, or seconds (default: the VMM's\n"
	    "                      end)\n"
	    "  --sched CLASS       of who answers faults: other (default), nice or fifo\n"
	    "  --socket-mode OCTAL mode of the socket of --listen (default: 0600)\n"
	    "  --socket-owner USER[:GROUP]\n"
	    "                      whose that socket is, who may connect too\n"
	    "  --state NAME        the state to load (default: the only one)\n"
	    "  --stats FILE        write statistics as JSON at the end, and on SIGUSR1;\n"
	    "                      - is standard output\n"
	    "  --threads N         threads for each way of filling (default: CPUs)\n"
	    "  -v, --verbose       say more; -vv even more\n"
	    "  --version           print versions\n"
	    "  --vmm KIND          any: its arguments name {mem}; handoff: it brings its own\n"
	    "                      memory; auto (default): as the image tells; or one of\n",
	.more = list_drivers,
};

enum {
	OPT_ADOPT = CHAR_MAX + 1,
	OPT_API,
	OPT_BACKGROUND,
	OPT_COLD_IO,
	OPT_EAGER,
	OPT_ENGINE,
	OPT_EXPECT_ROOT,
	OPT_HANDOFF_FD,
	OPT_HANDOFF_TIMEOUT,
	OPT_IO_TIMEOUT,
	OPT_LISTEN,
	OPT_NO_BACKGROUND,
	OPT_ON_ERROR,
	OPT_ONCE,
	OPT_ORPHAN,
	OPT_PAUSED,
	OPT_PID_FROM_PEER,
	OPT_PLACEMENT,
	OPT_PREFETCH,
	OPT_QMP,
	OPT_READY_FD,
	OPT_RECORD,
	OPT_RECORD_UNTIL,
	OPT_SCHED,
	OPT_SOCKET_MODE,
	OPT_SOCKET_OWNER,
	OPT_STATE,
	OPT_STATS,
	OPT_THREADS,
	OPT_VERSION,
	OPT_VMM,
};

static const struct option longopts[] = {
	{ "adopt", required_argument, NULL, OPT_ADOPT },
	{ "api", required_argument, NULL, OPT_API },
	{ "background", required_argument, NULL, OPT_BACKGROUND },
	{ "cold-io", required_argument, NULL, OPT_COLD_IO },
	{ "eager", no_argument, NULL, OPT_EAGER },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "expect-root", required_argument, NULL, OPT_EXPECT_ROOT },
	{ "handoff-fd", no_argument, NULL, OPT_HANDOFF_FD },
	{ "handoff-timeout", required_argument, NULL, OPT_HANDOFF_TIMEOUT },
	{ "help", no_argument, NULL, 'h' },
	{ "io-timeout", required_argument, NULL, OPT_IO_TIMEOUT },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "no-background", no_argument, NULL, OPT_NO_BACKGROUND },
	{ "on-error", required_argument, NULL, OPT_ON_ERROR },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "orphan", required_argument, NULL, OPT_ORPHAN },
	{ "paused", no_argument, NULL, OPT_PAUSED },
	{ "pid-from-peer", no_argument, NULL, OPT_PID_FROM_PEER },
	{ "placement", required_argument, NULL, OPT_PLACEMENT },
	{ "prefetch", required_argument, NULL, OPT_PREFETCH },
	{ "quiet", no_argument, NULL, 'q' },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "ready-fd", required_argument, NULL, OPT_READY_FD },
	{ "record", required_argument, NULL, OPT_RECORD },
	{ "record-until", required_argument, NULL, OPT_RECORD_UNTIL },
	{ "sched", required_argument, NULL, OPT_SCHED },
	{ "socket-mode", required_argument, NULL, OPT_SOCKET_MODE },
	{ "socket-owner", required_argument, NULL, OPT_SOCKET_OWNER },
	{ "state", required_argument, NULL, OPT_STATE },
	{ "stats", required_argument, NULL, OPT_STATS },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "verbose", no_argument, NULL, 'v' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "vmm", required_argument, NULL, OPT_VMM },
	{ NULL, 0, NULL, 0 },
};

static enum serve_engine
engine(const char *name)
{
	enum serve_engine engine = SERVE_AUTO;
	struct err e = ERR_INIT;

	if (serve_engine_parse(name, &engine, &e) == -1)
		opt_bad(&program, "--engine: %s", e.msg);
	return engine;
}

/* rate=SIZE, or rate=SIZE/s */
static uint64_t
background_rate(const char *text)
{
	char size[32];
	size_t len = strlen(text);

	if (len > 2 && strcmp(text + len - 2, "/s") == 0)
		len -= 2;
	/* Nothing of it is cut off that would make it wrong. */
	if (len >= sizeof(size))
		opt_bad(&program, "--background rate %s: a size is wanted, such as 2M", text);
	snprintf(size, sizeof(size), "%.*s", (int)len, text);
	return opt_size(&program, "--background rate", size, RATE_MIN, RATE_MAX);
}

static void
set_background(struct options *o, const char *how)
{
	static const char *const names[] = {
		[BACKGROUND_OFF] = "off", [BACKGROUND_ON] = "on", [BACKGROUND_IDLE] = "idle"
	};

	o->background_rate = 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(how, names[i]) == 0) {
			o->background = (enum background)i;
			return;
		}
	if (strncmp(how, "rate=", 5) != 0)
		opt_bad(&program, "--background: \"%s\" is none of on, idle, rate=SIZE and off",
		    how);
	o->background = BACKGROUND_ON;
	o->background_rate = background_rate(how + 5);
}

static void
set_place(struct options *o, const char *option, const char *text,
    int (*parse)(struct serve_place *, const char *, struct err *))
{
	struct err e = ERR_INIT;

	if (parse(&o->place, text, &e) == -1)
		opt_bad(&program, "%s: %s", option, e.msg);
}

static void
set_vmm(struct options *o, const char *name)
{
	static const char *const kinds[] = {
		[VMM_AUTO] = "auto", [VMM_ANY] = "any", [VMM_HANDOFF] = "handoff"
	};

	o->driver = vmm_driver(name);
	o->vmm = VMM_DRIVEN;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(name, kinds[i]) == 0)
			o->vmm = (enum vmm_kind)i;
	if (o->vmm == VMM_DRIVEN && o->driver == NULL)
		opt_bad(&program, "--vmm %s: there is no such kind (--help lists them)", name);
}

/* Numbers are users and groups too, whether they have names or not. */
static bool
is_number(const char *text, unsigned *number)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	*number = (unsigned)value;
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 &&
	       value < UINT32_MAX;
}

static void
set_owner(struct listen_settings *l, char *text)
{
	char *colon = strchr(text, ':');
	const struct passwd *user;
	const struct group *group;

	if (colon != NULL)
		*colon = '\0';
	user = is_number(text, &l->owner) ? NULL : getpwnam(text);
	if (user != NULL)
		l->owner = user->pw_uid;
	else if (!is_number(text, &l->owner))
		opt_bad(&program, "--socket-owner: there is no user \"%s\"", text);
	if (user != NULL && colon == NULL)
		l->group = user->pw_gid;
	if (colon == NULL || is_number(colon + 1, &l->group))
		return;
	group = getgrnam(colon + 1);
	if (group == NULL)
		opt_bad(&program, "--socket-owner: there is no group \"%s\"", colon + 1);
	l->group = group->gr_gid;
}

static void
set_mode(struct listen_settings *l, const char *text)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);

	if (text[0] < '0' || text[0] > '7' || *end != '\0' || mode > 0777)
		opt_bad(&program, "--socket-mode: \"%s\" is no mode from 0 to 0777", text);
	l->mode = (mode_t)mode;
	l->has_mode = true;
}

static void
set_cold_io(struct options *o, const char *text)
{
	struct err e = ERR_INIT;

	if (cold_io_parse(text, &o->prefetch.io, &e) == -1)
		opt_bad(&program, "--cold-io: %s", e.msg);
}

static void
set_on_error(struct options *o, const char *text)
{
	struct err e = ERR_INIT;

	if (on_error_parse(text, &o->on_error, &e) == -1)
		opt_bad(&program, "--on-error: %s", e.msg);
}

static void
set_prefetch(struct options *o, const char *text)
{
	struct err e = ERR_INIT;

	if (prefetch_parse(&o->prefetch, text, &e) == -1)
		opt_bad(&program, "--prefetch: %s", e.msg);
}

static void
set_ready_fd(struct options *o, const char *text)
{
	struct err e = ERR_INIT;
	int fd = (int)opt_number(&program, "--ready-fd", text, 3, 1 << 20);

	if (prefetch_ready_fd(&o->prefetch, fd, &e) == -1)
		opt_bad(&program, "--ready-fd: %s", e.msg);
}

static void
set_record_until(struct options *o, const char *text)
{
	struct err e = ERR_INIT;

	if (record_until_parse(&o->record, text, &e) == -1)
		opt_bad(&program, "--record-until: %s", e.msg);
}

static void
set_orphan(struct options *o, const char *how)
{
	const char *path = strncmp(how, "wait=", 5) == 0 ? how + 5 : NULL;

	if (strcmp(how, "kill") != 0 && strcmp(how, "wait") != 0 && path == NULL)
		opt_bad(
		    &program, "--orphan: \"%s\" is none of kill, wait and wait=SOCKET", how);
	if (path != NULL && *path == '\0')
		opt_bad(&program, "--orphan wait= wants the path of a socket");
	o->orphan = strcmp(how, "kill") == 0 ? ORPHAN_KILL : ORPHAN_WAIT;
	o->orphan_path = path;
}

static void
parse_one(struct options *o, int c)
{
	switch (c) {
	case OPT_ADOPT:
		o->adopt = optarg;
		break;
	case OPT_API:
		o->api = optarg;
		break;
	case OPT_BACKGROUND:
		set_background(o, optarg);
		break;
	case OPT_COLD_IO:
		set_cold_io(o, optarg);
		break;
	case OPT_EAGER:
		o->engine = SERVE_EAGER;
		break;
	case OPT_ENGINE:
		o->engine = engine(optarg);
		break;
	case OPT_EXPECT_ROOT:
		o->expect_root = opt_digest(&program, "--expect-root", optarg, o->expected);
		break;
	case OPT_HANDOFF_FD:
		o->handoff_fd = true;
		break;
	case OPT_HANDOFF_TIMEOUT:
		o->handoff_timeout =
		    (unsigned)opt_number(&program, "--handoff-timeout", optarg, 0, 86400);
		break;
	case 'h':
		opt_help(&program);
	case OPT_IO_TIMEOUT:
		o->io_timeout =
		    (unsigned)opt_number(&program, "--io-timeout", optarg, 0, 86400);
		break;
	case OPT_LISTEN:
		o->listen.path = optarg;
		break;
	case OPT_NO_BACKGROUND:
		set_background(o, "off");
		break;
	case OPT_ON_ERROR:
		set_on_error(o, optarg);
		break;
	case OPT_ONCE:
		o->listen.once = true;
		break;
	case OPT_ORPHAN:
		set_orphan(o, optarg);
		break;
	case OPT_PAUSED:
		o->paused = true;
		break;
	case OPT_PID_FROM_PEER:
		o->listen.many = true;
		break;
	case OPT_PLACEMENT:
		set_place(o, "--placement", optarg, place_parse);
		break;
	case OPT_PREFETCH:
		set_prefetch(o, optarg);
		break;
	case 'q':
		o->level = LOG_LEVEL_ERROR;
		break;
	case OPT_QMP:
		o->qmp = optarg;
		break;
	case OPT_READY_FD:
		set_ready_fd(o, optarg);
		break;
	case OPT_RECORD:
		o->record.path = optarg;
		break;
	case OPT_RECORD_UNTIL:
		set_record_until(o, optarg);
		break;
	case OPT_SCHED:
		set_place(o, "--sched", optarg, place_parse_urgency);
		break;
	case OPT_SOCKET_MODE:
		set_mode(&o->listen, optarg);
		break;
	case OPT_SOCKET_OWNER:
		set_owner(&o->listen, optarg);
		break;
	case OPT_STATE:
		o->state = optarg;
		break;
	case OPT_STATS:
		o->stats = optarg;
		break;
	case OPT_THREADS:
		o->threads = (unsigned)opt_number(&program, "--threads", optarg, 1, 256);
		break;
	case 'v':
		o->level = o->level < LOG_LEVEL_INFO ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG;
		break;
	case OPT_VERSION:
		opt_version(&program);
	case OPT_VMM:
		set_vmm(o, optarg);
		break;
	default:
		break;
	}
}

/* --listen starts no VMM, and without it the others have no meaning. */
static void
check_listen(struct options *o)
{
	struct listen_settings *l = &o->listen;
	const struct {
		bool given;
		const char *name;
	} about_vmm[] = {
		{ o->api != NULL, "--api" },
		{ o->handoff_fd, "--handoff-fd" },
		{ o->qmp != NULL, "--qmp" },
		{ o->paused, "--paused" },
		{ o->state != NULL, "--state" },
		{ o->stats != NULL, "--stats" },
		{ o->vmm != VMM_AUTO && o->driver != vmm_driver("firecracker"), "--vmm" },
		{ o->command != NULL, "a VMM" },
	};

	if (l->path == NULL && (l->once || l->many || l->has_mode || l->owner != LISTEN_NOBODY))
		opt_bad(&program, "%s goes with --listen",
		    l->once       ? "--once"
		    : l->many     ? "--pid-from-peer"
		    : l->has_mode ? "--socket-mode"
				  : "--socket-owner");
	if (l->once && l->many)
		opt_bad(&program, "--once and --pid-from-peer exclude each other");
	for (size_t i = 0; l->path != NULL && i < sizeof(about_vmm) / sizeof(about_vmm[0]); i++)
		if (about_vmm[i].given)
			opt_bad(
			    &program, "--listen and %s exclude each other", about_vmm[i].name);
	if (l->path != NULL && o->engine != SERVE_AUTO && o->engine != SERVE_EAGER &&
	    o->engine != SERVE_COPY)
		opt_bad(&program, "--listen goes with the engines auto, copy and eager");
	l->image = o->image;
	l->expect_root = o->expect_root;
	l->engine = o->engine;
	l->background = o->background;
	l->background_rate = o->background_rate;
	l->prefetch = o->prefetch;
	l->threads = o->threads;
	l->place = o->place;
	l->on_error = o->on_error;
	l->io_timeout = o->io_timeout;
	l->record = o->record;
}

/* What needs more of us than the keeper notes. */
static void
check_orphan(const struct options *o)
{
	const char *name = o->listen.path != NULL       ? "--listen"
			   : o->record.path != NULL     ? "--record"
			   : o->prefetch.ready_fd != -1 ? "--ready-fd"
							: NULL;

	if (o->orphan == ORPHAN_WAIT && name != NULL)
		opt_bad(&program, "--orphan wait and %s exclude each other", name);
}

/* What excludes what. */
static void
check(const struct options *o)
{
	if (o->qmp == NULL && o->vmm != VMM_AUTO && o->vmm != VMM_DRIVEN &&
	    (o->paused || o->state != NULL))
		opt_bad(&program, "%s goes with --qmp, or a VMM that is driven over its API",
		    o->paused ? "--paused" : "--state");
	if (o->engine == SERVE_EAGER && o->background == BACKGROUND_OFF)
		opt_bad(&program, "--eager and --background off exclude each other");
	if (o->engine == SERVE_EAGER && o->on_error == ON_ERROR_POISON)
		opt_bad(&program, "--eager and --on-error poison exclude each other");
	if (o->prefetch.ready_fd != -1 && o->listen.path != NULL && !o->listen.once)
		opt_bad(&program, "--ready-fd goes with --listen if there is --once too");
	if ((o->record.path != NULL && *o->record.path == '\0') ||
	    (o->stats != NULL && *o->stats == '\0'))
		opt_bad(&program, "%s wants the name of a file",
		    o->stats != NULL && *o->stats == '\0' ? "--stats" : "--record");
	if (o->record.path == NULL && o->record.until != RECORD_EXIT)
		opt_bad(&program, "--record-until goes with --record");
	if (o->record.path != NULL && o->engine == SERVE_EAGER)
		opt_bad(&program, "--eager and --record exclude each other");
	if (o->record.path != NULL && o->listen.path != NULL && !o->listen.once)
		opt_bad(&program, "--record goes with --listen if there is --once too");
	if (o->qmp != NULL && (o->vmm == VMM_HANDOFF || o->vmm == VMM_DRIVEN))
		opt_bad(&program, "--qmp and --vmm %s exclude each other",
		    o->vmm == VMM_HANDOFF ? "handoff" : o->driver->name);
}

/* Options up to the first argument that is none, or "--": those of the VMM are not ours. */
static void
parse_some(struct options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "+:hqv", longopts, NULL)) != -1) {
		if (c == '?' || c == ':')
			opt_unknown(&program, c, argv);
		parse_one(o, c);
	}
}

void
options_parse(struct options *o, int argc, char **argv)
{
	*o = (struct options){
		.background = BACKGROUND_ON,
		.level = LOG_LEVEL_WARN,
		.handoff_timeout = 10,
		.io_timeout = 30,
		.prefetch = { .kind = PREFETCH_HOT, .ready_fd = -1 },
		.listen = { .mode = 0600, .owner = LISTEN_NOBODY, .group = LISTEN_NO_GROUP },
	};
	opterr = 0;
	parse_some(o, argc, argv);
	if (o->adopt != NULL && optind != argc)
		opt_bad(&program, "--adopt wants no IMAGE: the VM has it already");
	if (o->adopt != NULL)
		return;
	if (optind == argc)
		opt_bad(&program, "no IMAGE given");
	o->image = argv[optind++];
	parse_some(o, argc, argv);
	if (optind < argc)
		o->command = argv + optind;
	else if (o->listen.path == NULL)
		opt_bad(&program, "no VMM given: gmem-restore IMAGE -- VMM ARG...");
	check_listen(o);
	check(o);
	check_orphan(o);
}
