/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

/*
 * fail-call -l FILE [-t SECONDS] COMMAND...
 * fail-call CALL N HOW [-o FILE] [-t SECONDS] COMMAND...
 *
 * Runs a command.  The first form writes to FILE which system calls it makes, how often:
 * "CALL COUNT" a line; ioctl, fcntl and prctl with the request, "ioctl:0xaa3f", and read and
 * write of an eventfd as those of request 1.
 * In the second the Nth CALL, of all threads and children of the command, fails:
 * HOW is an error like ENOSPC; short: only the first half is really read or written; kill: the
 * process is killed at this call.
 *
 * Calls count from where main() begins, for the commands open /dev/null there first, and as
 * long as the program that makes them is COMMAND itself or another gmem-*: not the VMM that
 * it starts.
 *
 * FILE of -o tells what has happened: "injected"; "hang", the command was killed after
 * SECONDS (60); "left", processes that it had started were there two seconds after its end,
 * and were killed.  The exit status is that of the command, 128 + n for signal n.
 *
 * strace -e inject counts for each thread on its own, from the first call of the dynamic
 * linker, stops processes by ptrace(2), which looks like a pause, and can't write less
 * than it was asked to.  Here the kernel asks us before each call (seccomp_unotify(2)).
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#define LEFT_MS 2000 /* until all that the command has started is gone too */
#define KEYS_MAX 512

/* clang-format off */
/* What the C library alone does and relies on, or what cannot fail. */
static const int passed[] = { SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_futex,
	SYS_rseq, SYS_set_robust_list, SYS_set_tid_address, SYS_sched_yield, SYS_gettid,
	SYS_getpid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_umask,
	SYS_rt_sigprocmask, SYS_restart_syscall };

#define N(name) { #name, SYS_##name }
static const struct {
	const char *name;
	int number;
} names[] = {
	N(accept4), N(bind), N(brk), N(capget), N(capset), N(chdir), N(clock_gettime),
	N(clock_nanosleep), N(clone), N(clone3), N(close), N(close_range), N(connect),
	N(copy_file_range), N(dup), N(dup3), N(epoll_create1), N(epoll_ctl), N(epoll_pwait),
	N(eventfd2), N(execve), N(faccessat), N(faccessat2), N(fadvise64), N(fallocate),
	N(fchmod), N(fchown), N(fcntl), N(fdatasync), N(flock), N(fstat), N(mlock), N(munlock), N(fstatfs),
	N(fsync), N(getcwd), N(getdents64), N(getpeername), N(getrandom),
	N(getrusage), N(getsockname), N(getsockopt), N(ioctl), N(kcmp), N(kill), N(linkat),
	N(listen), N(lseek), N(madvise), N(memfd_create), N(mincore), N(mkdirat), N(mmap),
	N(mprotect), N(mremap), N(munmap), N(nanosleep), N(newfstatat), N(openat), N(openat2),
	N(pidfd_getfd), N(pidfd_open), N(pidfd_send_signal), N(pipe2), N(ppoll), N(prctl),
	N(pread64), N(preadv), N(preadv2), N(prlimit64), N(process_vm_readv), N(pwrite64),
	N(pwritev), N(read), N(readlinkat), N(readv), N(recvfrom), N(recvmsg), N(renameat2),
	N(rt_sigaction), N(sched_getaffinity), N(sched_setaffinity), N(seccomp), N(sendfile),
	N(sendmsg), N(sendto), N(setpriority), N(getpriority), N(setsid), N(setsockopt),
	N(shutdown), N(sigaltstack), N(signalfd4), N(socket), N(socketpair), N(splice), N(statfs),
	N(statx), N(sysinfo), N(tgkill), N(timerfd_create), N(timerfd_settime), N(uname),
	N(unlinkat), N(userfaultfd), N(wait4), N(waitid), N(write), N(writev), N(membarrier),
	N(getcpu), N(landlock_create_ruleset), N(landlock_add_rule), N(landlock_restrict_self),
	N(ftruncate), N(sched_setscheduler), N(sched_getscheduler), N(sched_setattr),
#ifdef SYS_open
	N(access), N(alarm), N(dup2), N(fork), N(getpgrp), N(link), N(lstat), N(mkdir),
	N(open), N(pipe), N(poll), N(readlink), N(rename), N(renameat), N(rmdir), N(select),
	N(stat), N(time), N(unlink), N(vfork), N(arch_prctl),
#endif
};

