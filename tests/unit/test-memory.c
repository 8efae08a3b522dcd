/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "memory/create.h"
#include "memory/host.h"
#include "memory/process.h"
#include "memory/source.h"
#include "tap.h"
#include "test-memory-lib.h"

#define MIB ((uint64_t)1 << 20)
#define KIB ((uint64_t)1 << 10)

static char file_path[64], small_path[64], private_path[64], readonly_path[64];

/* Maps a new file of the folder /tmp; the descriptor is closed unless keep. */
static void
map_file(char path[64], uint64_t size, int prot, int flags, bool keep)
{
	int fd;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd == -1 || ftruncate(fd, (off_t)size) == -1 ||
	    mmap(NULL, size, prot, flags, fd, 0) == MAP_FAILED)
		err(1, "%s", path);
	if (!keep)
		close(fd);
}

static void
new_file(char path[64], const char *what)
{
	int fd;

	snprintf(path, 64, "/tmp/gmem test %s XXXXXX", what);
	fd = mkstemp(path);
	if (fd == -1)
		err(1, "%s", path);
	close(fd);
}

/* Everything that memory_list has to tell apart. */
static void
be_vmm(void *arg)
{
	int rw = PROT_READ | PROT_WRITE, fd;
	unsigned char *p;
	uint64_t huge;

	fd = new_memfd("sparse ram", 16 * MIB);
	p = map_all(fd, 16 * MIB);
	fill_page(p, 0);
	fill_page(p, 5 * MIB);
	if (mmap(NULL, MIB, PROT_READ, MAP_PRIVATE, fd, 2 * MIB) == MAP_FAILED)
		err(1, "mmap");
	lseek(fd, 123, SEEK_SET);
	*(int *)arg = fd;
	dup2(fd, 200);

	new_memfd("odd", 5000);
	new_memfd("empty", 0);

	fd = new_memfd("closed", MIB);
	fill_page(map_all(fd, MIB), 4096);
	close(fd);

	map_file(file_path, 128 * KIB, rw, MAP_SHARED, true);
	map_file(small_path, 4 * KIB, rw, MAP_SHARED, true);
	map_file(private_path, 128 * KIB, rw, MAP_PRIVATE, true);
	map_file(readonly_path, 128 * KIB, PROT_READ, MAP_SHARED, true);
	mmap(NULL, 3 * MIB, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	fd = new_guest_memfd(2 * MIB, 3);
	if (fd != -1)
		fill_page(map_all(fd, 2 * MIB), 8192);
	fd = new_hugetlb(1, &huge);
	if (fd != -1)
		fill_page(map_all(fd, huge), 0);
}

static const struct memory_object *
find(const struct memory_object *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].name, name) == 0)
			return &list[i];
	return NULL;
}

static void
test_list(const struct memory_object *list, size_t n, int lowest, bool huge)
{
	const struct memory_object *o;

	o = find(list, n, "sparse ram");
	if (ok(o != NULL, "a mapped memfd is listed")) {
		ok(o->kind == MEMORY_MEMFD && o->size == 16 * MIB && o->page_size == 4096,
		    "with kind and sizes");
		ok(o->fd_number == lowest && o->nmappings == 2,
		    "its lowest descriptor, mappings");
		ok(o->nmappings == 2 && o->mappings[0].hva < o->mappings[1].hva,
		    "mappings go by address");
	}
	for (size_t i = 0; o != NULL && i < o->nmappings; i++) {
		const struct memory_mapping *m = &o->mappings[i];

		if (m->shared)
			ok(m->writable && m->len == 16 * MIB && m->offset == 0, "shared one");
		else
			ok(m->writable == false && m->len == MIB && m->offset == 2 * MIB,
			    "private one");
	}
	o = find(list, n, "odd");
	ok(o != NULL && o->size == 5000 && o->nmappings == 0 && o->fd_number != -1,
	    "a memfd without mapping is listed");
	o = find(list, n, "closed");
	ok(o != NULL && o->fd_number == -1 && o->nmappings == 1 && o->kind == MEMORY_MEMFD,
	    "a memfd without descriptor is listed");
	o = find(list, n, file_path);
	ok(o != NULL && o->kind == MEMORY_FILE && o->size == 128 * KIB && o->fd_number != -1,
	    "a shared file is listed");
	ok(find(list, n, "empty") == NULL, "an empty memfd is not");
	ok(find(list, n, small_path) == NULL, "a small shared file is not");
	ok(find(list, n, private_path) == NULL, "a private file is not");
	ok(find(list, n, readonly_path) == NULL, "a file that is only read is not");
	o = find(list, n, "/dev/zero (deleted)");
	ok(o != NULL && o->size == 3 * MIB && o->kind == MEMORY_FILE,
	    "shared anonymous memory is listed");
	o = find(list, n, "huge");
	if (huge)
		ok(o != NULL && o->kind == MEMORY_HUGETLB && o->page_size >= 64 * KIB,
		    "a hugetlb memfd is listed");
	else
		skip(1, "no free huge page");
	for (size_t i = 1; i < n; i++)
		if (list[i].nmappings > 0 &&
		    list[i - 1].mappings[0].hva >= list[i].mappings[0].hva)
			ok(false, "objects go by address");
}

