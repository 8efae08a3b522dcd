/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * vmm-touch WORD...: a VMM for tests.  It has no guest; it does one after the other what
 * the words say, and compares all it sees with the pattern (vmm-pattern.h).
 *
 *	open=PATH pattern=SEED,DENSITY	the memory, and what is in it
 *	own=KIND,MIB[,slots|,FLAGS]	memory of its own, handed over: see touch-own.h
 *	punch-silently=N		a hole of N pages at the start, of which nobody is told
 *	map twice pieces		map it: as a whole, as two views, in two pieces
 *	private raw-map populate	MAP_PRIVATE; past libc; MAP_POPULATE
 *	touch=N write=N verify		N threads, pages in random order: compare every byte;
 *					count one up in a word of each page; compare in order
 *	pages=LIST			these pages in this order: r7,w9 reads one, writes
 *another race=HOW,EVERY,N		touch, while every EVERYth page is discarded
 *	bus				pages may be poisoned: who compares one notes it, goes
 *on poisoned=LIST			exactly these pages were: 3,7 or none poisoned-in=LIST
 *some of these pages were, and no others discard=HOW,EVERY dontneed	HOW: remove (madvise),
 *punch (fallocate) part=HOW			discards a part of a page failures
 *calls that fail and must change nothing split				makes many small VMAs
 *	syscalls			lets the kernel read and write the memory
 *	unmap middle cover		unmap all; a part; map something else over a part
 *	mremap				must be refused
 *	mlockall fork-read close-userfaultfd
 *	fork daemon exec		goes on in a child, in the background, in a new program
 *	pid=FILE say=TEXT wait=FILE sleep=MS forever exit=N die=SIGNAL
 *
 * Exit status: 66 and MISMATCH for a wrong byte, 65 when a call fails, 64 wrong usage.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/magic.h>

#include "touch-own.h"
#include "vmm-pattern.h"

#define VIEWS_MAX 8
#define THREADS_MAX 16
#define WORDS (PATTERN_PAGE / 8)

/* A mapping; offset in pages. */
struct view {
	uint8_t *at;
	size_t npages;
	uint64_t offset;
};

static struct {
	int fd;
	uint64_t npages;
	unsigned unit; /* pages that are discarded at once: a huge page */
	struct pattern pattern;
	int flags; /* for the next mmap */
	struct view views[VIEWS_MAX];
	size_t nviews;
	unsigned writers; /* threads [0, writers) have counted … */
	uint8_t *counts; /* … for each page: so often */
	uint8_t *discarded; /* for each page: it is zeros now */
	uint8_t *poisoned; /* for each page: reading it has raised SIGBUS */
} vmm = { .fd = -1, .flags = MAP_SHARED };

static void __attribute__((noreturn, format(printf, 2, 3)))
quit(int status, const char *fmt, ...)
{
	char text[256], line[300];
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* In one piece: it may be killed meanwhile, and gmem-restore goes on in the same line.
	 */
	n = snprintf(line, sizeof(line), "vmm-touch: %s\n", text);
	if (write(STDERR_FILENO, line, (size_t)n) != n)
		_exit(99);
	_exit(status);
}

static void
expect(bool good, const char *what)
{
	if (!good)
		quit(65, "%s: %s", what, strerror(errno));
}

/* ---- comparing ---- */

static void
expected(uint64_t page, uint64_t *words)
{
	if (vmm.discarded[page]) {
		memset(words, 0, PATTERN_PAGE);
		return;
	}
	pattern_page(&vmm.pattern, page, words);
	for (unsigned i = 0; i < vmm.writers; i++)
		words[8 * i] += vmm.counts[page];
}

static void __attribute__((noreturn))
mismatch(uint64_t page, unsigned word, uint64_t is, uint64_t want)
{
	quit(66, "MISMATCH page %#lx word %u: %#lx, should be %#lx", page, word, is, want);
}

/* or_zero: somebody may be discarding the page just now. */
static void
compare(const void *at, uint64_t page, bool or_zero)
{
	uint64_t want[WORDS];
	const volatile uint64_t *is = at;

	expected(page, want);
	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t value = is[i];

		if (value != want[i] && !(or_zero && value == 0))
			mismatch(page, i, value, want[i]);
	}
}