static const struct {
	const char *name;
	int number;
} errors[] = { { "EAGAIN", EAGAIN }, { "EINTR", EINTR }, { "EIO", EIO }, { "ENOMEM", ENOMEM },
	{ "ENOSPC", ENOSPC }, { "EPERM", EPERM }, { "EMFILE", EMFILE }, { "EINVAL", EINVAL },
	{ "ENOSYS", ENOSYS }, { "EACCES", EACCES } };

/* clang-format on */

enum how { LIST, ERROR, SHORT, KILL };

static struct {
	enum how how;
	int call, error;
	uint64_t request, n;
	FILE *out;
	int seconds;
	char exe[4096];
	bool begun, injected;
	uint64_t count;
	struct key {
		int call;
		uint64_t request;
		uint64_t count;
	} keys[KEYS_MAX];
	size_t nkeys;
	pid_t pid;
	int pidfd, listener;
} g = { .seconds = 60 };

static const char *
call_name(int call)
{
	static char text[32];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].number == call)
			return names[i].name;
	snprintf(text, sizeof(text), "%d", call);
	return text;
}

/* NAME[:REQUEST], or a number. */
static void
take_call(const char *arg)
{
	const char *colon = strchr(arg, ':');
	size_t len = colon != NULL ? (size_t)(colon - arg) : strlen(arg);

	g.call = -1;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i].name) == len && strncmp(names[i].name, arg, len) == 0)
			g.call = names[i].number;
	if (g.call == -1 && *arg >= '0' && *arg <= '9')
		g.call = atoi(arg);
	if (g.call == -1)
		errx(64, "no system call %s is known here", arg);
	g.request = colon != NULL ? strtoull(colon + 1, NULL, 0) : 0;
}

static void
take_how(const char *arg)
{
	g.how = strcmp(arg, "short") == 0 ? SHORT : strcmp(arg, "kill") == 0 ? KILL : ERROR;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (strcmp(errors[i].name, arg) == 0)
			g.error = errors[i].number;
	if (g.how == ERROR && g.error == 0)
		errx(64, "no error %s is known here", arg);
}

/* ---- the command ---- */

/* What the child tells: its listener, plus 1; then we tell it to go on. */
struct meeting {
	_Atomic int listener, go;
};

#define JUMP(value, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, t, f)
#define LOAD(field)                                                                            \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)

