/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "takeover-vmm.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pass-fd.h"
#include "serve/uffd.h"
#include "small-image.h"

#define THREADS 4u
#define WORDS (VM_PAGE / 8)
#define OWN_WORDS 64u /* the first of a page, which threads write to */
#define STRETCH 32u /* pages; some stretches are one thread's, who discards there */

struct vm {
	struct vm_plan plan;
	uint8_t *at[VM_MAPPINGS];
	int uffd, sock;
	pthread_mutex_t lock; /* of the socket */
};

struct toucher {
	struct vm *vm;
	unsigned number;
	uint64_t random;
	bool all; /* looks at every page once, and changes nothing */
	/* For each page: what it has written there, and whether the page is discarded. */
	uint64_t *stamps;
	bool *gone;
	pthread_t thread;
};

/* ---- to the server ---- */

static void
ask(struct vm *vm, int what, uint64_t off, uint64_t len)
{
	const struct vm_request r = { what, off, len };
	char answer;

	pthread_mutex_lock(&vm->lock);
	if (send(vm->sock, &r, sizeof(r), MSG_NOSIGNAL) != (ssize_t)sizeof(r) ||
	    read(vm->sock, &answer, 1) != 1)
		_exit(3);
	pthread_mutex_unlock(&vm->lock);
}

static _Noreturn void
wrong(struct vm *vm, const char *what, uint64_t page, unsigned word, uint64_t is, uint64_t want)
{
	printf("# %s page %lu word %u: %#lx, not %#lx\n", what, page, word, is, want);
	fflush(stdout);
	ask(vm, VM_WRONG, page, 0);
	_exit(1);
}

/* ---- pages ---- */

/* Whose page it is, if it is one that is discarded; else nobody's. */
static unsigned
owner(const struct vm *vm, uint64_t page)
{
	uint64_t stretch = page / STRETCH;

	return vm->plan.discards && stretch % 4 == 3 ? (unsigned)(stretch / 4 % THREADS)
						     : THREADS;
}

static unsigned
own_word(unsigned thread, uint64_t page)
{
	return thread * (OWN_WORDS / THREADS) + (unsigned)(page % (OWN_WORDS / THREADS));
}

static volatile uint64_t *
page_at(const struct toucher *t, uint64_t page)
{
	const struct vm *vm = t->vm;

	return (void *)(vm->at[vm->plan.kind == VM_SHARED ? t->number % VM_MAPPINGS : 0] +
			page * VM_PAGE);
}

static void
look(struct toucher *t, uint64_t page)
{
	const uint64_t *image = (const void *)(t->vm->plan.image + page * VM_PAGE);
	volatile uint64_t *is = page_at(t, page);
	unsigned own = own_word(t->number, page);
	uint64_t got = is[own], want = t->gone[page] ? 0 : image[own];

	if (t->stamps[page] != 0)
		want = t->stamps[page];
	if (got != want)
		wrong(t->vm, "own", page, own, got, want);
	for (unsigned i = OWN_WORDS; i < WORDS; i++) {
		want = t->gone[page] ? 0 : image[i];
		got = is[i];
		if (got != want)
			wrong(t->vm, "image's", page, i, got, want);
	}
}

static void
discard(struct toucher *t, uint64_t page)
{
	struct vm *vm = t->vm;
	uint64_t n = 1 + random_next(&t->random) % 8, off = page * VM_PAGE;
	bool own = vm->plan.kind == VM_OWN;

	if (n > STRETCH - page % STRETCH)
		n = STRETCH - page % STRETCH;
	if (!own)
		ask(vm, VM_DISCARD, off, n * VM_PAGE);
	if (madvise(vm->at[0] + off, n * VM_PAGE, own ? MADV_DONTNEED : MADV_REMOVE) == -1) {
		printf("# discard: %s\n", strerror(errno));
		_exit(4);
	}
	for (uint64_t i = page; i < page + n; i++) {
		t->gone[i] = true;
		t->stamps[i] = 0;
	}
}

static void
touch(struct toucher *t, uint64_t page)
{
	unsigned whose = owner(t->vm, page), what = (unsigned)(random_next(&t->random) % 8);

	if (whose != THREADS && whose != t->number)
		return;
	if (whose == t->number && what == 0 && !t->all) {
		discard(t, page);
		return;
	}
	/* Some pages are written to first. */
	if (what != 1 || t->all)
		look(t, page);
	if (what > 4 || t->all)
		return;
	t->stamps[page] = random_next(&t->random) | 1;
	page_at(t, page)[own_word(t->number, page)] = t->stamps[page];
}

