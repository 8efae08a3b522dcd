/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * stand-in-cloud-hypervisor OPTION...: for tests, what looks from outside like Cloud
 *Hypervisor.
 *
 * Written from the description of its protocol and from what v52.0, v53.0 and main (ae44c29)
 *do. It has no guest but memory, filled with the project's pattern (vmm-pattern.h, by guest
 * address), zero pages and holes in it, some zeros written.  The seed goes with the
 * state of a device, so whoever restores the VM knows what must be in its memory.
 *
 * With --memory or --memory-zone there is a VM, which runs; without there is none until
 * vm.receive-migration brings one.
 *
 *	--api-socket [path=]S	the API: /api/v1/vmm.ping, vm.info, vm.pause, vm.resume,
 *vm.shutdown, vmm.shutdown, vm.send-migration, vm.receive-migration
 *	--version-as V		v52.0, v53.0 or main, which is what it is without; v54.0 is main
 *				but for what it calls itself
 *	--memory size=N,shared=on|off,hugepages=on|off,hugepage_size=N
 *	--memory-zone id=ID,size=N,shared=...	one for each zone
 *	--slots N		cuts each zone into N slots that share its file ...
 *	--gap N			... so many bytes apart in the guest's addresses
 *	--file-per-slot		each has a file of its own
 *	--hole N		where RAM makes room for devices, 3G; it goes on at 4G
 *	--seed N --density N	the pattern: of 32 stretches so many hold data
 *	--state-size N		bytes of state of a device
 *	--guest-writes N	a VM that runs writes N pages a second
 *	--rounds N		rounds of dirty pages before the last one, 3
 *	--guest-threads N	that look at the memory of a restored VM, 4
 *	--stay			the VM goes on when they have seen all; else it ends
 *	--leave-early		it does not wait for the last page that nobody needs
 *	--landlock --seccomp V --log-file F -v --kernel F --cmdline F --cpus V --console V
 *--serial V as the real one has them; without effect
 *	--request METHOD PATH [BODY]	the other end: asks the API at --api-socket (for up to
 *				10 s until it is there); prints the status and the body;
 *				exit status 0 for 2xx, 1 for others, 2 for no answer
 *	--help			this, and the lies
 *
 * vm.send-migration: v52 answers when it is over, later ones at once, and know that it went
 * wrong only in vm.info, which says Running again (or Paused).  When it goes well
 * the VMM ends, but for main with preserve_source, which v52 and v53 ignore
 * without a word.  Nothing is ever abandoned: a sender that fails closes the connection.
 * Local: Start, MemoryFd of each slot in any order, Config, pause, State, Complete.
 * Else: Start, Config, Memory (all; main: without holes), rounds of what is dirty, pause, what
 *is left, in which pages can be twice, from v53 on once more, State, Complete. memory_ranges of
 *the Config is empty.  CompletePaused if the VM was paused before.
 *
 * vm.receive-migration: makes the socket, answers when Complete is acknowledged.  A refusal
 * is a reply with an error and status 500, for v52 204 (!).  v52 ignores memory_mode.
 * Postcopy: the fault connection (role 2) must come within 30 s of State; all slots are
 * registered MISSING, with main and descriptors also MINOR; pages are asked for one by
 * one, in order, faults first; resolved by UFFDIO_CONTINUE (main), UFFDIO_WAKE
 * (v53.0), UFFDIO_COPY (no descriptors came).  Pages are touched before State
 * is acknowledged.  After the last page the fault connection is closed.
 * When the peer ends it before, asking ahead ends, and the VMM with the next fault.
 *
 * When it runs, --guest-threads threads compare every byte in random order, write a third of
 *the pages and read them again; then all is compared once more, put back, and one line on
 *stdout tells the numbers.
 *
 * Exit status: 0 all right, or told to end; 2 wrong usage; 3 a wrong byte, whose address
 * is on stdout; 4 a fault that could not be served; 1 anything else.
 *
 * The lies are below, each with what it does.  STEP is connect, start, memory-fd,
 * last-memory-fd, config, memory, state or complete.
 */

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stand-in-cloud-hypervisor.h"

struct vmm vmm = {
	.version = MAIN,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.guest = { 1, 16, 0 },
	.cut = 1,
	.hole = (uint64_t)3 << 30,
	.threads = 4,
	.rounds = 3,
	.state_size = 20000,
};

static const char *api_socket;

/* ---- lies ---- */