/* Opens one object and looks for what be_vmm put at off. */
static void
test_open(pid_t pid, const struct memory_object *o, uint64_t off)
{
	unsigned char page[4096], want[8192 * 4] = { 0 };
	struct memory_source *src;
	struct err e = ERR_INIT;
	struct stat st;
	int fd;

	if (!ok(memory_open(pid, o, &fd, &e) == 0, "%s opens: %s", o->name, e.msg))
		return;
	ok(fstat(fd, &st) == 0 && st.st_ino == o->ino && st.st_dev == o->dev, "the same file");
	ok(fcntl(fd, F_GETFD) == FD_CLOEXEC, "close-on-exec");
	if (o->kind != MEMORY_GUEST_MEMFD)
		ok((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY, "read-only");
	if (!ok(memory_source_open(&src, fd, o->kind, o->size, &e) == 0, "a source: %s", e.msg))
		return;
	for (size_t i = 0; i < 4096; i++)
		want[i] = (unsigned char)((off >> 12) * 7 + i * 13 + 1);
	ok(memory_source_read(src, page, 4096, off, &e) == 0 && memcmp(page, want, 4096) == 0,
	    "the right bytes %s", e.msg);
	memory_source_free(src);
}

/* Looking for data must not move the VMM's own file offset. */
static void
test_offset(pid_t pid, const struct memory_object *o)
{
	uint64_t start = 0, end = 0;
	struct memory_source *src;
	struct err e = ERR_INIT;
	char path[64], text[64] = "";
	int fd;

	if (memory_open(pid, o, &fd, &e) == -1 ||
	    memory_source_open(&src, fd, o->kind, 0, &e) == -1) {
		ok(false, "%s", e.msg);
		return;
	}
	ok(memory_source_next(src, 4096, &start, &end, &e) == 1 && start == 5 * MIB,
	    "data is found");
	memory_source_free(src);
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, o->fd_number);
	fd = open(path, O_RDONLY);
	ok(read(fd, text, sizeof(text) - 1) > 0 && strncmp(text, "pos:\t123\n", 9) == 0,
	    "the process's file offset stays");
	close(fd);
}

static void
test_stale(pid_t pid, const struct memory_object *o)
{
	struct memory_object other = *o;
	struct err e = ERR_INIT;
	int fd;

	other.ino++;
	ok(memory_open(pid, &other, &fd, &e) == -1 && strstr(e.msg, "meanwhile") != NULL,
	    "another file under the number is noticed: %s", e.msg);
	other = *o;
	other.fd_number = 999;
	ok(memory_open(pid, &other, &fd, &e) == -1, "a closed number too: %s", e.msg);
}