/* ---- memory errors ---- */

static __thread sigjmp_buf on_bus;
static __thread volatile sig_atomic_t may_bus;

static void
bus_handler(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!may_bus || (info->si_code != BUS_MCEERR_AR && info->si_code != BUS_ADRERR)) {
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(on_bus, 1);
}

static void
do_bus(void)
{
	struct sigaction sa = { .sa_sigaction = bus_handler, .sa_flags = SA_SIGINFO };

	expect(sigaction(SIGBUS, &sa, NULL) == 0, "sigaction");
}

/* What is poisoned is so whenever it is read, and nothing else is seen of it ever. */
static void
compare_or_bus(const void *at, uint64_t page)
{
	if (sigsetjmp(on_bus, 1) != 0) {
		may_bus = 0;
		vmm.poisoned[page] = 1;
		return;
	}
	may_bus = 1;
	compare(at, page, false);
	may_bus = 0;
}

/* ---- mapping ---- */

static void
use_memory(int fd)
{
	struct statfs fs;
	struct stat st;

	vmm.fd = fd;
	expect(fstat(vmm.fd, &st) == 0, "fstat");
	expect(fstatfs(vmm.fd, &fs) == 0, "fstatfs");
	vmm.npages = (uint64_t)st.st_size / PATTERN_PAGE;
	vmm.unit = 1;
	if (fs.f_type == HUGETLBFS_MAGIC)
		vmm.unit = (unsigned)st.st_blksize / PATTERN_PAGE;
	free(vmm.discarded);
	free(vmm.counts);
	free(vmm.poisoned);
	vmm.poisoned = calloc(vmm.npages, 1);
	vmm.discarded = calloc(vmm.npages, 1);
	vmm.counts = calloc(vmm.npages, 1);
	expect(vmm.discarded != NULL && vmm.counts != NULL && vmm.poisoned != NULL, "calloc");
	vmm.nviews = 0;
}

static void
add_view(uint8_t *at, uint64_t offset, size_t npages)
{
	if (vmm.nviews == VIEWS_MAX)
		quit(64, "too many views");
	vmm.views[vmm.nviews++] = (struct view){ at, npages, offset };
}

static void
open_memory(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	expect(fd != -1, path);
	use_memory(fd);
}

static void
map_part(uint64_t offset, size_t npages)
{
	void *p = mmap(NULL, npages * PATTERN_PAGE, PROT_READ | PROT_WRITE, vmm.flags, vmm.fd,
	    (off_t)(offset * PATTERN_PAGE));

	expect(p != MAP_FAILED, "mmap");
	if (own_memory())
		own_map(p, npages * PATTERN_PAGE, offset * PATTERN_PAGE);
	add_view(p, offset, npages);
}

static void
unmap(const uint8_t *at, size_t npages)
{
	if (own_memory())
		own_unmap(at, npages * PATTERN_PAGE);
	expect(munmap((void *)(uintptr_t)at, npages * PATTERN_PAGE) == 0, "munmap");
}

static void
map_raw(void)
{
	long p = syscall(SYS_mmap, NULL, vmm.npages * PATTERN_PAGE, PROT_READ | PROT_WRITE,
	    MAP_SHARED, vmm.fd, 0);

	expect(p != -1, "mmap");
	add_view((uint8_t *)p, 0, vmm.npages);
}

static void
unmap_all(void)
{
	for (size_t i = 0; i < vmm.nviews; i++)
		unmap(vmm.views[i].at, vmm.views[i].npages);
	vmm.nviews = 0;
}

/* Makes two views of the first one; what was between them is gone. */
static struct view
take_middle(void)
{
	struct view all = vmm.views[0], middle = all;

	middle.npages = all.npages / 3;
	middle.offset += middle.npages;
	middle.at += middle.npages * PATTERN_PAGE;
	vmm.views[0].npages = middle.npages;
	add_view(middle.at + middle.npages * PATTERN_PAGE, middle.offset + middle.npages,
	    all.npages - 2 * middle.npages);
	return middle;
}

