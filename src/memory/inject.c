/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "memory/inject.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fdio.h"

#if defined(__x86_64__)

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

/*
 * A system call that we interrupt is made again when the thread goes on: its registers tell
 * so, and whoever is let go by ptrace(2) is looked at as if a signal had come.
 */
struct inject {
	pid_t pid;
	struct user_regs_struct regs;
	uint64_t mask; /* of signals */
	uint64_t at; /* of an instruction that makes a system call */
	bool stopped;
	int held; /* a signal that came meanwhile, or 0 */
};

#define STOP_MS 5000
#define VDSO_MAX 16384u
#define CODE_64 0x33u /* the code segment of 64-bit programs */
#define SIGNALS_SIZE ((void *)sizeof(uint64_t)) /* of a set of signals, in the kernel */
#define CALL_STOP (SIGTRAP | 0x80) /* with PTRACE_O_TRACESYSGOOD */

/* ---- where ---- */

static int
find_vdso(pid_t pid, uint64_t *at, struct err *e)
{
	char path[64], *text;
	Elf64_auxv_t aux;
	size_t len;

	*at = 0;
	snprintf(path, sizeof(path), "/proc/%d/auxv", (int)pid);
	if (fd_slurp(path, 65536, &text, &len, e) == -1)
		return -1;
	for (size_t i = 0; i + sizeof(aux) <= len; i += sizeof(aux)) {
		memcpy(&aux, text + i, sizeof(aux));
		if (aux.a_type == AT_SYSINFO_EHDR)
			*at = aux.a_un.a_val;
	}
	free(text);
	return *at != 0 ? 0 : err_set(e, ERR_UNSUPPORTED, "it has no vDSO");
}

/* The vDSO falls back on system calls: nothing has to be written into the process. */
static int
find_instruction(struct inject *in, struct err *e)
{
	static const uint8_t wanted[] = { 0x0f, 0x05 }; /* syscall */
	uint8_t code[VDSO_MAX];
	struct iovec local = { code, sizeof(code) }, pages[VDSO_MAX / 4096];
	const uint8_t *found;
	uint64_t vdso;
	ssize_t n;

	if (find_vdso(in->pid, &vdso, e) == -1)
		return -1;
	for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++)
		pages[i] = (struct iovec){ (void *)(uintptr_t)(vdso + i * 4096), 4096 };
	/* It ends with the first page that is not there. */
	n = process_vm_readv(in->pid, &local, 1, pages, sizeof(pages) / sizeof(*pages), 0);
	if (n == -1)
		return err_sys(e, "read its vDSO");
	found = memmem(code, (size_t)n, wanted, sizeof(wanted));
	if (found == NULL)
		return err_set(e, ERR_UNSUPPORTED, "its vDSO makes no system call");
	in->at = vdso + (uint64_t)(found - code);
	return 0;
}

/* ---- stopping ---- */

/* 1: it has stopped; 0: not yet; -1. */
static int
look(const struct inject *in, int *status, int flags, struct err *e)
{
	pid_t got = waitpid(in->pid, status, __WALL | flags);

	if (got == -1 && errno == EINTR)
		return 0;
	if (got == -1)
		return err_sys(e, "wait for process %d", (int)in->pid);
	if (got == 0)
		return 0;
	if (!WIFSTOPPED(*status))
		return err_set(e, ERR_FAILED, "process %d has ended", (int)in->pid);
	return 1;
}

static int
await_first_stop(const struct inject *in, struct err *e)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	int status, rc;

	for (int i = 0; i < STOP_MS; i++) {
		while ((rc = look(in, &status, WNOHANG, e)) == 1) {
			if (status >> 16 == PTRACE_EVENT_STOP)
				return 0;
			/* A signal came first: it is taken. */
			if (ptrace(PTRACE_CONT, in->pid, NULL, WSTOPSIG(status)) == -1)
				return err_sys(e, "ptrace process %d", (int)in->pid);
		}
		if (rc == -1)
			return -1;
		nanosleep(&nap, NULL);
	}
	return err_set(e, ERR_FAILED, "process %d does not stop within %d s", (int)in->pid,
	    STOP_MS / 1000);
}