static void
test_vmm(void)
{
	uint64_t huge_size;
	int huge = new_hugetlb(1, &huge_size), gmem = new_guest_memfd(4096, 3);
	struct memory_object *list;
	const struct memory_object *o;
	struct err e = ERR_INIT;
	struct child c;
	int *lowest;
	size_t n;

	close(huge);
	close(gmem);
	new_file(file_path, "file");
	new_file(small_path, "small");
	new_file(private_path, "private");
	new_file(readonly_path, "readonly");
	lowest = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (lowest == MAP_FAILED)
		err(1, "mmap");
	child_start(&c, be_vmm, lowest);
	if (ok(memory_list(c.pid, &list, &n, &e) == 0, "list: %s", e.msg)) {
		test_list(list, n, *lowest, huge != -1);
		o = find(list, n, "sparse ram");
		test_open(c.pid, o, 5 * MIB);
		test_offset(c.pid, o);
		test_stale(c.pid, o);
		if (geteuid() == 0)
			test_open(c.pid, find(list, n, "closed"), 4096);
		else
			skip(5, "map_files needs root");
		if (huge != -1)
			test_open(c.pid, find(list, n, "huge"), 0);
		else
			skip(6, "no free huge page");
		o = find(list, n, "kvm-gmem");
		if (gmem != -1 && ok(o != NULL, "the guest_memfd is listed")) {
			ok(o->kind == MEMORY_GUEST_MEMFD && o->size == 2 * MIB &&
				o->nmappings == 1,
			    "with its facts");
			test_open(c.pid, o, 8192);
		} else if (gmem == -1) {
			skip(7, "no guest_memfd on this machine");
		}
		memory_list_free(list, n);
	}
	child_end(&c);
	unlink(file_path);
	unlink(small_path);
	unlink(private_path);
	unlink(readonly_path);
	munmap(lowest, 4096);
}

static void
test_nobody_there(void)
{
	struct memory_object *list;
	struct err e = ERR_INIT;
	size_t n;

	ok(memory_list(4194304 + 1, &list, &n, &e) == -1 && e.kind == ERR_FAILED &&
		strstr(e.msg, "no process") != NULL,
	    "no such process: %s", e.msg);
}

/* As another user: 0 if the process of root is refused with advice. */
static int
list_foreign(void *arg)
{
	struct memory_object *list;
	struct err e = ERR_INIT;
	size_t n;

	if (memory_list(*(pid_t *)arg, &list, &n, &e) == 0)
		return 1;
	printf("# %s\n", e.msg);
	fflush(stdout);
	return strstr(e.msg, "CAP_SYS_PTRACE") == NULL || e.sysno != EACCES;
}

static void
be_small(void *arg)
{
	int fd;

	(void)arg;
	fd = new_memfd("mine", MIB);
	fill_page(map_all(fd, MIB), 4096);
	fd = new_memfd("closed", MIB);
	fill_page(map_all(fd, MIB), 4096);
	close(fd);
	fd = new_guest_memfd(MIB, 3);
	if (fd != -1)
		fill_page(map_all(fd, MIB), 4096);
}

static int
use_own(void *arg)
{
	const struct memory_object *o;
	struct memory_object *list;
	struct err e = ERR_INIT;
	struct child c;
	int fd, bad = 1;
	size_t n;

	(void)arg;
	child_start(&c, be_small, NULL);
	if (memory_list(c.pid, &list, &n, &e) == 0) {
		o = find(list, n, "mine");
		if (o != NULL && memory_open(c.pid, o, &fd, &e) == 0)
			bad = 0;
		o = find(list, n, "closed");
		if (o == NULL || o->kind != MEMORY_MEMFD || o->size != MIB)
			bad = 2;
		else if (memory_open(c.pid, o, &fd, &e) == 0)
			bad = 3;
		else if (strstr(e.msg, "CAP_CHECKPOINT_RESTORE") == NULL)
			bad = 4;
	}
	printf("# %d: %s\n", bad, e.msg);
	fflush(stdout);
	child_end(&c);
	return bad;
}

static void
test_permissions(void)
{
	struct child c;

	if (geteuid() != 0) {
		skip(2, "only root can become somebody else");
		return;
	}
	child_start(&c, be_small, NULL);
	ok(as_nobody(list_foreign, &c.pid) == 0, "another user's process is refused");
	child_end(&c);
	ok(as_nobody(use_own, NULL) == 0, "without privilege, one's own processes work");
}

static void
do_nothing(void *arg)
{
	(void)arg;
}

