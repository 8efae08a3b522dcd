/* SPDX-License-Identifier: 0BSD */
#ifndef MINIVMM_H
#define MINIVMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "gmem-handoff-client.h"
#include "guest.h"
#include "kvm-new.h"

enum status {
	STATUS_OK = 0, /* the guest has ended, and all its memory was right */
	STATUS_FAILED = 1, /* of the VMM: the reason is on stderr */
	STATUS_USAGE = 2,
	STATUS_WRONG = 3, /* the guest has found wrong memory */
	STATUS_CRASHED = 4, /* the guest did what no guest of ours does */
	STATUS_TERMINATED = 143, /* SIGTERM */
};

#define PAGE 4096u

struct options {
	uint64_t size; /* bytes; 0: not given */
	bool memfd, guest_memfd; /* neither: guest_memfd, where it can be mapped */
	bool gmem_slot, no_direct_map;
	uint32_t rounds, writes, delay, free_every;
	const char *control, *restore, *ram;
	bool listens; /* the control socket is there */
};

/* Guest memory: one file, from guest physical address 0 on. */
struct memory {
	int fd;
	uint64_t size;
	unsigned char *map;
	bool gmem_slot;
	int bitmap_fd; /* of KVM userfault; -1: not used */
	unsigned char *bitmap;
	struct gmem_handoff *handoff; /* NULL: memory is all there */
};

struct vcpu {
	int fd;
	struct kvm_run *run;
	struct memory *memory;
	pthread_t thread; /* that runs it */
	pthread_mutex_t lock; /* guards what follows, and run->immediate_exit */
	pthread_cond_t changed;
	unsigned pauses; /* how many want it to stand still */
	bool still; /* it does */
};

struct vm {
	int kvm, fd;
	struct memory memory;
	struct vcpu vcpu;
};

/* Prints one line and ends the program. */
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void fail_errno(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* memory.c */
void memory_create(struct vm *vm, const struct options *o, uint64_t size);
void memory_add_slot(struct vm *vm);
void memory_discard(struct memory *m, uint64_t address, uint64_t length);

/* restore.c */
void restore_memory(struct vm *vm, const struct options *o);
void restore_state(struct vm *vm, const char *path);

/* state.c: a file with all that the vCPU is, while it stands still; -1 */
int state_save(const struct vm *vm);
void state_load(struct vm *vm, int fd);

/* vcpu.c */
void vcpu_create(struct vm *vm);
void vcpu_start_guest(struct vcpu *v);
enum status vcpu_run(struct vcpu *v);
bool vcpu_pause(struct vcpu *v); /* true: it stood still before */
void vcpu_resume(struct vcpu *v);

/* control.c */
void control_start(struct vm *vm, const char *path, bool *listens);

#endif