/* To where a call begins, or ends.  Of signals only SIGSTOP can come now. */
static int
run_to_call(struct inject *in, struct err *e)
{
	int status, rc;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, in->pid, NULL, NULL) == -1)
			return err_sys(e, "ptrace process %d", (int)in->pid);
		while ((rc = look(in, &status, 0, e)) == 0)
			;
		if (rc == -1 || WSTOPSIG(status) == CALL_STOP)
			return rc == -1 ? -1 : 0;
		if (status >> 16 == 0)
			in->held = WSTOPSIG(status);
	}
}

static int
stop(struct inject *in, struct err *e)
{
	const uint64_t all = ~UINT64_C(0);

	if (ptrace(PTRACE_SEIZE, in->pid, NULL, PTRACE_O_TRACESYSGOOD) == -1 ||
	    ptrace(PTRACE_INTERRUPT, in->pid, NULL, NULL) == -1)
		return err_sys(e, "ptrace process %d", (int)in->pid);
	if (await_first_stop(in, e) == -1)
		return -1;
	if (ptrace(PTRACE_GETREGS, in->pid, NULL, &in->regs) == -1 ||
	    ptrace(PTRACE_GETSIGMASK, in->pid, SIGNALS_SIZE, &in->mask) == -1)
		return err_sys(e, "registers of process %d", (int)in->pid);
	if (in->regs.cs != CODE_64)
		return err_set(e, ERR_UNSUPPORTED, "it is no 64-bit program");
	if (ptrace(PTRACE_SETSIGMASK, in->pid, SIGNALS_SIZE, &all) == -1)
		return err_sys(e, "signals of process %d", (int)in->pid);
	in->stopped = true;
	return 0;
}

int
inject_begin(struct inject **out, pid_t pid, struct err *e)
{
	struct inject *in = calloc(1, sizeof(*in));

	if (in == NULL)
		return err_sys(e, "process %d", (int)pid);
	in->pid = pid;
	if (find_instruction(in, e) == -1 || stop(in, e) == -1) {
		inject_end(in);
		return -1;
	}
	*out = in;
	return 0;
}

int
inject_call(struct inject *in, long number, const uint64_t args[6], long *result, struct err *e)
{
	struct user_regs_struct regs = in->regs;

	regs.rip = in->at;
	regs.rax = (unsigned long long)number;
	regs.orig_rax = (unsigned long long)-1; /* there is nothing to be made again */
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];
	if (ptrace(PTRACE_SETREGS, in->pid, NULL, &regs) == -1)
		return err_sys(e, "registers of process %d", (int)in->pid);
	if (run_to_call(in, e) == -1 || run_to_call(in, e) == -1)
		return -1;
	if (ptrace(PTRACE_GETREGS, in->pid, NULL, &regs) == -1)
		return err_sys(e, "registers of process %d", (int)in->pid);
	*result = (long)regs.rax;
	return 0;
}

void
inject_end(struct inject *in)
{
	if (in == NULL)
		return;
	if (in->stopped) {
		ptrace(PTRACE_SETREGS, in->pid, NULL, &in->regs);
		ptrace(PTRACE_SETSIGMASK, in->pid, SIGNALS_SIZE, &in->mask);
	}
	ptrace(PTRACE_DETACH, in->pid, NULL, NULL);
	if (in->held != 0)
		kill(in->pid, in->held);
	free(in);
}

#else

int
inject_begin(struct inject **out, pid_t pid, struct err *e)
{
	*out = NULL;
	return err_set(e, ERR_UNSUPPORTED,
	    "system calls of process %d: not known for this architecture", (int)pid);
}

int
inject_call(struct inject *in, long number, const uint64_t args[6], long *result, struct err *e)
{
	(void)in, (void)number, (void)args, (void)result;
	return err_set(e, ERR_UNSUPPORTED, "not known for this architecture");
}

void
inject_end(struct inject *in)
{
	(void)in;
}

#endif