static size_t
make_filter(struct sock_filter *f)
{
	size_t n = 0;

	f[n++] = (struct sock_filter)LOAD(nr);
	if (g.how == LIST) {
		for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
			f[n++] = (struct sock_filter)JUMP((uint32_t)passed[i], 0, 1);
			f[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
		}
		f[n++] = (struct sock_filter)RETURN(SECCOMP_RET_USER_NOTIF);
		return n;
	}
	f[n++] = (struct sock_filter)JUMP((uint32_t)g.call, 0, 1);
	f[n++] = (struct sock_filter)RETURN(SECCOMP_RET_USER_NOTIF);
	f[n++] = (struct sock_filter)JUMP(SYS_openat, 0, 1);
	f[n++] = (struct sock_filter)RETURN(SECCOMP_RET_USER_NOTIF);
	f[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
	return n;
}

static void
run(char **argv, struct meeting *m)
{
	struct sock_filter filter[2 * sizeof(passed) / sizeof(passed[0]) + 8];
	struct sock_fprog program = { .filter = filter };
	int fd;

	program.len = (unsigned short)make_filter(filter);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		_exit(99);
	fd = (int)syscall(
	    SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	atomic_store(&m->listener, fd == -1 ? -1 : fd + 1);
	/* No system call of ours is answered before. */
	while (atomic_load(&m->go) == 0)
		;
	if (fd == -1)
		_exit(99);
	execvp(argv[0], argv);
	_exit(127);
}

static void
start(char **argv)
{
	struct meeting *m =
	    mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct timespec nap = { .tv_nsec = 100000 };
	int fd;

	if (m == MAP_FAILED)
		err(99, "mmap");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	g.pid = fork();
	if (g.pid == -1)
		err(99, "fork");
	if (g.pid == 0)
		run(argv, m);
	while ((fd = atomic_load(&m->listener)) == 0)
		nanosleep(&nap, NULL);
	g.pidfd = pidfd_open(g.pid, 0);
	g.listener = fd == -1 ? -1 : pidfd_getfd(g.pidfd, fd - 1, 0);
	if (g.listener == -1)
		warn("seccomp");
	atomic_store(&m->go, 1);
	if (g.listener == -1) {
		kill(g.pid, SIGKILL);
		exit(77);
	}
}

/* ---- its system calls ---- */

/* Of this program or of another of ours, and not of a VMM that it has started. */
static bool
is_ours(pid_t pid)
{
	char path[64], exe[4096];
	const char *base;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	exe[n < 0 ? 0 : n] = '\0';
	base = strrchr(exe, '/');
	return strcmp(exe, g.exe) == 0 || (base != NULL && strncmp(base, "/gmem-", 6) == 0);
}

static bool
opens_null(const struct seccomp_notif *req)
{
	char text[10] = "";
	struct iovec local = { text, sizeof(text) };
	struct iovec remote = { (void *)(uintptr_t)req->data.args[1], sizeof(text) };

	return req->data.nr == SYS_openat &&
	       process_vm_readv((pid_t)req->pid, &local, 1, &remote, 1, 0) == sizeof(text) &&
	       memcmp(text, "/dev/null", sizeof(text)) == 0;
}

static bool
is_eventfd(const struct seccomp_notif *req)
{
	static const char name[] = "anon_inode:[eventfd]";
	char path[64], shown[sizeof(name)] = "";

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)req->pid, (int)req->data.args[0]);
	return readlink(path, shown, sizeof(shown)) == sizeof(name) - 1 &&
	       memcmp(shown, name, sizeof(name) - 1) == 0;
}

static uint64_t
request_of(const struct seccomp_notif *req)
{
	switch (req->data.nr) {
	case SYS_read:
	case SYS_write:
		return is_eventfd(req);
	case SYS_ioctl:
	case SYS_fcntl:
		return req->data.args[1] & UINT32_MAX;
	case SYS_prctl:
		return req->data.args[0];
	default:
		return 0;
	}
}

static void
count_key(int call, uint64_t request)
{
	size_t i = 0;

	while (i < g.nkeys && (g.keys[i].call != call || g.keys[i].request != request))
		i++;
	if (i == g.nkeys && g.nkeys == KEYS_MAX)
		errx(99, "too many kinds of calls");
	if (i == g.nkeys)
		g.keys[g.nkeys++] = (struct key){ call, request, 0 };
	g.keys[i].count++;
}