static bool
has_pid(const pid_t *pids, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* As another user: 0 if root's process is counted as unreadable. */
static int
count_unreadable(void *arg)
{
	struct stat *st = arg;
	struct err e = ERR_INIT;
	size_t n, unreadable;
	pid_t *pids;

	if (memory_users(st->st_dev, st->st_ino, &pids, &n, &unreadable, &e) == -1)
		return 1;
	return n != 0 || unreadable == 0;
}

static void
test_users(void)
{
	int fd = new_memfd("shared", MIB);
	void *map = map_all(fd, MIB);
	struct err e = ERR_INIT;
	size_t n, unreadable;
	struct child c;
	struct stat st;
	pid_t *pids;

	fstat(fd, &st);
	child_start(&c, do_nothing, NULL);
	if (ok(memory_users(st.st_dev, st.st_ino, &pids, &n, &unreadable, &e) == 0, "users")) {
		ok(n == 2 && has_pid(pids, n, c.pid) && has_pid(pids, n, getpid()),
		    "both processes are found");
		free(pids);
	}
	munmap(map, MIB);
	if (geteuid() == 0)
		ok(as_nobody(count_unreadable, &st) == 0, "what cannot be seen is counted");
	else
		skip(1, "only root can become somebody else");
	if (ok(memory_users(st.st_dev, st.st_ino, &pids, &n, &unreadable, &e) == 0, "users")) {
		ok(n == 1 && has_pid(pids, n, c.pid), "an open descriptor is not a use");
		free(pids);
	}
	child_end(&c);
	close(fd);
}

static void
test_create_memfd(void)
{
	struct err e = ERR_INIT;
	struct stat st;
	int fd;

	if (!ok(memory_create("vm", MEMORY_MEMFD, 3 * MIB, 0, &fd, &e) == 0, "create: %s",
		e.msg))
		return;
	ok(fstat(fd, &st) == 0 && st.st_size == 3 * MIB && st.st_blocks == 0,
	    "empty, that size");
	ok(fcntl(fd, F_GETFD) == FD_CLOEXEC, "close-on-exec");
	ok(ftruncate(fd, 4096) == -1 && ftruncate(fd, 4 * MIB) == -1, "its size stays");
	ok(pwrite(fd, "x", 1, 0) == 1, "it is writable");
	ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0,
	    "holes can be punched");
	ok(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0, "more seals are possible");
	close(fd);
	ok(memory_create("vm", MEMORY_GUEST_MEMFD, MIB, 0, &fd, &e) == -1, "refused: %s",
	    e.msg);
}

/* Other tests have huge pages, too, that come and go. */
static void
nap(void)
{
	nanosleep(&(const struct timespec){ .tv_nsec = 20000000 }, NULL);
}

/* More than there are is refused, with what to do. */
static bool
too_few(struct err *e)
{
	struct hugepage_pool p[HUGEPAGE_POOLS];
	char number[64], advice[64];
	uint64_t want;
	int fd;

	hugepage_pools(p);
	want = hugepage_available(&p[0]) + p[0].overcommit + 1000;
	snprintf(number, sizeof(number), "%llu huge", (unsigned long long)want);
	snprintf(advice, sizeof(advice), "echo %llu >",
	    (unsigned long long)(p[0].total + want - hugepage_available(&p[0])));
	return memory_create(
		   "vm", MEMORY_HUGETLB, want * p[0].page_size, p[0].page_size, &fd, e) == -1 &&
	       strstr(e->msg, number) != NULL && strstr(e->msg, advice) != NULL;
}

/* Two pages are reserved from creation to close. */
static bool
reserves(struct err *e)
{
	struct hugepage_pool before[HUGEPAGE_POOLS], during[HUGEPAGE_POOLS],
	    after[HUGEPAGE_POOLS];
	int fd;

	hugepage_pools(before);
	if (memory_create("vm", MEMORY_HUGETLB, 2 * before[0].page_size, before[0].page_size,
		&fd, e) == -1)
		return false;
	hugepage_pools(during);
	close(fd);
	hugepage_pools(after);
	err_set(e, ERR_FAILED, "%llu, %llu, %llu", (unsigned long long)before[0].reserved,
	    (unsigned long long)during[0].reserved, (unsigned long long)after[0].reserved);
	return during[0].reserved == before[0].reserved + 2 &&
	       after[0].reserved == before[0].reserved;
}