static void *
toucher_main(void *arg)
{
	struct toucher *t = arg;
	uint64_t n = t->vm->plan.len / VM_PAGE, step = random_next(&t->random) | 1;
	uint64_t first = random_next(&t->random), page;

	for (uint64_t i = 0; i < n; i++) {
		page = (first + i * step) % n;
		touch(t, page);
		/* And one of those it has been at. */
		if (!t->all)
			touch(t, (first + random_next(&t->random) % (i + 1) * step) % n);
	}
	return NULL;
}

static void
touch_all(struct toucher t[THREADS], bool all)
{
	for (unsigned i = 0; i < THREADS; i++) {
		t[i].all = all;
		pthread_create(&t[i].thread, NULL, toucher_main, &t[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i].thread, NULL);
}

/* ---- its memory ---- */

static void
map_all(struct vm *vm)
{
	int flags = vm->plan.kind == VM_OWN ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	if (vm->plan.kind == VM_OWN && vm->plan.page_size > VM_PAGE)
		flags |= MAP_HUGETLB;
	for (unsigned i = 0; i < VM_MAPPINGS; i++) {
		vm->at[i] = mmap(NULL, vm->plan.len, PROT_READ | PROT_WRITE, flags,
		    vm->plan.kind == VM_OWN ? -1 : vm->plan.fd, 0);
		if (vm->at[i] == MAP_FAILED)
			_exit(5);
	}
}

static void
make_uffd(struct vm *vm)
{
	struct uffdio_api api = { .api = UFFD_API,
		.features = vm->plan.events ? UFFD_FEATURE_EVENT_REMOVE : 0 };
	struct err e;

	if (uffd_create(&vm->uffd, &e) == -1)
		_exit(5);
	if (vm->plan.kind != VM_SHARED &&
	    (ioctl(vm->uffd, UFFDIO_API, &api) == -1 ||
		uffd_register_missing(vm->uffd, (uintptr_t)vm->at[0], vm->plan.len, &e) == -1))
		_exit(5);
}

static void
hand_over(struct vm *vm)
{
	struct vm_offer offer = { .n = vm->plan.kind == VM_SHARED ? VM_MAPPINGS : 1 };

	for (unsigned i = 0; i < VM_MAPPINGS; i++)
		offer.hva[i] = (uintptr_t)vm->at[i];
	if (pass_fd(vm->sock, &offer, sizeof(offer), vm->uffd) == -1)
		_exit(5);
}

/* Asks for what is missing; the page is in the memory then. */
static void *
asker_main(void *arg)
{
	struct vm *vm = arg;
	struct uffd_fault faults[4];
	struct err e;

	for (;;) {
		int n = uffd_read(vm->uffd, faults, 4, &e);

		for (int i = 0; i < n; i++) {
			uint64_t off =
			    (faults[i].hva - (uintptr_t)vm->at[0]) & ~(vm->plan.page_size - 1);

			ask(vm, VM_PROVIDE, off, vm->plan.page_size);
			(void)uffd_wake(
			    vm->uffd, (uintptr_t)vm->at[0] + off, vm->plan.page_size, &e);
		}
	}
	return NULL;
}

_Noreturn void
vm_main(const struct vm_plan *plan, int sock)
{
	struct vm vm = { .plan = *plan, .sock = sock };
	struct toucher t[THREADS];
	pthread_t asker;
	char go;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_mutex_init(&vm.lock, NULL);
	map_all(&vm);
	make_uffd(&vm);
	hand_over(&vm);
	if (read(sock, &go, 1) != 1)
		_exit(3);
	for (unsigned i = 0; i < THREADS; i++) {
		t[i] = (struct toucher){ .vm = &vm, .number = i, .random = plan->seed + i };
		t[i].stamps = calloc(plan->len / VM_PAGE, sizeof(*t[i].stamps));
		t[i].gone = calloc(plan->len / VM_PAGE, sizeof(*t[i].gone));
		if (t[i].stamps == NULL || t[i].gone == NULL)
			_exit(5);
	}
	if (plan->kind == VM_ASKS)
		pthread_create(&asker, NULL, asker_main, &vm);
	touch_all(t, false);
	ask(&vm, VM_TOUCHED, 0, 0);
	touch_all(t, true);
	ask(&vm, VM_FINE, 0, 0);
	_exit(0);
}