/* The first half of what it has asked for, by its own descriptor.  Returns as the call does. */
static int64_t
do_half(const struct seccomp_notif *req)
{
	const __u64 *a = req->data.args;
	size_t len = (size_t)(a[2] < 1 << 20 ? a[2] : 1 << 20) / 2;
	int pidfd = pidfd_open((pid_t)req->pid, 0), fd;
	struct iovec local, remote = { (void *)(uintptr_t)a[1], len };
	ssize_t n = -1;
	char *buf;

	/* That wants the leader of the threads, which share their descriptors. */
	if (pidfd == -1)
		pidfd = pidfd_open(g.pid, 0);
	fd = pidfd_getfd(pidfd, (int)a[0], 0);
	buf = malloc(len + 1);
	local = (struct iovec){ buf, len };
	if (pidfd == -1 || fd == -1 || buf == NULL || len == 0)
		errx(99, "half a call %d", req->data.nr);
	switch (req->data.nr) {
	case SYS_write:
	case SYS_pwrite64:
		if (process_vm_readv((pid_t)req->pid, &local, 1, &remote, 1, 0) != (ssize_t)len)
			err(99, "process_vm_readv");
		n = req->data.nr == SYS_write ? write(fd, buf, len)
					      : pwrite(fd, buf, len, (off_t)a[3]);
		break;
	case SYS_read:
	case SYS_pread64:
		n = req->data.nr == SYS_read ? read(fd, buf, len)
					     : pread(fd, buf, len, (off_t)a[3]);
		local.iov_len = remote.iov_len = n > 0 ? (size_t)n : 0;
		if (n > 0 && process_vm_writev((pid_t)req->pid, &local, 1, &remote, 1, 0) != n)
			err(99, "process_vm_writev");
		break;
	default:
		errx(99, "no half of call %d", req->data.nr);
	}
	if (n == -1)
		n = -errno;
	free(buf);
	close(fd);
	close(pidfd);
	return n;
}

static bool
can_be_halved(const struct seccomp_notif *req)
{
	return req->data.args[2] >= 2;
}

static void
inject(const struct seccomp_notif *req, struct seccomp_notif_resp *resp)
{
	int64_t n;

	g.injected = true;
	if (g.out != NULL)
		fprintf(g.out, "injected\n"), fflush(g.out);
	if (g.how == KILL) {
		kill((pid_t)req->pid, SIGKILL);
		return;
	}
	resp->flags = 0;
	n = g.how == SHORT ? do_half(req) : -g.error;
	resp->error = n < 0 ? (int32_t)n : 0;
	resp->val = n < 0 ? 0 : n;
}

static bool
is_wanted(const struct seccomp_notif *req)
{
	if (req->data.nr != g.call || request_of(req) != g.request ||
	    (g.how == SHORT && !can_be_halved(req)))
		return false;
	return ++g.count == g.n;
}

static void
answer(void)
{
	struct seccomp_notif req = { 0 };
	struct seccomp_notif_resp resp = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
	bool null;

	/* It may have been interrupted or killed meanwhile. */
	if (ioctl(g.listener, SECCOMP_IOCTL_NOTIF_RECV, &req) == -1)
		return;
	resp.id = req.id;
	null = !g.begun && is_ours((pid_t)req.pid) && opens_null(&req);
	if (g.begun && is_ours((pid_t)req.pid)) {
		if (g.how == LIST)
			count_key(req.data.nr, request_of(&req));
		else if (is_wanted(&req))
			inject(&req, &resp);
	}
	g.begun |= null;
	if (ioctl(g.listener, SECCOMP_IOCTL_NOTIF_SEND, &resp) == -1 && errno != ENOENT)
		err(99, "SECCOMP_IOCTL_NOTIF_SEND");
}

/* ---- the end ---- */

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void
tell(const char *what)
{
	if (g.out != NULL)
		fprintf(g.out, "%s\n", what);
	else
		warnx("%s", what);
}

/* Whatever the command has started and left comes to us. */
static void
kill_children(void)
{
	char path[64];
	bool some = true;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	while (some) {
		FILE *f = fopen(path, "re");

		some = false;
		while (f != NULL && fscanf(f, "%d", &pid) == 1) {
			char comm[64] = "", name[64];
			FILE *c;

			snprintf(name, sizeof(name), "/proc/%d/comm", pid);
			c = fopen(name, "re");
			if (c != NULL && fgets(comm, sizeof(comm), c) != NULL && g.out != NULL)
				fprintf(g.out, "left %d %s", pid, comm);
			if (c != NULL)
				fclose(c);
			some |= kill(pid, SIGKILL) == 0;
			waitpid(pid, NULL, 0);
		}
		if (f != NULL)
			fclose(f);
	}
}

