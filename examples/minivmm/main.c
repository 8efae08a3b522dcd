/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <getopt.h>
#include <signal.h>

int
must(int result, const char *what)
{
	if (result == -1)
		err(1, "%s", what);
	return result;
}

void *
map_file(int fd, uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		err(1, "map %llu bytes", (unsigned long long)size);
	return p;
}

/* ---- options ---- */

static const char help[] =
    "usage: minivmm [--memory memfd|guest_memfd] [--slot plain|gmem] [--no-direct-map]\n"
    "               [--size MIB] [--rounds N] [--writes PAGES] [--free ROUNDS] [--delay MS]\n"
    "               [--control SOCKET]\n"
    "or:    gmem-restore IMAGE -- minivmm --restore {state} [OPTION]...\n"
    "Run a small guest that writes its memory and checks it, under KVM: see README.\n";

enum { CONTROL, DELAY, FREE, HELP, MEMORY, DIRECT, RESTORE, ROUNDS, SIZE, SLOT, WRITES, COUNT };

static const struct option names[] = { { "control", 1, NULL, CONTROL },
	{ "delay", 1, NULL, DELAY }, { "free", 1, NULL, FREE }, { "help", 0, NULL, HELP },
	{ "memory", 1, NULL, MEMORY }, { "no-direct-map", 0, NULL, DIRECT },
	{ "restore", 1, NULL, RESTORE }, { "rounds", 1, NULL, ROUNDS },
	{ "size", 1, NULL, SIZE }, { "slot", 1, NULL, SLOT }, { "writes", 1, NULL, WRITES },
	{ NULL, 0, NULL, 0 } };

static const char *given[COUNT]; /* NULL: it is not */

/* Of a new guest: a restored one has it in its image. */
static uint32_t
number(int i, uint32_t min, uint32_t max, uint32_t preset)
{
	unsigned long n;
	char *rest;

	if (given[i] == NULL)
		return preset;
	if (given[RESTORE] != NULL)
		errx(STATUS_USAGE, "--restore: leave out --%s", names[i].name);
	n = strtoul(given[i], &rest, 10);
	if (*given[i] < '0' || *given[i] > '9' || *rest != '\0' || n < min || n > max)
		errx(STATUS_USAGE, "--%s %s: not from %u to %u", names[i].name, given[i], min,
		    max);
	return (uint32_t)n;
}

/* Whether the option is given with this word, and not with the other one. */
static bool
is(int i, const char *word, const char *other)
{
	if (given[i] == NULL || strcmp(given[i], other) == 0)
		return false;
	if (strcmp(given[i], word) != 0)
		errx(STATUS_USAGE, "--%s %s: not %s or %s", names[i].name, given[i], word,
		    other);
	return true;
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
	if (optind < argc)
		errx(STATUS_USAGE, "%s: that is no option", argv[optind]);
	if (given[HELP] != NULL) {
		fputs(help, stdout);
		exit(0);
	}
	o->control = given[CONTROL];
	o->restore = given[RESTORE];
	o->memfd = is(MEMORY, "memfd", "guest_memfd");
	o->guest_memfd = is(MEMORY, "guest_memfd", "memfd");
	o->gmem_slot = is(SLOT, "gmem", "plain");
	o->no_direct_map = given[DIRECT] != NULL;
	o->size = (uint64_t)number(SIZE, 4, 3072, 64) << 20;
	o->box[BOX_ROUNDS] = number(ROUNDS, 0, 1000000000, 100);
	o->box[BOX_WRITES] = number(WRITES, 1, 1000000, 64);
	o->box[BOX_DELAY] = number(DELAY, 0, 60000, 0);
	o->box[BOX_FREE] = number(FREE, 0, 1000000, 0);
	if (o->gmem_slot && o->memfd)
		errx(STATUS_USAGE, "--slot gmem goes with --memory guest_memfd");
	if (o->no_direct_map && !o->gmem_slot)
		errx(STATUS_USAGE, "--no-direct-map goes with --slot gmem");
}

/* ---- the VM ---- */

/* The program, and what it is to do, into memory that is all zeros. */
static void
load_guest(struct vm *vm)
{
	uint64_t data = GUEST_TABLE + vm->o.size / 256; /* a page: the size is whole MiB */
	uint32_t *box = vm->o.box;

	box[BOX_RANDOM] = 1;
	box[BOX_DATA] = (uint32_t)data;
	box[BOX_PAGES] = (uint32_t)((vm->o.size - data) / PAGE) / GUEST_RUN * GUEST_RUN;
	memcpy(vm->map + GUEST_BOX, box, sizeof(vm->o.box));
	memcpy(vm->map + GUEST_CODE, guest_start, guest_size);
}

/* Whatever the threads do at the moment. */
static void
on_sigterm(int sig)
{
	control_end();
	_exit(128 + sig);
}

int
main(int argc, char **argv)
{
	const struct sigaction sa = { .sa_handler = on_sigterm };
	static struct vm vm;

	parse(&vm.o, argc, argv);
	if ((vm.o.restore != NULL) != (getenv(GMEM_HANDOFF_ENV) != NULL))
		errx(1, "--restore {state} and gmem-restore go together");
	sigaction(SIGTERM, &sa, NULL);
	vm.kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm.fd = must(ioctl(vm.kvm, KVM_CREATE_VM, 0), "create VM");
	/* Older Intel CPUs want some guest memory for themselves; behind ours. */
	must(ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	if (vm.o.restore != NULL) {
		restore_memory(&vm);
	} else {
		memory_create(&vm);
		load_guest(&vm);
	}
	memory_add_slot(&vm);
	vcpu_create(&vm);
	if (vm.o.restore != NULL)
		state_load(&vm);
	else
		vcpu_start_guest(&vm);
	if (vm.o.control != NULL)
		control_start(&vm);
	vcpu_run(&vm);
}
