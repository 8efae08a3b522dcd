/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>

static struct options options;

/* Also of a signal handler, whatever the threads do at the moment. */
static void __attribute__((noreturn)) end(int status)
{
	if (options.control != NULL && options.listens)
		unlink(options.control);
	_exit(status);
}

static void __attribute__((format(printf, 1, 0))) say(const char *fmt, va_list ap)
{
	fprintf(stderr, "minivmm: ");
	vfprintf(stderr, fmt, ap);
}

void
fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	end(STATUS_FAILED);
}

void
fail_errno(const char *fmt, ...)
{
	int error = errno;
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(error));
	end(STATUS_FAILED);
}

/* ---- options ---- */

static const char help[] =
    "usage: minivmm [OPTION]...\n"
    "Run a small guest that writes its memory and checks it, under KVM.\n"
    "\n"
    "  --control SOCKET    let gmem-snap connect here\n"
    "  --delay MS          of the guest: wait after each round (0)\n"
    "  --free N            of the guest: give pages back every N rounds (0: never)\n"
    "  --help              print this\n"
    "  --memory KIND       memfd or guest_memfd (guest_memfd, where it can be mapped)\n"
    "  --no-direct-map     with --slot gmem: out of the kernel's direct map\n"
    "  --ram FILE          with --restore, but without gmem-restore: the memory\n"
    "  --restore FILE      go on with the VM of this state; its memory comes from\n"
    "                      gmem-restore IMAGE -- minivmm --restore {state}\n"
    "  --rounds N          of the guest (100)\n"
    "  --size MIB          memory of the guest, 4 to 3072 (64)\n"
    "  --slot KIND         plain: KVM reaches memory through the mapping;\n"
    "                      gmem: through the guest_memfd (plain)\n"
    "  --writes N          of the guest: pages to write in a round (64)\n"
    "\n"
    "The guest prints its progress.  Exit status: 0 the guest has found its memory\n"
    "right, 1 minivmm failed, 2 wrong usage, 3 the guest has found wrong memory,\n"
    "4 the guest crashed, 143 SIGTERM.\n";

static void __attribute__((noreturn, format(printf, 1, 2))) usage(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fprintf(stderr, ": see --help\n");
	exit(STATUS_USAGE);
}

enum option_number {
	CONTROL,
	DELAY,
	FREE,
	HELP,
	MEMORY,
	NO_DIRECT_MAP,
	RAM,
	RESTORE,
	ROUNDS,
	SIZE,
	SLOT,
	WRITES,
	OPTIONS
};

static const struct option names[] = { { "control", 1, NULL, CONTROL },
	{ "delay", 1, NULL, DELAY }, { "free", 1, NULL, FREE }, { "help", 0, NULL, HELP },
	{ "memory", 1, NULL, MEMORY }, { "no-direct-map", 0, NULL, NO_DIRECT_MAP },
	{ "ram", 1, NULL, RAM }, { "restore", 1, NULL, RESTORE }, { "rounds", 1, NULL, ROUNDS },
	{ "size", 1, NULL, SIZE }, { "slot", 1, NULL, SLOT }, { "writes", 1, NULL, WRITES },
	{ NULL, 0, NULL, 0 } };

static const char *given[OPTIONS]; /* NULL: it is not */

static uint32_t
number(enum option_number i, uint32_t min, uint32_t max, uint32_t preset)
{
	unsigned long n;
	char *rest;

	if (given[i] == NULL)
		return preset;
	n = strtoul(given[i], &rest, 10);
	if (*given[i] < '0' || *given[i] > '9' || *rest != '\0' || n < min || n > max)
		usage("--%s %s: a number from %u to %u is wanted", names[i].name, given[i], min,
		    max);
	return (uint32_t)n;
}

/* 1, 2: which of the two words it is; 0: the option is not given. */
static int
either(enum option_number i, const char *first, const char *second)
{
	if (given[i] == NULL)
		return 0;
	if (strcmp(given[i], first) != 0 && strcmp(given[i], second) != 0)
		usage("--%s %s: %s or %s is wanted", names[i].name, given[i], first, second);
	return strcmp(given[i], first) == 0 ? 1 : 2;
}