static void
test_create_hugetlb(void)
{
	struct hugepage_pool pools[HUGEPAGE_POOLS];
	struct err e = ERR_INIT;
	bool good;
	int fd;

	pools[0] = (struct hugepage_pool){ .free = 5, .reserved = 3 };
	ok(hugepage_available(&pools[0]) == 2, "reserved pages are not available");
	if (hugepage_pools(pools) == 0) {
		skip(4, "this kernel has no huge pages");
		return;
	}
	for (int i = 0; !(good = too_few(&e)) && i < 500; i++)
		nap();
	ok(good, "too few huge pages: %s", e.msg);
	ok(memory_create("vm", MEMORY_HUGETLB, 4096, pools[0].page_size, &fd, &e) == -1 &&
		strstr(e.msg, "multiple") != NULL,
	    "half a page: %s", e.msg);
	ok(memory_create("vm", MEMORY_HUGETLB, MIB, 8192, &fd, &e) == -1 &&
		strstr(e.msg, " kB") != NULL,
	    "no such size: %s", e.msg);
	if (hugepage_available(&pools[0]) < 2) {
		skip(1, "no free huge pages");
		return;
	}
	for (int i = 0; !(good = reserves(&e)) && i < 500; i++)
		nap();
	ok(good, "its pages are reserved, and given back: %s", e.msg);
}

static void
test_blob(void)
{
	struct err e = ERR_INIT;
	unsigned char *map;
	int fd;

	if (!ok(memory_blob("state", &fd, &e) == 0, "blob: %s", e.msg))
		return;
	ok(write(fd, "hello", 5) == 5, "it takes bytes");
	map = map_all(fd, 4096);
	ok(memory_seal_readonly(fd, &e) == -1 && strstr(e.msg, "mapped") != NULL,
	    "not while it is mapped: %s", e.msg);
	munmap(map, 4096);
	ok(memory_seal_readonly(fd, &e) == 0, "sealed");
	ok(pwrite(fd, "j", 1, 0) == -1 && errno == EPERM && ftruncate(fd, 9) == -1,
	    "nothing changes it any more");
	close(fd);
}

static void
test_kinds(void)
{
	ok(strcmp(memory_kind_name(MEMORY_MEMFD), "memfd") == 0 &&
		strcmp(memory_kind_name(MEMORY_HUGETLB), "hugetlb") == 0 &&
		strcmp(memory_kind_name(MEMORY_FILE), "file") == 0 &&
		strcmp(memory_kind_name(MEMORY_GUEST_MEMFD), "guest_memfd") == 0,
	    "names of kinds");
}

