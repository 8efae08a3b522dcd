/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * What is left to a program that has given up what it can: each attempt is made by a child
 * that was confined by the same function as the programs.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/confine.h"
#include "tap.h"

struct attempt {
	const char *name;
	void (*make)(void);
};

/* As which of the programs, and where the output of gmem-inspect is. */
struct role {
	const char *name;
	const char *folder;
	bool page_server;
};

#define DESCRIPTORS 64u

static pid_t parent;

/* ---- what is forbidden ---- */

static void
try_open(void)
{
	syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static void
try_socket(void)
{
	socket(AF_UNIX, SOCK_STREAM, 0);
}

static void
try_exec(void)
{
	char *const argv[] = { (char[]){ "true" }, NULL };

	execve("/bin/true", argv, environ);
}

static void
try_ptrace(void)
{
	ptrace(PTRACE_ATTACH, parent, NULL, NULL);
}

static void
try_fork(void)
{
	if (syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) == 0)
		_exit(0);
}

static void
try_kill(void)
{
	kill(parent, 0);
}

static void
try_tgkill(void)
{
	syscall(SYS_tgkill, parent, parent, 0);
}

static void
try_scheduler(void)
{
	const struct sched_param none = { .sched_priority = 0 };

	sched_setscheduler(parent, SCHED_OTHER, &none);
}

static void
try_affinity(void)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(parent, sizeof(all), &all);
}

static void
try_priority(void)
{
	setpriority(PRIO_PROCESS, (id_t)parent, 0);
}

static void
try_priority_of_user(void)
{
	setpriority(PRIO_USER, 0, 0);
}

static void
try_read_memory(void)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { &byte, 1 };

	process_vm_readv(parent, &here, 1, &there, 1, 0);
}

static void
try_run_memory(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void
try_make_runnable(void)
{
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static void
try_ioctl(void)
{
	char byte = 'x';

	ioctl(0, TIOCSTI, &byte);
}

static void
try_dumpable(void)
{
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void
try_userfaultfd(void)
{
	syscall(SYS_userfaultfd, 0);
}

static void
try_io_uring(void)
{
	syscall(SYS_io_uring_setup, 1, NULL);
}

static void
try_namespace(void)
{
	unshare(CLONE_NEWUSER);
}

static void
try_root(void)
{
	syscall(SYS_setuid, 0);
}

static void
try_unlink(void)
{
	unlink("/nonexistent");
}

static void
try_stat(void)
{
	syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", NULL, 0);
}

static void *
open_in_thread(void *arg)
{
	try_open();
	return arg;
}

static void
try_in_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, open_in_thread, NULL) == 0)
		pthread_join(thread, NULL);
}

#ifdef __x86_64__
/* By the numbers of 32 bits, of which 20 is getpid, and of x32. */
static void
try_32_bits(void)
{
	long number = 20;

	__asm__ volatile("int $0x80" : "+a"(number) : : "memory", "r8", "r9", "r10", "r11");
}

static void
try_x32(void)
{
	syscall(0x40000000 | SYS_getpid);
}
#endif

static const struct attempt forbidden[] = {
	{ "open", try_open },
	{ "open in a thread", try_in_thread },
	{ "socket", try_socket },
	{ "execve", try_exec },
	{ "ptrace", try_ptrace },
	{ "fork", try_fork },
	{ "kill", try_kill },
	{ "tgkill of another", try_tgkill },
	{ "sched_setscheduler of another", try_scheduler },
	{ "sched_setaffinity of another", try_affinity },
	{ "setpriority of another", try_priority },
	{ "setpriority of all of the user's", try_priority_of_user },
	{ "process_vm_readv", try_read_memory },
	{ "mmap with PROT_EXEC", try_run_memory },
	{ "mprotect with PROT_EXEC", try_make_runnable },
	{ "another ioctl", try_ioctl },
	{ "prctl", try_dumpable },
	{ "userfaultfd", try_userfaultfd },
	{ "io_uring_setup", try_io_uring },
	{ "unshare", try_namespace },
	{ "setuid", try_root },
	{ "unlink", try_unlink },
	{ "stat by name", try_stat },
#ifdef __x86_64__
	{ "a call of 32 bits", try_32_bits },
	{ "a call of x32", try_x32 },
#endif
};

/* ---- what is not ---- */

static void *
fill(void *arg)
{
	return memset(arg, 1, 1 << 20);
}

/* Exits with 0 if all went well. */
static void
work(void)
{
	char *many = malloc(1 << 20), byte;
	bool good = many != NULL;
	pthread_t threads[12];
	size_t n = 0;

	while (good && n < 12 && pthread_create(&threads[n], NULL, fill, many) == 0)
		n++;
	for (size_t i = 0; i < n; i++)
		good = pthread_join(threads[i], NULL) == 0 && good;
	free(many);
	good = good && n == 12 && pread(3, &byte, 1, 0) == 1 && write(4, &byte, 1) == 1 &&
	       raise(0) == 0 && syscall(-1) == -1 && errno == ENOSYS;
	_exit(good ? 0 : 1);
}

