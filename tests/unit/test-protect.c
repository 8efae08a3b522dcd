/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Memory of a running VM as it was at one moment: a child plays a VM that writes, zeroes and
 * discards its pages without a pause through two mappings; what is read while it does has to be
 * what the memory was when the child stood still, each byte of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "pass-fd.h"
#include "serve/protect.h"
#include "serve/uffd.h"
#include "tap.h"
#include "test-memory-lib.h"

#define PAGE 4096u
#define MIB ((size_t)1 << 20)
#define WRITERS 3
#define READERS 2
#define STEP ((size_t)64 << 10)
#define LAST (vm->unit == PAGE ? STEP : 0) /* what the writers leave alone */
#define PATIENCE_MS 20000

static struct err e;

/* ---- the VM ---- */

enum deed { RUN, DISCARD, UNMAP, HOLE, FORK };

/* Shared with the child. */
struct shared {
	atomic_bool pause, end;
	atomic_uint still; /* writers that stand still */
	_Atomic uint64_t deeds; /* what they have done */
	_Atomic int wish; /* enum deed */
};

struct vm {
	int mem;
	size_t size, unit;
	bool discards;
	uint8_t *at[2]; /* two mappings */
	struct shared *shared;
	pid_t pid;
	int uffd;
};

static uint32_t
next(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* As gmem-handoff(7) wants it: a write comes first. */
static void
discard(const struct vm *vm, size_t page)
{
	__atomic_store_n(vm->at[0] + page * PAGE, 0, __ATOMIC_RELAXED);
	if (fallocate(vm->mem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE),
		PAGE) == -1)
		_exit(3);
}

static void
do_something(const struct vm *vm, uint32_t *seed)
{
	uint32_t n = next(seed), what = n % 16;
	/* Every fourth run of 16 pages is left alone, most of the rest is a few pages. */
	size_t pages = (vm->size - LAST) / PAGE,
	       page = next(seed) % (n & 64 ? pages : pages / 8);
	uint8_t *p;

	page &= ~((page & 16) != 0 ? (size_t)32 : 0);
	p = vm->at[n >> 8 & 1] + page * PAGE;
	if (what == 0)
		memset(p, 0, PAGE);
	else if (what == 1 && vm->discards)
		discard(vm, page);
	else
		__atomic_store_n(
		    (uint32_t *)(void *)p + next(seed) % (PAGE / 4), n, __ATOMIC_RELAXED);
}

struct writer {
	const struct vm *vm;
	uint32_t seed;
};

static void *
write_on(void *arg)
{
	struct writer *w = arg;
	struct shared *s = w->vm->shared;

	for (;;) {
		if (atomic_load(&s->pause)) {
			atomic_fetch_add(&s->still, 1);
			while (atomic_load(&s->pause))
				sched_yield();
			atomic_fetch_sub(&s->still, 1);
		}
		do_something(w->vm, &w->seed);
		atomic_fetch_add(&s->deeds, 1);
	}
	return NULL;
}

/* Things that a VMM must not do, once. */
static void
misbehave(const struct vm *vm)
{
	uint8_t *last = vm->at[0] + vm->size - vm->unit;
	pid_t child;

	switch (atomic_load(&vm->shared->wish)) {
	case DISCARD:
		if (madvise(last, vm->unit, MADV_REMOVE) == -1)
			_exit(4);
		break;
	case HOLE:
		discard(vm, vm->size / PAGE - 1);
		break;
	case UNMAP:
		munmap(last, vm->unit);
		break;
	case FORK:
		child = fork();
		if (child == 0) {
			*last = 'w';
			_exit(0);
		}
		waitpid(child, NULL, 0);
		break;
	default:
		break;
	}
	atomic_store(&vm->shared->wish, RUN);
}

static void __attribute__((noreturn)) play(struct vm *vm, int sock)
{
	struct writer writers[WRITERS];
	pthread_t thread;
	int uffd;

	if (uffd_create(&uffd, &e) == -1)
		_exit(77);
	if (pass_fd(sock, "", 1, uffd) == -1)
		_exit(5);
	close(uffd);
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){ vm, i + 1 };
		if (pthread_create(&thread, NULL, write_on, &writers[i]) != 0)
			_exit(6);
	}
	while (!atomic_load(&vm->shared->end)) {
		misbehave(vm);
		usleep(1000);
	}
	_exit(0);
}