static void
check(const struct options *o)
{
	if (o->gmem_slot && o->memfd)
		usage("--slot gmem goes with --memory guest_memfd");
	if (o->no_direct_map && !o->gmem_slot)
		usage("--no-direct-map goes with --slot gmem");
	if (o->ram != NULL && o->restore == NULL)
		usage("--ram goes with --restore");
	for (int i = 0; i < OPTIONS && o->restore != NULL; i++)
		if (given[i] != NULL && (i == DELAY || i == FREE || i == ROUNDS || i == WRITES))
			usage("--%s is in the guest's memory already, with --restore",
			    names[i].name);
}

static void
parse(struct options *o, int argc, char **argv)
{
	int i;

	while ((i = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (i == '?')
			exit(STATUS_USAGE);
		given[i] = optarg != NULL ? optarg : "";
	}
	if (given[HELP] != NULL) {
		fputs(help, stdout);
		exit(STATUS_OK);
	}
	if (optind < argc)
		usage("%s: that is no option", argv[optind]);
	o->size = (uint64_t)number(SIZE, 4, 3072, 0) << 20;
	o->rounds = number(ROUNDS, 0, 1000000000, 100);
	o->writes = number(WRITES, 1, 1000000, 64);
	o->delay = number(DELAY, 0, 60000, 0);
	o->free_every = number(FREE, 0, 1000000, 0);
	o->memfd = either(MEMORY, "memfd", "guest_memfd") == 1;
	o->guest_memfd = either(MEMORY, "memfd", "guest_memfd") == 2;
	o->gmem_slot = either(SLOT, "plain", "gmem") == 2;
	o->no_direct_map = given[NO_DIRECT_MAP] != NULL;
	o->control = given[CONTROL];
	o->restore = given[RESTORE];
	o->ram = given[RAM];
	check(o);
}

/* ---- the VM ---- */

static void
create_vm(struct vm *vm)
{
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm == -1)
		fail_errno("this needs KVM, and permission for it: /dev/kvm");
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd == -1)
		fail_errno("create VM");
	/* Older Intel CPUs want some guest memory for themselves; behind ours. */
	if (ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000) == -1)
		fail_errno("KVM_SET_TSS_ADDR");
}

/* The program, and what it is to do, into memory that is all zeros. */
static void
load_guest(struct memory *m, const struct options *o)
{
	struct box *box = (void *)(m->map + GUEST_BOX);
	uint64_t pages = m->size / PAGE, data = GUEST_TABLE + pages * 4;

	data = (data + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	memcpy(m->map + GUEST_CODE, guest_start, guest_size);
	*box = (struct box){ .rounds = o->rounds,
		.random = 1,
		.data = (uint32_t)data,
		.pages = (uint32_t)((m->size - data) / PAGE) / GUEST_RUN * GUEST_RUN,
		.writes = o->writes,
		.free = o->free_every,
		.delay = o->delay };
}

static void
on_sigterm(int sig)
{
	(void)sig;
	end(STATUS_TERMINATED);
}

int
main(int argc, char **argv)
{
	const struct sigaction sa = { .sa_handler = on_sigterm };
	struct options *o = &options;
	static struct vm vm;

	parse(o, argc, argv);
	sigaction(SIGTERM, &sa, NULL);
	create_vm(&vm);
	if (o->restore != NULL) {
		restore_memory(&vm, o);
	} else {
		if (getenv(GMEM_HANDOFF_ENV) != NULL)
			fail("gmem-restore has a VM to go on with: give --restore {state}");
		memory_create(&vm, o, o->size != 0 ? o->size : 64u << 20);
		load_guest(&vm.memory, o);
	}
	memory_add_slot(&vm);
	vcpu_create(&vm);
	if (o->restore != NULL)
		restore_state(&vm, o->restore);
	else
		vcpu_start_guest(&vm.vcpu);
	if (o->control != NULL)
		control_start(&vm, o->control, &o->listens);
	end(vcpu_run(&vm.vcpu));
}