/* Names and file systems as kernels before and after 6.19 have them. */
static void
test_kind_of(void)
{
	static const struct {
		const char *shown;
		unsigned long f_type;
		enum memory_kind kind;
	} cases[] = {
		{ "anon_inode:[kvm-gmem]", 0x09041934, MEMORY_GUEST_MEMFD },
		{ "/[kvm-gmem] (deleted)", 0x474d454d, MEMORY_GUEST_MEMFD },
		{ "/anything", 0x474d454d, MEMORY_GUEST_MEMFD },
		{ "anon_inode:[eventfd]", 0x09041934, MEMORY_FILE },
		{ "/memfd:ram (deleted)", 0x01021994, MEMORY_MEMFD },
		{ "/memfd:[kvm-gmem] (deleted)", 0x01021994, MEMORY_MEMFD },
		{ "/dev/shm/[kvm-gmem]", 0x01021994, MEMORY_FILE },
		{ "/tmp/[kvm-gmem] (deleted)", 0xef53, MEMORY_FILE },
		{ "/[kvm-gmem] (deleted)", 0xef53, MEMORY_FILE },
		{ "/memfd:huge (deleted)", 0x958458f6, MEMORY_HUGETLB },
		{ "/anon_hugepage (deleted)", 0x958458f6, MEMORY_HUGETLB },
		{ "/memfd:x", 0xef53, MEMORY_FILE },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ok(memory_kind_of(cases[i].shown, cases[i].f_type) == cases[i].kind,
		    "%s on %#lx is %s", cases[i].shown, cases[i].f_type,
		    memory_kind_name(cases[i].kind));
	ok(memory_shows_guest_memfd("anon_inode:[kvm-gmem]"), "the name until 6.18");
	ok(memory_shows_guest_memfd("/[kvm-gmem] (deleted)"), "the name from 6.19 on");
	ok(!memory_shows_guest_memfd("/memfd:[kvm-gmem] (deleted)"), "not a memfd's");
	ok(!memory_shows_guest_memfd("/tmp/[kvm-gmem]"), "not a file's");
	ok(!memory_shows_guest_memfd("anon_inode:[kvm-vcpu:0]"), "not a vCPU's");
}

static void
test_examine(void)
{
	int fd = new_memfd("ram 1", MIB), path = open("/", O_PATH), reader;
	struct memory_object o;
	struct err e = ERR_INIT;
	struct stat st;
	int ends[2];

	if (ok(memory_examine(fd, &o, &e) == 0, "examine a memfd: %s", e.msg)) {
		fstat(fd, &st);
		ok(o.kind == MEMORY_MEMFD && o.size == MIB && o.page_size == 4096 &&
			o.ino == st.st_ino && o.dev == st.st_dev &&
			strcmp(o.name, "ram 1") == 0 && o.nmappings == 0,
		    "its facts");
		reader = dup(fd);
		lseek(fd, 7, SEEK_SET);
		ok(memory_reopen(&o, &reader, &e) == 0 &&
			(fcntl(reader, F_GETFL) & O_ACCMODE) == O_RDONLY &&
			lseek(reader, 9, SEEK_SET) == 9 && lseek(fd, 0, SEEK_CUR) == 7,
		    "opened again, it has an offset of its own: %s", e.msg);
		close(reader);
		free(o.name);
	}
	close(fd);
	if (pipe(ends) == -1)
		err(1, "pipe");
	ok(memory_examine(ends[0], &o, &e) == -1 && e.kind == ERR_UNSUPPORTED &&
		strstr(e.msg, "pipe:") != NULL,
	    "a pipe is no memory: %s", e.msg);
	ok(memory_examine(path, &o, &e) == -1, "nor is a folder: %s", e.msg);
	close(ends[0]);
	close(ends[1]);
	close(path);
	fd = new_guest_memfd(MIB, 3);
	if (fd == -1) {
		skip(2, "no guest_memfd on this machine");
		return;
	}
	if (ok(memory_examine(fd, &o, &e) == 0 && o.kind == MEMORY_GUEST_MEMFD &&
		    o.size == MIB && strcmp(o.name, "kvm-gmem") == 0,
		"examine a guest_memfd: %s", e.msg)) {
		reader = fd;
		ok(memory_reopen(&o, &reader, &e) == 0 && reader == fd,
		    "it is used as it is: %s", e.msg);
		free(o.name);
	}
	close(fd);
}

static void
test_host(void)
{
	struct memory_host host;
	struct utsname name;

	memory_host_probe(&host);
	uname(&name);
	ok(strcmp(host.kernel, name.release) == 0, "kernel %s", host.kernel);
	ok(host.ncpus > 0 && host.page_size >= 4096, "CPUs and page size");
	ok(host.ram_total > host.ram_available && host.ram_available > 0, "RAM");
	ok(host.memfd && host.memfd_errno == 0, "memfd");
	ok(host.kvm == (host.kvm_errno == 0), "kvm: errno %d", host.kvm_errno);
	ok(host.guest_memfd_write ==
		(host.guest_memfd_made && host.guest_memfd_write_errno == 0),
	    "guest_memfd: flags %#x, write errno %d", host.guest_memfd_flags,
	    host.guest_memfd_write_errno);
	printf("# shmem_enabled '%s', %zu sizes of huge pages\n", host.shmem_huge,
	    host.nhugepages);
	if (host.guest_memfd_flags & HOST_GUEST_MEMFD_MMAP)
		ok(host.guest_memfd_made && host.guest_memfd_mmap,
		    "a guest_memfd can be mapped");
	else
		skip(1, "no guest_memfd that can be mapped");
}

int
main(void)
{
	test_kinds();
	test_kind_of();
	test_examine();
	test_vmm();
	test_nobody_there();
	test_permissions();
	test_users();
	test_create_memfd();
	test_create_hugetlb();
	test_blob();
	test_host();
	return done();
}