static int
watch(void)
{
	struct pollfd p[] = { { .fd = g.listener, .events = POLLIN },
		{ .fd = g.pidfd, .events = POLLIN } };
	int64_t limit = now_ms() + g.seconds * 1000;
	bool nobody = false;
	int status = 0;

	for (;;) {
		int64_t left = limit - now_ms();

		if (left <= 0 && p[1].fd != -1) {
			tell("hang");
			kill(g.pid, SIGKILL);
			limit = now_ms() + LEFT_MS;
		} else if (left <= 0) {
			tell("left");
			kill_children();
			break;
		}
		if (poll(p, 2, (int)(left > 0 ? left : 0)) == -1 && errno != EINTR)
			err(99, "poll");
		if (p[0].revents & POLLIN)
			answer();
		if (p[1].revents != 0) {
			waitpid(g.pid, &status, 0);
			p[1].fd = -1;
			p[1].revents = 0;
			limit = now_ms() + LEFT_MS;
		}
		while (p[1].fd == -1 && waitpid(-1, NULL, WNOHANG) > 0)
			;
		/* Nobody has our filter any more. */
		nobody |= (p[0].revents & (POLLIN | POLLHUP)) == POLLHUP;
		if (nobody && p[1].fd == -1)
			break;
		if (nobody)
			p[0].fd = -1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
find_exe(const char *command)
{
	char *path = getenv("PATH"), *copy, *dir;

	if (strchr(command, '/') != NULL) {
		if (realpath(command, g.exe) == NULL)
			err(99, "%s", command);
		return;
	}
	copy = strdup(path != NULL ? path : "/bin:/usr/bin");
	for (dir = strtok(copy, ":"); dir != NULL; dir = strtok(NULL, ":")) {
		char name[4096];

		snprintf(name, sizeof(name), "%s/%s", dir, command);
		if (access(name, X_OK) == 0 && realpath(name, g.exe) != NULL) {
			free(copy);
			return;
		}
	}
	errx(99, "%s is not in PATH", command);
}

static void
write_list(void)
{
	for (size_t i = 0; i < g.nkeys; i++) {
		fprintf(g.out, "%s", call_name(g.keys[i].call));
		if (g.keys[i].request != 0)
			fprintf(g.out, ":%#lx", g.keys[i].request);
		fprintf(g.out, " %lu\n", g.keys[i].count);
	}
}

static FILE *
create(const char *path)
{
	FILE *f = fopen(path, "we");

	if (f == NULL)
		err(99, "%s", path);
	return f;
}

int
main(int argc, char **argv)
{
	int i = 1, status;

	if (argc > 4 && argv[1][0] != '-') {
		take_call(argv[1]);
		g.n = strtoull(argv[2], NULL, 10);
		take_how(argv[3]);
		i = 4;
	}
	for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (strcmp(argv[i], "-l") == 0 || strcmp(argv[i], "-o") == 0)
			g.out = create(argv[i + 1]);
		else if (strcmp(argv[i], "-t") == 0)
			g.seconds = atoi(argv[i + 1]);
		else
			break;
	}
	if (i >= argc || (g.how == LIST && g.out == NULL)) {
		fprintf(stderr,
		    "usage: fail-call -l FILE COMMAND...\n"
		    "       fail-call CALL N HOW [-o FILE] [-t SECONDS] COMMAND...\n");
		return 64;
	}
	find_exe(argv[i]);
	start(argv + i);
	signal(SIGPIPE, SIG_IGN);
	status = watch();
	if (g.how == LIST)
		write_list();
	if (g.out != NULL)
		fclose(g.out);
	return status;
}
