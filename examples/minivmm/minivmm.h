/* SPDX-License-Identifier: 0BSD */
#ifndef MINIVMM_H
#define MINIVMM_H

#include <err.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "gmem-handoff-client.h"
#include "guest.h"
#include "kvm-new.h"

/* Exit statuses, besides 1 of err(3). */
#define STATUS_USAGE 2
#define STATUS_WRONG 3 /* the guest has found wrong memory */
#define STATUS_CRASHED 4 /* the guest did what no guest of ours does */

#define PAGE 4096u

struct options {
	bool memfd, guest_memfd; /* neither: guest_memfd, where it can be mapped */
	bool gmem_slot, no_direct_map;
	const char *control, *restore;
	uint64_t size; /* of the memory, bytes; when restoring, the image says it */
	uint32_t box[BOX_WORDS]; /* for a new guest */
};

struct vm {
	struct options o;
	int kvm, fd;
	int memory; /* one file, from guest physical address 0 on */
	unsigned char *map;
	unsigned char *bitmap; /* of KVM userfault; NULL: not used */
	struct gmem_handoff *handoff; /* NULL: memory is all there */

	int vcpu;
	struct kvm_run *run;
	pthread_t thread; /* that runs the vCPU */
	_Atomic bool paused; /* it is to stand still, or does */
	_Atomic bool protected; /* gmem-snap saves memory that nobody has written yet */
	sem_t still, go;
};

/* guest.S */
extern const char guest_start[];
extern const uint32_t guest_size;

/* main.c: the result of a system call, a mapping; without it the program ends */
int must(int result, const char *what);
void *map_file(int fd, uint64_t size);

/* memory.c */
void memory_create(struct vm *vm);
void memory_add_slot(struct vm *vm);
void memory_discard(struct vm *vm, uint64_t address, uint64_t length);

/* restore.c: instead of memory_create, memory that gmem-restore brings */
void restore_memory(struct vm *vm);

/* state.c: a file with all that the vCPU is, while it stands still; -1 */
int state_save(const struct vm *vm);
void state_load(const struct vm *vm);

/* vcpu.c */
void vcpu_create(struct vm *vm);
void vcpu_start_guest(const struct vm *vm);
void vcpu_run(struct vm *vm) __attribute__((noreturn));
void vcpu_pause(struct vm *vm);
void vcpu_resume(struct vm *vm);

/* control.c */
void control_start(struct vm *vm);
void control_end(void);

#endif