static struct {
	const char *name, *help, *value;
} lies[] = {
	/* either end */
	{ "die-at", "=STEP: killed before it (source), when it comes (destination)", NULL },
	{ "die-in", "=config|state|memory: killed in the middle of it", NULL },
	{ "silent-at", "=STEP: nothing happens any more", NULL },
	{ "close-at", "=STEP: closes the connection", NULL },
	{ "prefault", "the configuration says prefault=on, which postcopy refuses", NULL },
	/* the source */
	{ "abandon-at", "=STEP: Abandon instead", NULL },
	{ "start-version", "=N: of the protocol", NULL },
	{ "start-twice", "Start again after Start", NULL },
	{ "command", "=N: this command instead of Start", NULL },
	{ "short-header", "half a Start, then nothing", NULL },
	{ "fd-none", "MemoryFd without a descriptor", NULL },
	{ "fd-two", "MemoryFd with two", NULL },
	{ "fd-pipe", "MemoryFd with a pipe", NULL },
	{ "fd-length", "=N: payload length of MemoryFd, though 4 bytes follow", NULL },
	{ "fd-small", "files half as big as the configuration says", NULL },
	{ "fd-late", "MemoryFd after Config", NULL },
	{ "slot-twice", "the first slot again", NULL },
	{ "slot-missing", "one slot less", NULL },
	{ "slot-unknown", "one that the configuration does not have", NULL },
	{ "ranges-overlap", "the last slot begins a page before the end of the one before",
	    NULL },
	{ "config-no-json", "half of it", NULL },
	{ "config-no-memory", "without memory_manager_data", NULL },
	{ "config-huge", "100 MiB of it", NULL },
	{ "state-no-json", "half of it", NULL },
	{ "state-first", "State before Config", NULL },
	{ "state-missing", "Complete without State", NULL },
	{ "huge-payload", "=config|state|memory: a length of 2^62", NULL },
	{ "memory-outside", "the first range is where no memory is", NULL },
	{ "memory-past-end", "the first range is nearly 2^64 long", NULL },
	{ "memory-unaligned", "a table that is no multiple of 16 bytes", NULL },
	{ "complete-twice", "Complete again", NULL },
	/* the destination */
	{ "no-socket", "never makes it", NULL },
	{ "error-at", "=STEP: refuses it", NULL },
	{ "error-late-at", "=STEP: does it, and says it did not", NULL },
	{ "garbage-at", "=STEP: the reply is no reply", NULL },
	{ "invalid-at", "=STEP: a reply of status 0", NULL },
	{ "payload-at", "=STEP: a reply that announces 4096 bytes", NULL },
	{ "half-at", "=STEP: four bytes of a reply, then nothing", NULL },
	{ "twice-at", "=STEP: two replies", NULL },
	{ "role-wait", "=S: for the role of a connection, instead of 10", NULL },
	{ "fault-wait", "=S: for the fault connection, instead of 30", NULL },
	{ "state-slow", "=MS: State takes so long, with faults all the while", NULL },
	{ "fault-outside", "first asks for a page behind all memory", NULL },
	{ "fault-straddle", "first asks for a page and one that is not there", NULL },
	{ "fault-wrap", "first asks for the last page of 2^64", NULL },
	{ "fault-misaligned", "first asks from the second byte of a page", NULL },
	{ "fault-length", "=N: first asks for N bytes", NULL },
	{ "fault-huge", "first asks for 1 GiB", NULL },
	{ "fault-command", "=N: first sends this command", NULL },
	{ "fault-payload", "=N: first a request whose payload is announced as N bytes", NULL },
	{ "fault-abandon", "first sends Abandon, then goes on", NULL },
	{ "fault-short", "half a request, then nothing", NULL },
	{ "fault-silent", "asks for nothing", NULL },
	{ "fault-pipeline", "=N: N requests at once", NULL },
	{ "fault-twice", "asks for each page twice", NULL },
	{ "fault-close", "=N: closes the fault connection after N requests", NULL },
	{ "fault-die", "=N: killed after N requests", NULL },
	{ "fault-never-close", "never closes it", NULL },
	{ "bench", "asks for all pages in order before State, and tells how fast it was",
	    NULL },
	/* the API: =PATH like vm.info, or without for all */
	{ "api-late", "=MS: the socket comes so late", NULL },
	{ "api-slow", "=MS: for each answer", NULL },
	{ "api-silent", "[=PATH]: no answer", NULL },
	{ "api-close", "[=PATH]: closed instead of an answer", NULL },
	{ "api-500", "[=PATH]: refused", NULL },
	{ "api-garbage", "[=PATH]: no HTTP", NULL },
	{ "api-no-json", "[=PATH]: half a document", NULL },
	{ "api-launcher", "the socket is made by another process", NULL },
	{ "others-migrate",
	    "vm.send-migration: somebody else's is under way, and pauses the VM", NULL },
	{ "others-pause", "vm.pause: somebody else has done so", NULL },
	{ "api-build", "=TEXT: its build_version is this", NULL },
	{ "api-version", "=TEXT: its version is this", NULL },
};