static void
vm_start(struct vm *vm)
{
	int socks[2];
	char byte;

	vm->shared = mmap(NULL, sizeof(*vm->shared), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 2; i++)
		vm->at[i] = map_all(vm->mem, vm->size);
	if (vm->shared == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == -1)
		abort();
	vm->pid = fork();
	if (vm->pid == 0)
		play(vm, socks[1]);
	close(socks[1]);
	if (take_fd(socks[0], &byte, 1, &vm->uffd) == -1)
		vm->uffd = -1;
	close(socks[0]);
}

static void
vm_pause(const struct vm *vm)
{
	atomic_store(&vm->shared->pause, true);
	while (atomic_load(&vm->shared->still) != WRITERS)
		usleep(100);
}

static void
vm_resume(const struct vm *vm)
{
	atomic_store(&vm->shared->pause, false);
}

/* All writers have done something since: nobody is left waiting. */
static bool
vm_runs(const struct vm *vm)
{
	uint64_t before;

	vm_pause(vm);
	before = atomic_load(&vm->shared->deeds);
	vm_resume(vm);
	for (int ms = 0; ms < PATIENCE_MS; ms++) {
		if (atomic_load(&vm->shared->deeds) > before + 1000)
			return true;
		usleep(1000);
	}
	return false;
}

static void
vm_end(struct vm *vm)
{
	int status;

	atomic_store(&vm->shared->end, true);
	ok(waitpid(vm->pid, &status, 0) == vm->pid && status == 0, "the VM has ended well");
	for (int i = 0; i < 2; i++)
		munmap(vm->at[i], vm->size);
	munmap(vm->shared, sizeof(*vm->shared));
	close(vm->mem);
}

/* ---- reading ---- */

struct job {
	struct protect *p;
	uint8_t *to;
	_Atomic uint64_t *next;
	uint64_t *starts; /* of STEP bytes each */
	size_t n;
	bool failed;
};

static void *
read_on(void *arg)
{
	struct job *job = arg;
	struct err why = ERR_INIT;
	uint64_t i;

	while ((i = atomic_fetch_add(job->next, 1)) < job->n)
		if (protect_read(
			job->p, 0, job->to + job->starts[i], STEP, job->starts[i], &why) == -1)
			job->failed = true;
	return NULL;
}

/* As capture.c does it: what next tells in whole steps, the rest is skipped. */
static bool
find_all(struct protect *p, size_t size, uint64_t *starts, size_t *n)
{
	uint64_t at = 0, start, end;
	int more;

	*n = 0;
	while (at < size && (more = protect_next(p, 0, at, &start, &end, &e)) == 1) {
		start = start / STEP * STEP;
		end = MIN((end + STEP - 1) / STEP * STEP, size);
		if (protect_skip(p, 0, at, start, &e) == -1)
			return false;
		for (; start < end; start += STEP)
			starts[(*n)++] = start;
		at = end;
	}
	return protect_skip(p, 0, at, size, &e) == 0;
}

static bool
read_all(struct protect *p, size_t size, uint8_t *to)
{
	uint64_t *starts = calloc(size / STEP, sizeof(*starts));
	_Atomic uint64_t at = 0;
	struct job jobs[READERS];
	pthread_t threads[READERS];
	bool good;
	size_t n;

	good = find_all(p, size, starts, &n);
	for (unsigned i = 0; i < READERS; i++) {
		jobs[i] = (struct job){ p, to, &at, starts, n, false };
		pthread_create(&threads[i], NULL, read_on, &jobs[i]);
	}
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		good &= !jobs[i].failed;
	}
	free(starts);
	return good;
}

static struct protect *
protect_vm(struct vm *vm, struct memory_source *source, size_t pool)
{
	const struct protect_region region = {
		.source = source, .size = vm->size, .page_size = (uint32_t)vm->unit
	};
	struct protect_mapping maps[2];
	struct protect *p = NULL;

	for (int i = 0; i < 2; i++)
		maps[i] =
		    (struct protect_mapping){ .hva = (uintptr_t)vm->at[i], .len = vm->size };
	if (protect_new(&p, vm->uffd, &region, 1, maps, 2, pool, &e) == -1)
		return NULL;
	return p;
}

static void
truth_of(const struct vm *vm, uint8_t *to)
{
	memcpy(to, vm->at[0], vm->size);
}

static struct memory_source *
source_of(const struct vm *vm, enum memory_kind kind)
{
	struct memory_source *source = NULL;

	if (memory_source_open(&source, dup(vm->mem), kind, 0, &e) == -1)
		abort();
	return source;
}