/*
 * Another file takes a part of the place: what happens to it there is no
 * business of the guest's memory.
 */
static void
cover_middle(void)
{
	struct view m = take_middle();
	int fd = memfd_create("other", MFD_CLOEXEC);
	void *p;

	expect(fd != -1 && ftruncate(fd, (off_t)(m.npages * PATTERN_PAGE)) == 0, "memfd");
	if (own_memory())
		own_unmap(m.at, m.npages * PATTERN_PAGE);
	p = mmap(m.at, m.npages * PATTERN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
	    fd, 0);
	expect(p == m.at, "mmap");
	memset(p, 1, m.npages * PATTERN_PAGE);
	expect(madvise(p, m.npages * PATTERN_PAGE, MADV_REMOVE) == 0, "MADV_REMOVE");
	expect(munmap(p, m.npages * PATTERN_PAGE) == 0, "munmap");
	map_part(m.offset, m.npages);
}

static void
refused_mremap(void)
{
	struct view *v = &vmm.views[0];
	size_t len = v->npages * PATTERN_PAGE;
	size_t old[] = { len, 0, len, len / 2 };
	size_t new[] = { 2 * len, len, len / 2, len };

	for (unsigned i = 0; i < 4; i++)
		expect(mremap(v->at, old[i], new[i], MREMAP_MAYMOVE) == MAP_FAILED &&
			   errno == ENOTSUP,
		    "mremap is not refused");
}

/* ---- threads ---- */

struct toucher {
	pthread_t thread;
	unsigned index, n;
	unsigned every; /* race: which pages are discarded; else 0 */
	bool write, punch;
};

static size_t
total_pages(void)
{
	size_t n = 0;

	for (size_t i = 0; i < vmm.nviews; i++)
		n += vmm.views[i].npages;
	return n;
}

/* Where the i-th page of all views is, and which page of the memory it is. */
static uint8_t *
locate(size_t i, uint64_t *page)
{
	const struct view *v = vmm.views;

	while (i >= v->npages)
		i -= v++->npages;
	*page = v->offset + i;
	return v->at + i * PATTERN_PAGE;
}

/* The order in which thread `index` visits n things. */
static uint32_t *
shuffled(size_t n, unsigned index)
{
	uint32_t *order = calloc(n + 1, sizeof(*order));
	uint64_t state = vmm.pattern.seed * 31 + index;

	expect(order != NULL, "calloc");
	for (size_t i = 0; i < n; i++) {
		size_t k = (state = pattern_mix(state)) % (i + 1);

		order[i] = order[k];
		order[k] = (uint32_t)i;
	}
	return order;
}

static void
discard(uint8_t *at, uint64_t page, bool punch)
{
	off_t len = (off_t)vmm.unit * PATTERN_PAGE;

	if (own_memory())
		own_discard(page * PATTERN_PAGE, (uint64_t)len);
	if (punch)
		expect(fallocate(vmm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			   (off_t)(page * PATTERN_PAGE), len) == 0,
		    "PUNCH_HOLE");
	else
		expect(madvise(at, (size_t)len, MADV_REMOVE) == 0, "MADV_REMOVE");
}

static void
race(const struct toucher *t, uint8_t *at, uint64_t page)
{
	static const uint8_t zeros[PATTERN_PAGE];

	if (page % t->every != 0) {
		compare(at, page, false);
	} else if (page / t->every % t->n != t->index) {
		compare(at, page, true);
	} else {
		/* Every second one is discarded without a look at it before. */
		if (page / t->every % 2 == 0)
			compare(at, page, false);
		discard(at, page, t->punch);
		if (memcmp(at, zeros, PATTERN_PAGE) != 0)
			mismatch(page, 0, *(uint64_t *)(void *)at, 0);
	}
}

static void *
touch_main(void *arg)
{
	const struct toucher *t = arg;
	size_t n = total_pages();
	uint32_t *order = shuffled(n, t->index);

	for (size_t i = 0; i < n; i++) {
		uint64_t page;
		uint8_t *at = locate(order[i], &page);

		if (t->every != 0)
			race(t, at, page);
		else if (t->write)
			atomic_fetch_add((_Atomic uint64_t *)(void *)at + 8 * t->index, 1);
		else
			compare_or_bus(at, page);
	}
	free(order);
	return NULL;
}