/* ---- children ---- */

struct child {
	pid_t pid;
	int ready, go; /* pipes: it is confined; it may go on */
};

/* Descriptor 3 is a file to read, 4 one to write. */
static void __attribute__((noreturn))
be_child(const struct attempt *what, const struct role *as, int ready, int go)
{
	char byte = 0;

	if (as->page_server)
		confine_page_server(0, DESCRIPTORS);
	else
		confine(as->folder);
	if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) == -1)
		_exit(98);
	what->make();
	_exit(99);
}

static bool
start(struct child *c, const struct attempt *what, const struct role *as)
{
	int ready[2], go[2];
	char byte;

	if (pipe2(ready, O_CLOEXEC) == -1 || pipe2(go, O_CLOEXEC) == -1)
		return false;
	c->pid = fork();
	if (c->pid == 0) {
		close(go[1]);
		be_child(what, as, ready[1], go[0]);
	}
	close(ready[1]);
	close(go[0]);
	c->ready = ready[0];
	c->go = go[1];
	return c->pid != -1 && read(c->ready, &byte, 1) == 1;
}

/* Lets it make its attempt; how it ended. */
static int
finish(struct child *c)
{
	int status = -1;

	close(c->go);
	close(c->ready);
	waitpid(c->pid, &status, 0);
	return status;
}

static int
run(const struct attempt *what, const struct role *as)
{
	struct child c;

	return start(&c, what, as) ? finish(&c) : -1;
}

/* What one of them needs. */
static bool
is_allowed(void (*make)(void), const struct role *as)
{
	return (make == try_unlink && as->folder != NULL) ||
	       (make == try_userfaultfd && as->page_server);
}

static void
test_forbidden(const struct role *as)
{
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
		int status;

		if (is_allowed(forbidden[i].make, as))
			continue;
		status = run(&forbidden[i], as);
		ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s: %s kills", as->name,
		    forbidden[i].name);
	}
}

/* A line of its status or limits, in which `text` stands. */
static bool
proc_has(pid_t pid, const char *file, const char *text)
{
	char path[64], line[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
		found = strncmp(line, text, strlen(text)) == 0;
	if (f != NULL)
		fclose(f);
	return found;
}

static void
test_given_up(const struct role *as)
{
	const struct attempt harmless = { "work", work };
	char descriptors[64];
	struct child c;

	snprintf(descriptors, sizeof(descriptors), "Max open files            %-2u ",
	    as->page_server ? DESCRIPTORS : 0);
	if (!ok(start(&c, &harmless, as), "%s: a child is confined", as->name))
		return;
	ok(proc_has(c.pid, "status", "NoNewPrivs:\t1"), "%s: gains no privileges", as->name);
	ok(proc_has(c.pid, "status", "Seccomp:\t2"), "%s: has a filter", as->name);
	ok(proc_has(c.pid, "status",
	       as->page_server && geteuid() == 0 ? "CapPrm:\t0000000000004000"
						 : "CapPrm:\t0000000000000000"),
	    "%s: no capabilities but to keep memory", as->name);
	ok(proc_has(c.pid, "limits", "Max core file size        0  "), "%s: no core file",
	    as->name);
	ok(proc_has(c.pid, "limits", descriptors), "%s: few descriptors", as->name);
	ok(finish(&c) == 0, "%s: and works", as->name);
}

static bool
has_filters(void)
{
#ifdef HAVE_SECCOMP
	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0;
#else
	return false;
#endif
}

/* The descriptors 3 and 4 of children. */
static bool
open_files(char *folder)
{
	char path[64];
	int in = open("/proc/self/exe", O_RDONLY), out;

	if (in == -1 || mkdtemp(folder) == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/out", folder);
	out = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	unlink(path);
	return out != -1 && (in == 3 || dup2(in, 3) == 3) && (out == 4 || dup2(out, 4) == 4);
}

int
main(void)
{
	char folder[] = "/tmp/gmem-test-XXXXXX";

#ifdef GMEM_SANITIZED
	skip(1, "a build with a sanitizer is not confined");
	return done();
#endif
	if (!has_filters()) {
		skip(1,
		    "no filters of system calls: built without libseccomp, or no kernel for "
		    "them");
		return done();
	}
	parent = getpid();
	if (ok(open_files(folder), "files")) {
		const struct role roles[] = {
			{ .name = "gmem-inspect" },
			{ .name = "gmem-inspect -o", .folder = folder },
			{ .name = "page server", .page_server = true },
		};

		for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
			test_forbidden(&roles[i]);
			if (roles[i].folder == NULL)
				test_given_up(&roles[i]);
		}
	}
	rmdir(folder);
	return done();
}