/* ---- the tests ---- */

static void
check_moment(struct vm *vm, enum memory_kind kind, size_t pool, const char *name)
{
	struct memory_source *source = source_of(vm, kind);
	uint8_t *truth = calloc(1, vm->size), *got = calloc(1, vm->size);
	struct protect *p;
	size_t differ = 0;

	vm_start(vm);
	usleep(50000);
	e.kind = ERR_NONE;
	p = protect_vm(vm, source, pool);
	if (p == NULL && e.kind == ERR_UNSUPPORTED) {
		skip(3, "%s: %s", name, e.msg);
	} else if (ok(p != NULL, "%s: is registered", name)) {
		vm_pause(vm);
		/* Not by the mapping: that makes page tables, and holes are to stay holes. */
		if (pread(vm->mem, truth, vm->size, 0) != (ssize_t)vm->size && vm->unit == PAGE)
			abort();
		if (vm->unit != PAGE)
			truth_of(vm, truth);
		ok(protect_arm(p, &e) == 0, "%s: is protected", name);
		vm_resume(vm);
		for (int ms = 0; ms < PATIENCE_MS && protect_stats(p).saved == 0; ms++)
			usleep(1000);
		usleep(20000);
		ok(read_all(p, vm->size, got) && protect_check(p, &e) == 0, "%s: is read",
		    name);
		for (size_t i = 0; i < vm->size; i += PAGE)
			differ += memcmp(truth + i, got + i, PAGE) != 0;
		ok(differ == 0, "%s: %zu pages are not of the moment", name, differ);
		ok(protect_stats(p).saved > 0, "%s: pages were saved before they changed",
		    name);
		printf("# %llu saved, %llu stalled\n",
		    (unsigned long long)protect_stats(p).saved,
		    (unsigned long long)protect_stats(p).stalls);
	}
	protect_free(p);
	ok(vm_runs(vm), "%s: the VM runs", name);
	vm_end(vm);
	memory_source_free(source);
	free(truth);
	free(got);
}

/* Half of the memory is there, with content. */
static struct vm
new_vm(size_t size)
{
	struct vm vm = {
		.mem = new_memfd("ram", size), .size = size, .unit = PAGE, .discards = true
	};
	uint8_t page[PAGE];

	for (size_t at = 0; at < size; at += PAGE) {
		memset(page, (int)(at / PAGE) | 1, PAGE);
		if (at / STEP % 2 == 0 && pwrite(vm.mem, page, PAGE, (off_t)at) != PAGE)
			abort();
	}
	return vm;
}

static void
test_moment(void)
{
	for (int i = 0; i < 8; i++) {
		struct vm vm = new_vm(16 * MIB);

		check_moment(&vm, MEMORY_MEMFD, 64 * MIB, "memfd");
	}
	for (int i = 0; i < 4; i++) {
		struct vm vm = new_vm(16 * MIB);

		check_moment(&vm, MEMORY_MEMFD, 16 * PAGE, "a small pool");
	}
}

static void
test_hugetlb(void)
{
	struct vm vm = { .discards = false };
	uint64_t unit;

	vm.mem = new_hugetlb(4, &unit);
	if (vm.mem == -1) {
		skip(6, "too few free huge pages");
		return;
	}
	vm.unit = unit;
	vm.size = 4 * unit;
	check_moment(&vm, MEMORY_HUGETLB, 8 * MIB, "hugetlb");
}