/* Each of n threads has counted each page of each view up once. */
static void
count_up(unsigned n)
{
	if (vmm.writers != 0 && vmm.writers != n)
		quit(64, "write: always with as many threads");
	vmm.writers = n;
	for (size_t i = 0; i < vmm.nviews; i++)
		for (size_t k = 0; k < vmm.views[i].npages; k++)
			vmm.counts[vmm.views[i].offset + k]++;
}

static void
run_threads(unsigned n, struct toucher like)
{
	static struct toucher list[THREADS_MAX];

	if (n < 1 || n > THREADS_MAX)
		quit(64, "threads: 1 to %d", THREADS_MAX);
	for (unsigned i = 0; i < n; i++) {
		list[i] = like;
		list[i].index = i;
		list[i].n = n;
		errno = pthread_create(&list[i].thread, NULL, touch_main, &list[i]);
		expect(errno == 0, "pthread_create");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(list[i].thread, NULL);
	if (like.write)
		count_up(n);
	for (uint64_t page = 0; like.every != 0 && page < vmm.npages; page += like.every)
		vmm.discarded[page] = 1;
}

static void
verify(void)
{
	size_t n = total_pages();
	uint64_t page;

	for (size_t i = 0; i < n; i++) {
		uint8_t *at = locate(i, &page);

		compare_or_bus(at, page);
	}
}

static void
discard_some(bool punch, unsigned every)
{
	size_t n = total_pages();
	uint64_t page;

	for (size_t i = 0; i < n; i++) {
		uint8_t *at = locate(i, &page);

		if (page % vmm.unit != 0 || page / vmm.unit % every != 0)
			continue;
		discard(at, page, punch);
		memset(vmm.discarded + page, 1, vmm.unit);
	}
}

/* Half a page, of one with data: zeros there, the other half kept; or it is refused. */
static void
discard_part(bool punch)
{
	uint64_t page = 0;
	uint8_t *at;
	int rc;

	while (page < vmm.npages - 1 && pattern_is_zero(&vmm.pattern, page))
		page++;
	at = vmm.views[0].at + page * PATTERN_PAGE;
	if (punch)
		rc = fallocate(vmm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    (off_t)(page * PATTERN_PAGE), PATTERN_PAGE / 2);
	else
		rc = madvise(at, PATTERN_PAGE / 2, MADV_REMOVE);
	expect(rc == 0, "discard");
	/* madvise rounds the length up. */
	if (!punch)
		vmm.discarded[page] = 1;
	for (unsigned i = 0; i < WORDS / 2; i++)
		if (((uint64_t *)(void *)at)[i] != 0)
			mismatch(page, i, ((uint64_t *)(void *)at)[i], 0);
	if (!punch)
		compare(at, page, false);
}

static void
failures(void)
{
	struct view *v = &vmm.views[0];
	size_t len = v->npages * PATTERN_PAGE;
	off_t end = (off_t)len;

	expect(fallocate(vmm.fd, FALLOC_FL_ZERO_RANGE, 0, end) == -1, "ZERO_RANGE works?");
	expect(fallocate(vmm.fd, FALLOC_FL_PUNCH_HOLE, 0, end) == -1, "PUNCH_HOLE works?");
	expect(fallocate(vmm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, -1, end) == -1 &&
		   fallocate(vmm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 0) == -1,
	    "PUNCH_HOLE of nothing works?");
	expect(madvise(v->at + 512, len / 2, MADV_REMOVE) == -1, "unaligned madvise works?");
	expect(munmap(v->at + 512, len / 2) == -1, "unaligned munmap works?");
	expect(munmap(v->at, 0) == -1, "munmap of nothing works?");
	expect(mmap(v->at + 512, len / 2, PROT_READ, MAP_SHARED | MAP_FIXED, vmm.fd, 0) ==
		   MAP_FAILED,
	    "unaligned mmap works?");
}

/* ---- the kernel ---- */

static void
by_syscall(uint8_t *at, uint64_t page, int pipe_in, int pipe_out)
{
	uint64_t want[WORDS], got[WORDS];
	struct iovec local = { got, PATTERN_PAGE }, remote = { at, PATTERN_PAGE };

	expected(page, want);
	switch (page % 3) {
	case 0:
		expect(write(pipe_in, at, PATTERN_PAGE) == PATTERN_PAGE, "write");
		expect(read(pipe_out, got, PATTERN_PAGE) == PATTERN_PAGE, "read");
		break;
	case 1:
		expect(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == PATTERN_PAGE,
		    "process_vm_readv");
		break;
	default:
		/* The kernel writes a part of a page: the rest must be there. */
		expect(write(pipe_in, (uint8_t *)want + 1000, 500) == 500, "write");
		expect(read(pipe_out, at + 1000, 500) == 500, "read");
		memcpy(got, at, PATTERN_PAGE);
	}
	for (unsigned i = 0; i < WORDS; i++)
		if (got[i] != want[i])
			mismatch(page, i, got[i], want[i]);
}

static void
syscalls(void)
{
	size_t n = total_pages();
	uint32_t *order = shuffled(n, 99);
	int ends[2];

	expect(pipe(ends) == 0, "pipe");
	for (size_t i = 0; i < n; i++) {
		uint64_t page;
		uint8_t *at = locate(order[i], &page);

		by_syscall(at, page, ends[1], ends[0]);
	}
	free(order);
}

static void
split(void)
{
	for (size_t i = 0; i < vmm.nviews; i++)
		for (size_t at = 5; at + 3 < vmm.views[i].npages; at += 41)
			expect(madvise(vmm.views[i].at + at * PATTERN_PAGE, 3 * PATTERN_PAGE,
				   MADV_DONTDUMP) == 0,
			    "MADV_DONTDUMP");
}

/* ---- processes ---- */

/* Somebody else who has got the descriptor: a vhost-user device, say. */
static void
child_map(void)
{
	pid_t pid = fork();

	expect(pid != -1, "fork");
	if (pid != 0)
		return;
	map_raw();
	for (;;)
		pause();
}

/* The same, and it looks at every page, and goes. */
static void
child_touch(void)
{
	pid_t pid = fork();
	int status;

	expect(pid != -1, "fork");
	if (pid != 0) {
		expect(waitpid(pid, &status, 0) == pid, "waitpid");
		return;
	}
	vmm.nviews = 0;
	map_raw();
	for (uint64_t i = 0; i < vmm.npages; i++)
		(void)*(volatile uint8_t *)(vmm.views[0].at + i * PATTERN_PAGE);
	_exit(0);
}

static void
do_join(void)
{
	vmm.nviews = 0;
	own_join();
}

/* A child has no part in the memory: it must die rather than see zeros. */
static void
fork_read(void)
{
	pid_t pid = fork();
	int status;

	expect(pid != -1, "fork");
	if (pid == 0) {
		const struct rlimit no_core = { 0, 0 };

		setrlimit(RLIMIT_CORE, &no_core);
		for (size_t i = 0; i < vmm.nviews; i++)
			(void)*(volatile uint8_t *)vmm.views[i].at;
		_exit(0);
	}
	expect(waitpid(pid, &status, 0) == pid, "waitpid");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
		quit(66, "MISMATCH the child sees the memory, status %#x", (unsigned)status);
}

static void
go_on_in_child(void)
{
	pid_t pid = fork();
	int status;

	expect(pid != -1, "fork");
	if (pid == 0)
		return;
	expect(waitpid(pid, &status, 0) == pid, "waitpid");
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void
daemonize(void)
{
	for (int i = 0; i < 2; i++) {
		pid_t pid = fork();

		expect(pid != -1, "fork");
		if (pid != 0)
			_exit(0);
		setsid();
	}
}

static void
write_pid(const char *path)
{
	char text[32], name[4096];
	int fd, n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	snprintf(name, sizeof(name), "%s.new", path);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	expect(fd != -1 && write(fd, text, (size_t)n) == n, path);
	close(fd);
	expect(rename(name, path) == 0, path);
}

static void
sleep_ms(long ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static void
die_by(int sig)
{
	const struct rlimit no_core = { 0, 0 };

	setrlimit(RLIMIT_CORE, &no_core);
	raise(sig);
	quit(65, "signal %d does not kill", sig);
}

/* ---- words ---- */

static void
set_pattern(const char *arg)
{
	if (sscanf(arg, "%lu,%u", &vmm.pattern.seed, &vmm.pattern.density) != 2)
		quit(64, "pattern=%s", arg);
}

static void
start_race(const char *arg)
{
	struct toucher t = { .punch = strncmp(arg, "punch", 5) == 0 };
	unsigned n;

	if (sscanf(strchr(arg, ',') != NULL ? strchr(arg, ',') : "", ",%u,%u", &t.every, &n) !=
		2 ||
	    t.every == 0)
		quit(64, "race=%s", arg);
	run_threads(n, t);
}

static void
start_discard(const char *arg)
{
	const char *comma = strchr(arg, ',');

	if (comma == NULL || atoi(comma + 1) < 1)
		quit(64, "discard=%s", arg);
	discard_some(strncmp(arg, "punch", 5) == 0, (unsigned)atoi(comma + 1));
}

static void
do_twice(void)
{
	map_part(0, vmm.npages);
	map_part(0, vmm.npages);
}

static void
do_pieces(void)
{
	size_t first = vmm.npages / 2;

	map_part(first, vmm.npages - first);
	map_part(0, first);
}

static void
do_map(void)
{
	map_part(0, vmm.npages);
}

static void
do_private(void)
{
	vmm.flags = MAP_PRIVATE;
}

static void
do_populate(void)
{
	vmm.flags |= MAP_POPULATE;
}

static void
do_dontneed(void)
{
	for (size_t i = 0; i < vmm.nviews; i++)
		expect(madvise(vmm.views[i].at, vmm.views[i].npages * PATTERN_PAGE,
			   MADV_DONTNEED) == 0,
		    "MADV_DONTNEED");
}

static void
do_middle(void)
{
	struct view m = take_middle();

	unmap(m.at, m.npages);
}

static void
do_mlockall(void)
{
	expect(mlockall(MCL_FUTURE) == 0, "mlockall");
}

/* Whoever serves it has one of its own. */
static void
close_userfaultfd(void)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char path[64], shown[sizeof(name)];

	for (int fd = 3; fd < 1024; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, shown, sizeof(shown)) == sizeof(name) - 1 &&
		    memcmp(shown, name, sizeof(name) - 1) == 0)
			expect(close(fd) == 0, "close");
	}
}

