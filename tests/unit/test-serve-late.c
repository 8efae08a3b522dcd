/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * A page server dies between registering a mapping and saying so: the next one is told of the
 * mapping after it has gone on, and whoever waits there already is not forgotten.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/fdio.h"
#include "serve/claims.h"
#include "serve/server.h"
#include "serve/uffd.h"
#include "small-image.h"
#include "tap.h"

#define LENGTH ((size_t)1 << 20)
#define PAGE 4096u
#define PATIENCE_MS 20000

static uint8_t *memory; /* what the image holds */
static struct image *img;

struct setup {
	const char *name;
	bool own; /* memory of the VMM's own; else a memfd */
	bool complete; /* all is there before the mapping is told of again */
};

static const struct setup setups[] = {
	{ "a memfd", .own = false },
	{ "memory of the VMM's own", .own = true },
	{ "a memfd, when all is there", .complete = true },
};

struct vm {
	int fd, uffd, claims, events;
	uint8_t *map;
	size_t page; /* the first that is stored */
	atomic_bool touched;
	uint8_t got[PAGE];
};

static void
nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void *
touch(void *arg)
{
	struct vm *vm = arg;

	memcpy(vm->got, vm->map + vm->page * PAGE, PAGE);
	atomic_store(&vm->touched, true);
	return NULL;
}

static bool
await_touched(struct vm *vm)
{
	for (int i = 0; i < PATIENCE_MS && !atomic_load(&vm->touched); i++)
		nap();
	return atomic_load(&vm->touched);
}

/* Memory that the dead server has registered, and nothing more. */
static int
make_vm(struct vm *vm, bool own, struct err *e)
{
	uint64_t features;

	vm->fd = memfd_create("test", MFD_CLOEXEC);
	if (vm->fd == -1 || ftruncate(vm->fd, LENGTH) == -1)
		return err_sys(e, "memfd");
	vm->map =
	    own ? mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
		: mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, vm->fd, 0);
	if (vm->map == MAP_FAILED)
		return err_sys(e, "mmap");
	while (memory[vm->page * PAGE + 5] == 0)
		vm->page++;
	if (uffd_create(&vm->uffd, e) == -1 || uffd_handshake(vm->uffd, &features, e) == -1 ||
	    claims_create(LENGTH / PAGE, &vm->claims, e) == -1 ||
	    server_events_create(&vm->events, e) == -1)
		return -1;
	return own ? uffd_register_missing(vm->uffd, (uintptr_t)vm->map, LENGTH, e)
		   : uffd_register(vm->uffd, (uintptr_t)vm->map, LENGTH, e);
}

/* Somebody waits, and whoever has read that is no more. */
static int
lose_fault(struct vm *vm, struct err *e)
{
	struct uffd_fault list[4];

	return uffd_read(vm->uffd, list, 4, e) == 1 ? 0 : err_set(e, ERR_FAILED, "no fault");
}

static int
go_on(const struct setup *how, struct vm *vm, struct server *s, struct err *e)
{
	const struct served_memory m = {
		.fd = vm->fd, .page_size = PAGE, .bitmap = -1, .claims = vm->claims
	};
	unsigned id;
	int fd = dup(vm->uffd);

	if ((how->own ? server_add_foreign(s, 0, PAGE, vm->claims, e)
		      : server_add_memory(s, 0, &m, e)) == -1 ||
	    (how->own ? server_adopt_process(s, fd, vm->events, &id, e)
		      : server_add_process(s, fd, &id, e)) == -1 ||
	    server_start(s, e) == -1 || server_resume(s, e) == -1)
		return -1;
	while (how->complete && server_state(s, e) == SERVER_FILLING)
		nap();
	return server_add_mapping(s, id, (uintptr_t)vm->map, LENGTH, 0, 0, e);
}

static void
test(const struct setup *how)
{
	const struct server_options o = { .nworkers = 2,
		.background = how->complete ? BACKGROUND_ON : BACKGROUND_OFF,
		.resume = true };
	struct err e = ERR_INIT;
	struct vm *vm = calloc(1, sizeof(*vm));
	struct server *s = NULL;
	pthread_t thread;
	int rc;

	if (vm == NULL || make_vm(vm, how->own, &e) == -1 ||
	    pthread_create(&thread, NULL, touch, vm) != 0) {
		ok(false, "%s: %s", how->name, e.msg);
		return;
	}
	rc = lose_fault(vm, &e);
	if (rc == 0)
		rc = server_new(&s, img, &o, &e);
	if (rc == 0)
		rc = go_on(how, vm, s, &e);
	ok(rc == 0, "%s: the mapping is told of again %s", how->name, rc == 0 ? "" : e.msg);
	/* Else it is left as it is, waiting. */
	if (!ok(await_touched(vm), "%s: who waits there goes on", how->name))
		return;
	pthread_join(thread, NULL);
	ok(memcmp(vm->got, memory + vm->page * PAGE, PAGE) == 0, "%s: with the image's bytes",
	    how->name);
	server_free(s);
	fd_close(&vm->uffd);
	fd_close(&vm->claims);
	fd_close(&vm->events);
	fd_close(&vm->fd);
	free(vm);
}

int
main(void)
{
	char path[] = "/tmp/test-serve-late.XXXXXX";
	struct err e = ERR_INIT;
	int fd = mkstemp(path), probe;

	memory = malloc(LENGTH);
	if (fd == -1 || memory == NULL || uffd_create(&probe, &e) == -1) {
		skip(1, "no userfaultfd: %s", e.msg);
		return done();
	}
	fd_close(&probe);
	fd_close(&fd);
	fill_memory(memory, LENGTH, 8, 1);
	if (!ok(small_image(path, memory, LENGTH, 65536, &e) == 0 &&
		    image_open(&img, path, &e) == 0,
		"an image %s", e.msg))
		return done();
	unlink(path);
	for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++)
		test(&setups[i]);
	image_close(img);
	free(memory);
	return done();
}
