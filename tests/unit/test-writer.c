/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/fdio.h"
#include "format/header.h"
#include "format/trailer.h"
#include "image/image.h"
#include "image/pack.h"
#include "image/reader.h"
#include "image/verify.h"
#include "image/writer.h"
#include "small-image.h"
#include "tap.h"

/* Everything happens in a folder of its own, so that what is left behind is seen. */
static char folder[] = "test-writer.XXXXXX";

static uint8_t memory[64 * 4096 + 77];

struct bytes {
	uint8_t *at;
	size_t len;
};

static struct bytes
slurp(const char *path)
{
	struct err e = ERR_INIT;
	struct bytes b = { NULL, 0 };
	char *text = NULL;

	if (fd_slurp(path, SIZE_MAX, &text, &b.len, &e) == 0)
		b.at = (uint8_t *)text;
	return b;
}

/* Files in the folder; `name` gets the last one's. */
static unsigned
files_in(const char *path, char name[256])
{
	DIR *d = opendir(path);
	struct dirent *entry;
	unsigned n = 0;

	while (d != NULL && (entry = readdir(d)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (name != NULL)
			snprintf(name, 256, "%s", entry->d_name);
		n++;
	}
	if (d != NULL)
		closedir(d);
	return n;
}

static unsigned
files(void)
{
	return files_in(".", NULL);
}

/* Whether an image can be opened and is whole. */
static bool
verifies(const char *path, struct err *e)
{
	struct verify_result result;
	struct image *img = NULL;
	bool good =
	    image_open(&img, path, e) == 0 && image_verify(img, 2, NULL, NULL, &result, e) == 0;

	image_close(img);
	return good;
}

/* Runs f in a child: its exit status, or 1000 + the signal that ended it. */
static int
in_child(int (*f)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(f());
	if (pid == -1 || waitpid(pid, &status, 0) != pid)
		abort();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define CHILD_SKIP 99

/* ---- a writer in small steps ---- */

static struct image_writer *
start(const char *path, uint32_t chunk_size, struct err *e)
{
	struct image_params p = { .chunk_size = chunk_size, .level = 1 };
	struct image_writer *w;

	return image_writer_new(&w, path, &p, e) == 0 ? w : NULL;
}

static int
begin(struct image_writer *w, const char *name, uint64_t size, bool state, struct err *e)
{
	struct object o = {
		.name = name, .kind = "test", .size = size, .page_size = state ? 0 : 4096
	};

	return image_writer_begin(w, &o, state, e);
}

/* Packs len bytes as chunk number `chunk`. */
static int
put_chunk(struct image_writer *w, uint64_t chunk, const void *bytes, size_t len, struct err *e)
{
	const struct geometry *g = image_writer_geometry(w);
	uint8_t *record = malloc(packer_bound(g));
	struct packer *p = NULL;
	struct entry en;
	int rc = -1;

	if (packer_new(&p, g, 1, e) == 0 && packer_pack(p, bytes, len, &en, record, e) == 0)
		rc = image_writer_chunk(w, chunk, &en, record, e);
	packer_free(p);
	free(record);
	return rc;
}

/* ---- streams ---- */

struct drain {
	int fd;
	struct bytes got;
};

static void *
drain_all(void *arg)
{
	struct drain *d = arg;
	size_t cap = 0;
	ssize_t n;

	do {
		if (cap - d->got.len < 65536)
			d->got.at = realloc(d->got.at, cap = cap * 2 + 131072);
		n = read(d->fd, d->got.at + d->got.len, 65536);
		if (n > 0)
			d->got.len += (size_t)n;
	} while (n > 0);
	return NULL;
}

/* The image as it comes out of a pipe that is given as `path`, or as standard output. */
static struct bytes
streamed(bool standard, struct err *e)
{
	struct drain d = { .fd = -1 };
	char path[32] = "-";
	pthread_t thread;
	int fds[2], saved = -1, rc;

	fflush(stdout);
	if (pipe(fds) == -1)
		abort();
	d.fd = fds[0];
	if (standard) {
		saved = dup(STDOUT_FILENO);
		dup2(fds[1], STDOUT_FILENO);
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[1]);
	}
	if (pthread_create(&thread, NULL, drain_all, &d) != 0)
		abort();
	rc = small_image(path, memory, sizeof(memory), 16384, e);
	if (standard) {
		dup2(saved, STDOUT_FILENO);
		close(saved);
	}
	close(fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
	if (rc == -1)
		d.got.len = 0;
	return d.got;
}

static int
save(const char *path, const struct bytes *b, size_t len)
{
	struct err e = ERR_INIT;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	int rc = fd_write_full(fd, b->at, len, &e);

	close(fd);
	return rc;
}

static void
test_stream(bool standard)
{
	const char *how = standard ? "standard output" : "a pipe";
	struct err e = ERR_INIT;
	struct bytes file, pipe;
	unsigned noticed = 0;

	small_image("file", memory, sizeof(memory), 16384, &e);
	file = slurp("file");
	pipe = streamed(standard, &e);
	ok(pipe.len == file.len && memcmp(pipe.at, file.at, HEADER_STATE_OFFSET) == 0 &&
		memcmp(pipe.at + HEADER_STATE_OFFSET, "STRM", 4) == 0 &&
		memcmp(file.at + HEADER_STATE_OFFSET, "DONE", 4) == 0 &&
		memcmp(pipe.at + HEADER_STATE_OFFSET + 4, file.at + HEADER_STATE_OFFSET + 4,
		    file.len - HEADER_STATE_OFFSET - 4) == 0,
	    "%s gets the bytes of the file but for the state: %s", how, e.msg);
	ok(save("stream", &pipe, pipe.len) == 0 && verifies("stream", &e),
	    "what went through %s is an image: %s", how, e.msg);
	for (size_t i = 1; i <= 200; i++) {
		struct image *img = NULL;
		struct err cut = ERR_INIT;

		save("stream", &pipe, pipe.len * i / 201);
		noticed += image_open(&img, "stream", &cut) == -1 &&
			   (pipe.len * i / 201 < HEADER_SIZE || cut.kind == ERR_INCOMPLETE);
		image_close(img);
	}
	ok(noticed == 200, "cut short it is incomplete: %u of 200", noticed);
	free(file.at);
	free(pipe.at);
	unlink("file");
	unlink("stream");
}

/* ---- names ---- */

static void
test_names(void)
{
	struct err e = ERR_INIT;
	struct image_params replace = { .chunk_size = 4096, .level = 1, .replace = true };
	struct image_writer *w;
	struct bytes old = { (uint8_t *)(uintptr_t) "old", 3 }, now;
	uint8_t root[DIGEST_SIZE];
	struct stat st;

	save("x", &old, 3);
	ok(start("x", 4096, &e) == NULL && e.kind == ERR_FAILED && files() == 1,
	    "an existing file is refused: %s", e.msg);
	ok(image_writer_new(&w, "x", &replace, &e) == 0 &&
		begin(w, "ram", 4096, false, &e) == 0 && image_writer_end(w, 0, &e) == 0,
	    "unless it is to be replaced: %s", e.msg);
	now = slurp("x");
	ok(now.len == 3, "until the end it is what it was");
	free(now.at);
	ok(image_writer_commit(w, root, &e) == 0 && verifies("x", &e) && files() == 1,
	    "then it is the image: %s", e.msg);
	image_writer_free(w);
	ok(stat("x", &st) == 0 && (st.st_mode & 0777) == 0600, "with mode 0600");
	unlink("x");
	w = start("x", 4096, &e);
	save("x", &old, 3);
	ok(begin(w, "ram", 4096, false, &e) == 0 && image_writer_end(w, 0, &e) == 0 &&
		image_writer_commit(w, root, &e) == -1 && e.sysno == EEXIST,
	    "a file that came meanwhile is not replaced: %s", e.msg);
	image_writer_free(w);
	now = slurp("x");
	ok(now.len == 3 && files() == 1, "and nothing else is left");
	free(now.at);
	unlink("x");
	ok(start(".", 4096, &e) == NULL && files() == 0, "a folder: %s", e.msg);
	ok(start("no/such/x", 4096, &e) == NULL && e.sysno == ENOENT, "no folder: %s", e.msg);
	ok(start("x", 12345, &e) == NULL && files() == 0, "a chunk size: %s", e.msg);
	w = start("x", 4096, &e);
	begin(w, "ram", 4096, false, &e);
	put_chunk(w, 0, memory, 4096, &e);
	image_writer_free(w);
	ok(files() == 0, "not committed: nothing is left");
	image_writer_free(NULL);
}

/* ---- file systems without O_TMPFILE ---- */

static int
add_filter(const struct sock_filter *code, unsigned short n)
{
	struct sock_fprog prog = { n, (struct sock_filter *)(uintptr_t)code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0);
}

/* From here on O_TMPFILE is EOPNOTSUPP and, if old, renameat2 is EINVAL. */
static int
poor_file_system(bool old)
{
	static const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	static const struct sock_filter rename_code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	if (add_filter(code, sizeof(code) / sizeof(code[0])) == -1)
		return -1;
	return old ? add_filter(rename_code, sizeof(rename_code) / sizeof(rename_code[0])) : 0;
}

/* The number of the step that went wrong, or 0. */
static int
fallback_steps(bool old)
{
	struct err e = ERR_INIT;
	struct image_writer *w;
	struct image *img = NULL;
	struct bytes other = { (uint8_t *)(uintptr_t) "old", 3 };
	uint8_t root[DIGEST_SIZE];
	char name[256];

	if (poor_file_system(old) == -1)
		return CHILD_SKIP;
	w = start("x", 4096, &e);
	if (w == NULL || begin(w, "ram", 4096, false, &e) == -1 ||
	    put_chunk(w, 0, memory, 4096, &e) == -1 || files_in(".", name) != 1)
		return 1;
	if (name[0] != '.' || strstr(name, ".part") == NULL ||
	    image_open(&img, name, &e) != -1 || e.kind != ERR_INCOMPLETE)
		return 2;
	image_writer_free(w);
	if (files() != 0)
		return 3;
	w = start("x", 4096, &e);
	if (w == NULL || begin(w, "ram", 4096, false, &e) == -1 ||
	    image_writer_end(w, 0, &e) == -1 || image_writer_commit(w, root, &e) == -1)
		return 4;
	image_writer_free(w);
	if (!verifies("x", &e) || files() != 1)
		return 5;
	if (small_image("x", memory, 8192, 4096, &e) == -1 || !verifies("x", &e) ||
	    files() != 1)
		return 6;
	unlink("x");
	w = start("x", 4096, &e);
	save("x", &other, 3);
	if (begin(w, "ram", 4096, false, &e) == -1 || image_writer_end(w, 0, &e) == -1 ||
	    image_writer_commit(w, root, &e) != -1 || e.sysno != EEXIST)
		return 7;
	image_writer_free(w);
	unlink("x");
	return files() == 0 ? 0 : 8;
}

static int
fallback(void)
{
	return fallback_steps(false);
}

static int
fallback_old(void)
{
	return fallback_steps(true);
}

static void
test_fallback(int (*steps)(void), const char *name)
{
	int rc = in_child(steps);

	if (rc == CHILD_SKIP)
		skip(1, "no seccomp here: %s", name);
	else
		ok(rc == 0, "%s: step %d", name, rc);
}

/* ---- failures ---- */

static int
limited(void)
{
	struct rlimit limit = { 20000, 20000 };
	struct err e = ERR_INIT;

	signal(SIGXFSZ, SIG_IGN);
	if (setrlimit(RLIMIT_FSIZE, &limit) == -1)
		return CHILD_SKIP;
	return small_image("x", memory, sizeof(memory), 4096, &e) == -1 && e.sysno == EFBIG &&
		       files() == 0
		   ? 0
		   : 1;
}

/* A file system of 64 KiB, in a mount namespace (and user namespace) of its own. */
static int
full_disk(void)
{
	struct err e = ERR_INIT;

	if (unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) == -1 ||
	    mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == -1 ||
	    mkdir("full", 0700) == -1)
		return CHILD_SKIP;
	if (mount("tmpfs", "full", "tmpfs", 0, "size=64k") == -1)
		return CHILD_SKIP;
	return small_image("full/x", memory, sizeof(memory), 4096, &e) == -1 &&
		       e.sysno == ENOSPC && files_in("full", NULL) == 0
		   ? 0
		   : 1;
}

static int
killed(void)
{
	struct err e = ERR_INIT;
	struct image_writer *w = start("x", 4096, &e);

	begin(w, "ram", 1 << 20, false, &e);
	put_chunk(w, 0, memory, 4096, &e);
	kill(getpid(), SIGKILL);
	return 1;
}

static void
test_failures(void)
{
	struct err e = ERR_INIT;
	int rc;

	rc = in_child(limited);
	ok(rc == 0 && files() == 0, "a file that may not grow: an error and no file: %d", rc);
	ok(small_image("/dev/full", memory, sizeof(memory), 4096, &e) == -1 &&
		e.sysno == ENOSPC,
	    "/dev/full: %s", e.msg);
	rc = in_child(full_disk);
	if (rc == CHILD_SKIP)
		skip(1, "no mount namespace here: a full file system");
	else
		ok(rc == 0, "a full file system: an error and no file: %d", rc);
	rmdir("full");
	rc = in_child(killed);
	ok(rc == 1000 + SIGKILL && files() == 0, "killed: no file");
}

/* What the writer is told wrong. */
static void
test_misuse(void)
{
	struct err e = ERR_INIT;
	struct image_writer *w = start("x", 4096, &e);
	struct object o = { .name = "a", .kind = "k", .size = 8192, .page_size = 4096 };
	struct segment beyond = { 0, 8192, 4096 };
	char name[8];
	int rc = 0;

	ok(begin(w, "a b", 4096, false, &e) == -1 && e.kind == ERR_FAILED, "a name: %s", e.msg);
	ok(begin(w, "ram", OBJECT_SIZE_MAX + 1, false, &e) == -1, "a size: %s", e.msg);
	o.segments = &beyond;
	o.nsegments = 1;
	ok(image_writer_begin(w, &o, false, &e) == -1 && e.kind == ERR_FAILED, "a segment: %s",
	    e.msg);
	if (begin(w, "ram", 8192, false, &e) == -1)
		abort();
	ok(put_chunk(w, 2, memory, 4096, &e) == -1, "a chunk behind the end: %s", e.msg);
	ok(put_chunk(w, 1, memory, 4096, &e) == 0 && put_chunk(w, 0, memory, 4096, &e) == -1,
	    "a chunk behind its successor: %s", e.msg);
	ok(image_writer_end(w, 4096, &e) == -1, "an end before the last chunk: %s", e.msg);
	image_writer_free(w);
	w = start("x", 4096, &e);
	if (begin(w, "dev", 0, true, &e) == -1)
		abort();
	ok(image_writer_end(w, 0, &e) == -1, "an empty state: %s", e.msg);
	ok(begin(w, "dev", 1, true, &e) == -1, "a state twice: %s", e.msg);
	image_writer_free(w);
	w = start("x", 4096, &e);
	for (unsigned i = 0; rc == 0 && i < OBJECTS_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		rc = begin(w, name, 1, true, &e);
		if (rc == 0)
			rc = image_writer_end(w, 0, &e);
	}
	ok(rc == 0 && begin(w, "more", 1, true, &e) == -1, "a state too many: %s", e.msg);
	image_writer_free(w);
	ok(files() == 0, "nothing is left of all that");
}

/* ---- shapes ---- */

/*
 * A state of `size` bytes in chunks of 4096 with a page in its first and last
 * chunk, whose size is told at the start or at the end.
 */
static struct bytes
sized_state(uint64_t size, bool told, struct err *e)
{
	struct image_writer *w = start("x", 4096, e);
	uint64_t last = (size - 1) / 4096;
	uint8_t root[DIGEST_SIZE];
	struct bytes b = { NULL, 0 };

	if (w != NULL && begin(w, "dev", told ? size : 0, true, e) == 0 &&
	    put_chunk(w, 0, memory, (size_t)MIN(size, 4096), e) == 0 &&
	    (last == 0 ||
		put_chunk(w, last, memory + 4096, (size_t)(size - last * 4096), e) == 0) &&
	    image_writer_end(w, told ? 0 : size, e) == 0 &&
	    image_writer_commit(w, root, e) == 0 && verifies("x", e))
		b = slurp("x");
	image_writer_free(w);
	unlink("x");
	return b;
}

static void
test_unknown_size(void)
{
	static const uint64_t sizes[] = { 1, 4096, 4097, 128 * 4096, 128 * 4096 + 1,
		64 * 128 * 4096, 64 * 128 * 4096 + 1, UINT64_C(1) << 40 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct err e = ERR_INIT;
		struct bytes a = sized_state(sizes[i], true, &e);
		struct bytes b = sized_state(sizes[i], false, &e);

		ok(a.len != 0 && a.len == b.len && memcmp(a.at, b.at, a.len) == 0,
		    "a state of %llu bytes: the same when its size is told last: %s",
		    (unsigned long long)sizes[i], e.msg);
		free(a.at);
		free(b.at);
	}
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 64 TiB with a page at each end. */
static void
test_huge(uint32_t chunk_size)
{
	struct err e = ERR_INIT;
	struct image_writer *w = start("x", chunk_size, &e);
	uint64_t last = OBJECT_SIZE_MAX / chunk_size - 1;
	uint8_t *chunk = calloc(1, chunk_size), root[DIGEST_SIZE], got[8192];
	struct image_reader *r = NULL;
	const struct object *o;
	struct image *img = NULL;
	double start_time;
	bool good;

	memset(memory, 'a', 4096);
	memcpy(chunk + chunk_size - 4096, memory, 4096);
	good = begin(w, "ram", OBJECT_SIZE_MAX, false, &e) == 0 &&
	       put_chunk(w, 0, memory, 4096, &e) == 0 &&
	       put_chunk(w, last, chunk, chunk_size, &e) == 0 &&
	       image_writer_end(w, 0, &e) == 0;
	ok(good && image_writer_commit(w, root, &e) == 0,
	    "64 TiB with a page at each end, chunks of %u: %s", chunk_size, e.msg);
	image_writer_free(w);
	start_time = seconds();
	good = image_open(&img, "x", &e) == 0 && image_reader_new(&r, img, &e) == 0;
	o = good ? manifest_region(&img->manifest, "ram") : NULL;
	ok(good && image_reader_read(r, o, 0, got, 8192, &e) == 0 &&
		memcmp(got, memory, 4096) == 0 && memory_is_zero(got + 4096, 4096) &&
		image_reader_read(r, o, OBJECT_SIZE_MAX - 8192, got, 8192, &e) == 0 &&
		memory_is_zero(got, 4096) && memcmp(got + 4096, memory, 4096) == 0 &&
		image_reader_read(r, o, OBJECT_SIZE_MAX / 2, got, 1, &e) == 0 && got[0] == 0,
	    "both are read, and zeros between: %s", e.msg);
	ok(verifies("x", &e), "it verifies: %s", e.msg);
	ok(seconds() - start_time < 2, "in no time: %.3f s", seconds() - start_time);
	ok(good && img->size < 64 << 10, "from a file of %llu bytes",
	    good ? (unsigned long long)img->size : 0);
	image_reader_free(r);
	image_close(img);
	free(chunk);
	unlink("x");
}

/* Memory in use now, KiB. */
static long
used_kib(void)
{
	struct err e = ERR_INIT;
	char *text = NULL;
	long pages = 0;

	if (fd_slurp("/proc/self/statm", 4096, &text, NULL, &e) == 0)
		sscanf(text, "%*d %ld", &pages);
	free(text);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* 256 Ki chunks, whose index alone has 8 MiB. */
static void
test_bounded(void)
{
	const char *sanitizers = getenv("GMEM_SANITIZERS");
	struct err e = ERR_INIT;
	struct image_writer *w = start("x", 4096, &e);
	const struct geometry *g = image_writer_geometry(w);
	uint8_t record[16384], root[DIGEST_SIZE];
	struct packer *p;
	struct entry en;
	uint64_t n = 256 << 10, i = 0;
	long before, after;

	if (packer_new(&p, g, 1, &e) == -1 || packer_bound(g) > sizeof(record) ||
	    packer_pack(p, memory, 4096, &en, record, &e) == -1 ||
	    begin(w, "ram", n * 4096, false, &e) == -1)
		abort();
	before = used_kib();
	while (i < n && image_writer_chunk(w, i, &en, record, &e) == 0)
		i++;
	after = used_kib();
	ok(i == n && image_writer_end(w, 0, &e) == 0 && image_writer_commit(w, root, &e) == 0,
	    "%llu chunks: %s", (unsigned long long)i, e.msg);
	if ((sanitizers != NULL && strcmp(sanitizers, "no") != 0) || tap_under_valgrind())
		skip(1, "memory is not measured under sanitizers or valgrind");
	else
		ok(after - before < 2048, "written with %ld KiB more than before",
		    after - before);
	ok(verifies("x", &e), "and it verifies: %s", e.msg);
	image_writer_free(w);
	packer_free(p);
	unlink("x");
}

static void
test_deterministic(void)
{
	struct err e = ERR_INIT;
	struct bytes a, b;

	small_image("a", memory, sizeof(memory), 32768, &e);
	small_image("b", memory, sizeof(memory), 32768, &e);
	a = slurp("a");
	b = slurp("b");
	ok(a.len != 0 && a.len == b.len && memcmp(a.at, b.at, a.len) == 0,
	    "the same memory makes the same bytes");
	free(a.at);
	free(b.at);
	unlink("a");
	unlink("b");
}

int
main(void)
{
	if (mkdtemp(folder) == NULL || chdir(folder) == -1)
		abort();
	fill_memory(memory, sizeof(memory), 10, 11);
	test_stream(false);
	test_stream(true);
	test_names();
	if (!tap_under_valgrind()) {
		test_fallback(fallback, "no O_TMPFILE");
		test_fallback(fallback_old, "no O_TMPFILE and no renameat2");
	}
	test_failures();
	test_misuse();
	test_unknown_size();
	test_deterministic();
	memset(memory, 'a', 4096);
	test_huge(4096);
	test_huge(65536);
	test_huge(2 << 20);
	test_bounded();
	ok(files() == 0, "nothing is left in the folder");
	if (chdir("..") == -1 || rmdir(folder) == -1)
		abort();
	return done();
}