static void
do_forever(void)
{
	for (;;)
		pause();
}

static const struct {
	const char *name;
	void (*run)(void);
} plain[] = {
	{ "map", do_map },
	{ "twice", do_twice },
	{ "pieces", do_pieces },
	{ "private", do_private },
	{ "raw-map", map_raw },
	{ "populate", do_populate },
	{ "verify", verify },
	{ "dontneed", do_dontneed },
	{ "failures", failures },
	{ "split", split },
	{ "syscalls", syscalls },
	{ "unmap", unmap_all },
	{ "middle", do_middle },
	{ "cover", cover_middle },
	{ "mremap", refused_mremap },
	{ "mlockall", do_mlockall },
	{ "bus", do_bus },
	{ "fork-read", fork_read },
	{ "close-userfaultfd", close_userfaultfd },
	{ "fork", go_on_in_child },
	{ "join", do_join },
	{ "child-map", child_map },
	{ "child-touch", child_touch },
	{ "daemon", daemonize },
	{ "forever", do_forever },
};

static void
do_open(const char *arg)
{
	open_memory(arg);
}

static void
do_own(const char *arg)
{
	use_memory(own_open(arg));
}

static void
do_punch_silently(const char *arg)
{
	expect(fallocate(vmm.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		   (off_t)atoi(arg) * PATTERN_PAGE) == 0,
	    "PUNCH_HOLE");
}