#define NLIES (sizeof(lies) / sizeof(*lies))

const char *
lie(const char *name)
{
	for (size_t i = 0; i < NLIES; i++)
		if (strcmp(lies[i].name, name) == 0)
			return lies[i].value;
	fprintf(stderr, "stand-in: no lie is called %s\n", name);
	abort();
}

bool
lie_at(const char *name, const char *step)
{
	const char *v = lie(name);

	return v != NULL && strcmp(v, step) == 0;
}

/* ---- its end ---- */

void
say(const char *format, ...)
{
	va_list ap;
	char line[512];

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	fprintf(stderr, "stand-in: %s\n", line);
}

void
sleep_for_ever(void)
{
	for (;;)
		pause();
}

void
quit(int status)
{
	pthread_mutex_lock(&vmm.lock);
	if (!vmm.quitting) {
		vmm.quitting = true;
		vmm.status = status;
	}
	pthread_cond_broadcast(&vmm.changed);
	pthread_mutex_unlock(&vmm.lock);
}

/* ---- options ---- */

static void __attribute__((noreturn)) usage(const char *wrong)
{
	fprintf(stderr, "stand-in: %s; see --help\n", wrong);
	exit(2);
}

static void __attribute__((noreturn)) help(void)
{
	printf(
	    "usage: stand-in-cloud-hypervisor --api-socket S [--version-as v52.0|v53.0|main]\n"
	    "  [--memory size=N,shared=on,hugepages=on | --memory-zone id=ID,size=N,...]...\n"
	    "  [--slots N] [--gap N] [--file-per-slot] [--hole N] [--seed N] [--density N]\n"
	    "  [--state-size N] [--guest-writes N] [--rounds N] [--guest-threads N]\n"
	    "  [--stay] [--leave-early] [LIE...]\n"
	    "   or: stand-in-cloud-hypervisor --api-socket S --request METHOD PATH [BODY]\n"
	    "The source tells what they do.  Lies:\n");
	for (size_t i = 0; i < NLIES; i++)
		printf("  --%s%s%s\n", lies[i].name,
		    lies[i].help[0] == '=' || lies[i].help[0] == '[' ? "" : "  ", lies[i].help);
	exit(0);
}

static uint64_t
number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (*end == 'K' || *end == 'M' || *end == 'G')
		n <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
	else if (*end != '\0' || end == text)
		usage("a number is wrong");
	return n;
}

static void
zone_field(struct zone *z, const char *field)
{
	const char *v = strchr(field, '=');

	if (v == NULL)
		usage("memory wants FIELD=VALUE");
	bool on = strcmp(++v, "on") == 0;
	if (strncmp(field, "id=", 3) == 0)
		snprintf(z->id, sizeof(z->id), "%s", v);
	else if (strncmp(field, "size=", 5) == 0)
		z->size = number(v);
	else if (strncmp(field, "shared=", 7) == 0)
		z->shared = on;
	else if (strncmp(field, "hugepages=", 10) == 0)
		z->hugepages = on;
	else if (strncmp(field, "hugepage_size=", 14) == 0)
		z->page = number(v);
}

static void
add_zone(const char *text)
{
	struct zone *z = &vmm.zones[vmm.nzones];
	char *copy = strdup(text), *save = NULL;

	if (vmm.nzones++ == sizeof(vmm.zones) / sizeof(*vmm.zones) || copy == NULL)
		usage("too many zones");
	strcpy(z->id, "mem0");
	z->size = (uint64_t)512 << 20;
	for (char *f = strtok_r(copy, ",", &save); f != NULL; f = strtok_r(NULL, ",", &save))
		zone_field(z, f);
	free(copy);
	if (!z->hugepages)
		z->page = PAGE;
	else if (z->page == 0)
		z->page = (uint64_t)2 << 20;
	if (z->size == 0)
		vmm.nzones--; /* there are zones instead */
	else if (z->size % z->page != 0)
		usage("the size is no multiple of the page size");
}

static void
set_version(const char *text)
{
	if (strcmp(text, "v52.0") == 0)
		vmm.version = V52;
	else if (strcmp(text, "v53.0") == 0)
		vmm.version = V53;
	else if (strcmp(text, "main") == 0)
		vmm.version = MAIN;
	else if (strcmp(text, "v54.0") == 0)
		vmm.version = V54;
	else
		usage("no such version");
}