/* The VM goes on when it all ends in the middle, with a full pool and nobody reading. */
static void
test_abandoned(void)
{
	struct vm vm = new_vm(8 * MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	struct protect *p;

	vm_start(&vm);
	p = protect_vm(&vm, source, 4 * PAGE);
	vm_pause(&vm);
	ok(p != NULL && protect_arm(p, &e) == 0, "abandoned: is protected");
	vm_resume(&vm);
	for (int ms = 0; ms < PATIENCE_MS && protect_stats(p).stalls < WRITERS; ms++)
		usleep(1000);
	ok(protect_stats(p).stalls >= WRITERS, "abandoned: all writers wait");
	protect_free(p);
	ok(vm_runs(&vm), "abandoned: the VM runs");
	vm_end(&vm);
	memory_source_free(source);
}

/* Memory that goes away before it was saved. */
static void
test_misdeed(enum deed wish, const char *name, const char *words)
{
	struct vm vm = new_vm(4 * MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	uint8_t *got = calloc(1, vm.size);
	struct protect *p;

	/* The writers keep away from the end. */
	vm_start(&vm);
	p = protect_vm(&vm, source, 64 * PAGE);
	vm_pause(&vm);
	ok(p != NULL && protect_arm(p, &e) == 0, "%s: is protected", name);
	atomic_store(&vm.shared->wish, wish);
	for (int ms = 0; ms < PATIENCE_MS && protect_check(p, &e) == 0; ms++)
		usleep(1000);
	e.kind = ERR_NONE;
	ok(protect_check(p, &e) == -1 && strstr(e.msg, words) != NULL, "%s: is noticed: %s",
	    name, e.msg);
	ok(!read_all(p, vm.size, got), "%s: nothing is read any more", name);
	protect_free(p);
	kill(vm.pid, SIGKILL);
	waitpid(vm.pid, NULL, 0);
	memory_source_free(source);
	free(got);
}

struct race {
	struct protect *p;
	uint8_t *at;
	atomic_bool discarded;
};

static void *
discard_one(void *arg)
{
	struct race *r = arg;

	if (madvise(r->at, PAGE, MADV_REMOVE) == -1)
		abort();
	atomic_store(&r->discarded, true);
	return NULL;
}

/* Whoever discards goes on before we know of it; a reader may be there in the same moment. */
static void
test_race(void)
{
	unsigned unnoticed = 0;

	for (int i = 0; i < 300; i++) {
		struct vm vm = new_vm(STEP);
		struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
		struct race r = { .discarded = false };
		uint8_t got[PAGE] = { 0 };
		pthread_t thread;

		for (int k = 0; k < 2; k++)
			vm.at[k] = map_all(vm.mem, vm.size);
		r.at = vm.at[0];
		r.at[0] = 1;
		if (uffd_create(&vm.uffd, &e) == -1)
			abort();
		r.p = protect_vm(&vm, source, MIB);
		if (r.p == NULL || protect_arm(r.p, &e) == -1 ||
		    pthread_create(&thread, NULL, discard_one, &r) != 0)
			abort();
		while (!atomic_load(&r.discarded))
			;
		if (protect_read(r.p, 0, got, PAGE, 0, &e) == 0 &&
		    protect_check(r.p, &e) == 0 && got[0] != 1)
			unnoticed++;
		pthread_join(thread, NULL);
		protect_free(r.p);
		memory_source_free(source);
		for (int k = 0; k < 2; k++)
			munmap(vm.at[k], vm.size);
		close(vm.mem);
	}
	ok(unnoticed == 0, "race: %u of 300 times a discarded page was taken for zeros",
	    unnoticed);
}

/* A balloon between the registration and the pause: what is there at the moment counts. */
static void
test_early(void)
{
	struct vm vm = new_vm(4 * MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	uint8_t *truth = calloc(1, vm.size), *got = calloc(1, vm.size);
	struct protect *p;

	vm_start(&vm);
	e = (struct err)ERR_INIT;
	p = protect_vm(&vm, source, MIB);
	atomic_store(&vm.shared->wish, DISCARD);
	for (int ms = 0; ms < PATIENCE_MS && atomic_load(&vm.shared->wish) != RUN; ms++)
		usleep(1000);
	vm_pause(&vm);
	ok(p != NULL && protect_arm(p, &e) == 0, "early: is protected: %s", e.msg);
	if (pread(vm.mem, truth, vm.size, 0) != (ssize_t)vm.size)
		abort();
	vm_resume(&vm);
	ok(read_all(p, vm.size, got) && protect_check(p, &e) == 0 &&
		memcmp(truth, got, vm.size) == 0,
	    "early: is of the moment");
	protect_free(p);
	vm_end(&vm);
	memory_source_free(source);
	free(truth);
	free(got);
}

/* A page that is alone in its neighbourhood, and goes away as it should. */
static void
test_hole(void)
{
	struct vm vm = new_vm(4 * MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	uint8_t *truth = calloc(1, vm.size), *got = calloc(1, vm.size), page[PAGE] = "alone";
	off_t last = (off_t)(vm.size - PAGE);
	struct protect *p;

	if (pwrite(vm.mem, page, PAGE, last) != PAGE)
		abort();
	vm_start(&vm);
	p = protect_vm(&vm, source, MIB);
	vm_pause(&vm);
	ok(p != NULL && protect_arm(p, &e) == 0, "hole: is protected");
	if (pread(vm.mem, truth, vm.size, 0) != (ssize_t)vm.size)
		abort();
	atomic_store(&vm.shared->wish, HOLE);
	for (int ms = 0; ms < PATIENCE_MS && atomic_load(&vm.shared->wish) != RUN; ms++)
		usleep(1000);
	ok(lseek(vm.mem, last, SEEK_DATA) == -1, "hole: it is gone");
	ok(read_all(p, vm.size, got) && protect_check(p, &e) == 0, "hole: is read");
	ok(memcmp(truth, got, vm.size) == 0, "hole: as it was");
	protect_free(p);
	vm_resume(&vm);
	vm_end(&vm);
	memory_source_free(source);
	free(truth);
	free(got);
}

/* What was done before is no matter. */
static void
test_dead(void)
{
	struct vm vm = new_vm(4 * MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	uint8_t *truth = calloc(1, vm.size), *got = calloc(1, vm.size);
	struct protect *p;

	vm_start(&vm);
	p = protect_vm(&vm, source, 64 * PAGE);
	vm_pause(&vm);
	ok(p != NULL && protect_arm(p, &e) == 0, "dead: is protected");
	if (pread(vm.mem, truth, vm.size, 0) != (ssize_t)vm.size)
		abort();
	vm_resume(&vm);
	usleep(10000);
	kill(vm.pid, SIGKILL);
	waitpid(vm.pid, NULL, 0);
	ok(read_all(p, vm.size, got) && protect_check(p, &e) == 0, "dead: is read");
	ok(memcmp(truth, got, vm.size) == 0, "dead: is of the moment");
	protect_free(p);
	memory_source_free(source);
	free(truth);
	free(got);
}

static void
test_refused(void)
{
	struct vm vm = new_vm(1 * MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	struct protect_region region = { .source = source, .size = vm.size, .page_size = PAGE };
	struct protect_mapping map = { .len = vm.size };
	struct protect *p;
	int pipe_fds[2];

	vm_start(&vm);
	if (pipe2(pipe_fds, O_CLOEXEC) == -1)
		abort();
	map.hva = (uintptr_t)vm.at[0];
	ok(protect_new(&p, pipe_fds[0], &region, 1, &map, 1, MIB, &e) == -1, "no userfaultfd");
	close(pipe_fds[1]);
	map.len += PAGE;
	ok(protect_new(&p, dup(vm.uffd), &region, 1, &map, 1, MIB, &e) == -1 &&
		e.kind == ERR_CORRUPT,
	    "a mapping that is too long: %s", e.msg);
	map.len = vm.size;
	map.region = 1;
	ok(protect_new(&p, dup(vm.uffd), &region, 1, &map, 1, MIB, &e) == -1 &&
		e.kind == ERR_CORRUPT,
	    "a region that is not there: %s", e.msg);
	map.region = 0;
	map.hva = PAGE;
	ok(protect_new(&p, dup(vm.uffd), &region, 1, &map, 1, MIB, &e) == -1,
	    "nothing is mapped there: %s", e.msg);
	map.hva = (uintptr_t)vm.at[0];
	ok(protect_new(&p, vm.uffd, &region, 1, &map, 1, MIB, &e) == -1,
	    "its handshake was made before: %s", e.msg);
	vm_end(&vm);
	memory_source_free(source);
}

static bool
can_protect(void)
{
	struct vm vm = new_vm(MIB);
	struct memory_source *source = source_of(&vm, MEMORY_MEMFD);
	struct protect *p = NULL;

	vm_start(&vm);
	if (vm.uffd != -1)
		p = protect_vm(&vm, source, MIB);
	protect_free(p);
	kill(vm.pid, SIGKILL);
	waitpid(vm.pid, NULL, 0);
	memory_source_free(source);
	return p != NULL;
}

static bool
may_see_forks(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	bool may = fd != -1 && ioctl(fd, UFFDIO_API, &api) == 0;

	if (fd != -1)
		close(fd);
	return may;
}

int
main(void)
{
	if (!can_protect()) {
		skip(1, "no write protection by userfaultfd: %s", e.msg);
		return done();
	}
	test_moment();
	test_hugetlb();
	test_abandoned();
	test_misdeed(DISCARD, "discarded", "discarded 4096 bytes");
	test_misdeed(UNMAP, "unmapped", "unmapped 4096 bytes");
	if (may_see_forks())
		test_misdeed(FORK, "fork", "makes a child");
	else
		skip(3, "fork: not seen without CAP_SYS_PTRACE");
	test_race();
	test_early();
	test_hole();
	test_dead();
	test_refused();
	return done();
}