static void
do_touch(const char *arg)
{
	run_threads((unsigned)atoi(arg), (struct toucher){ 0 });
}

static void
do_write(const char *arg)
{
	run_threads((unsigned)atoi(arg), (struct toucher){ .write = true });
}

/* Reading compares, writing counts up as the first thread of write= does. */
static void
do_pages(const char *arg)
{
	vmm.writers = vmm.writers == 0 ? 1 : vmm.writers;
	while (*arg != '\0') {
		bool write = *arg == 'w';
		char *end;
		size_t i = strtoul(arg + 1, &end, 10);
		uint64_t page, want[WORDS];
		uint8_t *at;

		if (strchr("rw", *arg) == NULL || end == arg + 1 || i >= total_pages())
			quit(64, "pages=%s", arg);
		at = locate(i, &page);
		/* A store alone: what adds in place reads first, on an emulated processor. */
		if (write) {
			vmm.counts[page]++;
			expected(page, want);
			*(volatile uint64_t *)(void *)at = want[0];
		} else {
			compare_or_bus(at, page);
		}
		arg = *end == ',' ? end + 1 : end;
	}
}

/* Lists those that are, if these are not. */
static void
do_poisoned(const char *arg)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	const char *comma = "";

	expect(f != NULL, "memory");
	for (uint64_t page = 0; page < vmm.npages; page++) {
		if (!vmm.poisoned[page])
			continue;
		fprintf(f, "%s%lu", comma, page);
		comma = ",";
	}
	if (*comma == '\0')
		fputs("none", f);
	fclose(f);
	if (strcmp(text, arg) != 0)
		quit(66, "MISMATCH poisoned are %.200s", text);
	free(text);
}