static bool
lie_option(const char *name)
{
	for (size_t i = 0; i < NLIES; i++) {
		size_t len = strlen(lies[i].name);

		if (strncmp(name, lies[i].name, len) != 0 ||
		    (name[len] != '\0' && name[len] != '='))
			continue;
		if (name[len] == '\0' && lies[i].help[0] == '=')
			usage("a lie lacks its value");
		lies[i].value = name[len] == '=' ? name + len + 1 : "";
		return true;
	}
	return false;
}

static bool
flag(const char *name)
{
	if (strcmp(name, "help") == 0)
		help();
	else if (strcmp(name, "stay") == 0)
		vmm.stay = true;
	else if (strcmp(name, "leave-early") == 0)
		vmm.leave_early = true;
	else if (strcmp(name, "file-per-slot") == 0)
		vmm.file_per_slot = true;
	else
		return strcmp(name, "landlock") == 0 || lie_option(name);
	return true;
}

static void
set_number(const char *name, uint64_t n)
{
	if (strcmp(name, "slots") == 0)
		vmm.cut = n > 0 ? n : 1;
	else if (strcmp(name, "gap") == 0)
		vmm.gap = n;
	else if (strcmp(name, "hole") == 0)
		vmm.hole = n;
	else if (strcmp(name, "seed") == 0)
		vmm.guest.seed = n;
	else if (strcmp(name, "density") == 0)
		vmm.guest.density = n;
	else if (strcmp(name, "state-size") == 0)
		vmm.state_size = n;
	else if (strcmp(name, "guest-writes") == 0)
		vmm.rate = n;
	else if (strcmp(name, "rounds") == 0)
		vmm.rounds = (unsigned)n;
	else if (strcmp(name, "guest-threads") == 0)
		vmm.threads = n > 64 ? 64 : (unsigned)n;
	else
		usage("no such option");
}

static void
option(const char *name, const char *value)
{
	static const char *const ignored[] = { "seccomp", "log-file", "kernel", "cmdline",
		"cpus", "console", "serial", "event-monitor" };

	if (value == NULL)
		usage("an option lacks its value, or is none");
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		if (strcmp(name, ignored[i]) == 0)
			return;
	if (strcmp(name, "api-socket") == 0)
		api_socket = strncmp(value, "path=", 5) == 0 ? value + 5 : value;
	else if (strcmp(name, "version-as") == 0)
		set_version(value);
	else if (strcmp(name, "memory") == 0 || strcmp(name, "memory-zone") == 0)
		add_zone(value);
	else
		set_number(name, number(value));
}

/* --NAME=VALUE; false: it is --NAME VALUE. */
static bool
joined(const char *text)
{
	const char *value = strchr(text, '=');
	char name[32] = "";

	if (value == NULL || (size_t)(value - text) >= sizeof(name))
		return false;
	memcpy(name, text, (size_t)(value - text));
	option(name, value + 1);
	return true;
}

/* Only the API's other end does not come back. */
static void
options(char **argv)
{
	for (; *argv != NULL; argv++) {
		if (strcmp(*argv, "-v") == 0 || strcmp(*argv, "-vv") == 0)
			continue;
		if (strncmp(*argv, "--", 2) != 0)
			usage("it takes options only");
		if (flag(*argv + 2) || joined(*argv + 2))
			continue;
		if (strcmp(*argv, "--request") == 0) {
			if (api_socket == NULL || argv[1] == NULL || argv[2] == NULL)
				usage("--api-socket S --request METHOD PATH [BODY]");
			exit(api_request(api_socket, argv[1], argv[2], argv[3]));
		}
		option(*argv + 2, argv[1]);
		argv++;
	}
	if (api_socket == NULL)
		usage("--api-socket is needed");
}

static int
boot(struct why *why)
{
	if (vmm.nzones == 0)
		return 0;
	if (memory_make(why) == -1)
		return -1;
	vmm.config = json_vm_config();
	guest_fill();
	vmm.state = VM_RUNNING;
	guest_work();
	return 0;
}

int
main(int argc, char **argv)
{
	struct why why = { "memory" };

	(void)argc;
	signal(SIGPIPE, SIG_IGN);
	options(argv + 1);
	if (boot(&why) == -1 || api_start(api_socket, &why) == -1) {
		say("%s", why.text);
		return 1;
	}
	pthread_mutex_lock(&vmm.lock);
	while (!vmm.quitting)
		pthread_cond_wait(&vmm.changed, &vmm.lock);
	unlink(api_socket);
	fflush(stdout);
	/* Threads may wait in faults that nobody serves. */
	_exit(vmm.status);
}