static void
do_poisoned_in(const char *list)
{
	uint64_t n = 0;

	for (uint64_t page = 0; page < vmm.npages; page++) {
		const char *at = list;

		n += vmm.poisoned[page];
		while (vmm.poisoned[page] && strtoul(at, NULL, 10) != page) {
			at = strchr(at, ',');
			if (at++ == NULL)
				quit(66, "MISMATCH page %lu is poisoned", page);
		}
	}
	if (n == 0)
		quit(66, "MISMATCH none is poisoned");
}

static void
do_part(const char *arg)
{
	discard_part(strcmp(arg, "punch") == 0);
}

static void
do_say(const char *arg)
{
	dprintf(STDOUT_FILENO, "%s\n", arg);
}

static void
do_wait(const char *arg)
{
	while (access(arg, F_OK) == -1)
		sleep_ms(5);
}

static void
do_sleep(const char *arg)
{
	sleep_ms(atol(arg));
}

static void
do_exit(const char *arg)
{
	_exit(atoi(arg));
}

static void
do_die(const char *arg)
{
	die_by(atoi(arg));
}

static const struct {
	const char *name;
	void (*run)(const char *arg);
} with_arg[] = {
	{ "open=", do_open },
	{ "own=", do_own },
	{ "punch-silently=", do_punch_silently },
	{ "pattern=", set_pattern },
	{ "pages=", do_pages },
	{ "touch=", do_touch },
	{ "write=", do_write },
	{ "race=", start_race },
	{ "discard=", start_discard },
	{ "part=", do_part },
	{ "poisoned=", do_poisoned },
	{ "poisoned-in=", do_poisoned_in },
	{ "pid=", write_pid },
	{ "say=", do_say },
	{ "wait=", do_wait },
	{ "sleep=", do_sleep },
	{ "exit=", do_exit },
	{ "die=", do_die },
};

static void
obey(const char *word)
{
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		if (strcmp(word, plain[i].name) == 0) {
			plain[i].run();
			return;
		}
	for (size_t i = 0; i < sizeof(with_arg) / sizeof(with_arg[0]); i++) {
		size_t len = strlen(with_arg[i].name);

		if (strncmp(word, with_arg[i].name, len) == 0) {
			with_arg[i].run(word + len);
			return;
		}
	}
	quit(64, "%s?", word);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "exec") == 0) {
			argv[i] = argv[0];
			execv("/proc/self/exe", argv + i);
			quit(65, "exec: %s", strerror(errno));
		}
		obey(argv[i]);
	}
	return 0;
}
