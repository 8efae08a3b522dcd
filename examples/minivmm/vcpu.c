/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <signal.h>

/* Does nothing: its arrival is what ends KVM_RUN. */
static void
on_kick(int sig)
{
	(void)sig;
}

void
vcpu_create(struct vm *vm)
{
	/* Calls of ours go on after it; KVM_RUN never does. */
	const struct sigaction sa = { .sa_handler = on_kick, .sa_flags = SA_RESTART };
	int size = must(ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "vCPU");

	vm->vcpu = must(ioctl(vm->fd, KVM_CREATE_VCPU, 0), "create vCPU");
	vm->run = map_file(vm->vcpu, (uint64_t)size);
	vm->thread = pthread_self();
	sem_init(&vm->still, 0, 0);
	sem_init(&vm->go, 0, 0);
	sigaction(SIGUSR1, &sa, NULL);
}

/* 32-bit flat protected mode, without paging. */
void
vcpu_start_guest(const struct vm *vm)
{
	struct kvm_segment flat = {
		.limit = 0xffffffff, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	must(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs), "vCPU");
	flat.selector = 8;
	flat.type = 11; /* code */
	sregs.cs = flat;
	flat.selector = 16;
	flat.type = 3; /* data */
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
	sregs.cr0 |= 1;
	must(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs), "vCPU");
	must(ioctl(vm->vcpu, KVM_SET_REGS, &regs), "vCPU");
}

/* ---- pausing ---- */

/*
 * Two things make KVM_RUN return EINTR: immediate_exit if it is about to begin,
 * and the signal if it has begun.  Both are given, so none can come too late.
 */
void
vcpu_pause(struct vm *vm)
{
	if (vm->paused)
		return;
	vm->paused = true;
	vm->run->immediate_exit = 1;
	pthread_kill(vm->thread, SIGUSR1);
	sem_wait(&vm->still);
}

void
vcpu_resume(struct vm *vm)
{
	if (!vm->paused)
		return;
	vm->paused = false;
	vm->run->immediate_exit = 0;
	sem_post(&vm->go);
}

/*
 * Called when KVM_RUN has returned EINTR, and nowhere else.  After an exit for I/O
 * the instruction is not over: KVM completes it, moving rip and writing what was
 * read, only when KVM_RUN is entered again, and does so before it looks at
 * immediate_exit.  So at EINTR nothing is pending, and the registers are whole.
 */
static void
stand_still(struct vm *vm)
{
	if (vm->paused) {
		sem_post(&vm->still);
		sem_wait(&vm->go);
	}
}

/* ---- why the vCPU has left the guest ---- */

/* The guest has something to say. */
static void
on_io(struct vm *vm)
{
	const uint32_t *box = (const void *)(vm->map + GUEST_BOX);
	const struct kvm_run *run = vm->run;

	if (run->io.port != PORT || run->io.size != 4 || run->io.direction != KVM_EXIT_IO_OUT)
		errx(STATUS_CRASHED, "the guest uses port %#x", run->io.port);
	switch (*(const uint32_t *)((uintptr_t)run + run->io.data_offset)) {
	case EVENT_ROUND:
		dprintf(STDOUT_FILENO, "round %u sum %08x\n", box[BOX_ROUND], box[BOX_SUM]);
		for (uint32_t ms = box[BOX_DELAY]; ms > 0 && !vm->paused; ms--)
			usleep(1000);
		break;
	case EVENT_FREE:
		memory_discard(vm, box[BOX_ADDRESS], box[BOX_LENGTH]);
		break;
	case EVENT_DONE:
		dprintf(STDOUT_FILENO, "done sum %08x\n", box[BOX_SUM]);
		exit(0);
	case EVENT_WRONG:
		dprintf(STDOUT_FILENO, "wrong memory at %#x: %08x, not %08x\n",
		    box[BOX_ADDRESS], box[BOX_FOUND], box[BOX_EXPECTED]);
		exit(STATUS_WRONG);
	default:
		errx(STATUS_CRASHED, "the guest says what means nothing");
	}
}

/* KVM_RUN has failed: at a page of KVM userfault, which is there when this returns? */
static void
on_failure(const struct vm *vm)
{
	const struct memory_fault *f = (const void *)vm->run->padding;

	if (errno != EFAULT || vm->run->exit_reason != KVM_EXIT_MEMORY_FAULT ||
	    (f->flags & KVM_MEMORY_EXIT_FLAG_USERFAULT) == 0 || vm->bitmap == NULL)
		err(1, "run vCPU");
	if (gmem_handoff_fault(vm->handoff, 0, f->gpa / PAGE * PAGE) == -1)
		errx(1, "%s", vm->handoff->error);
}

/* Until the guest, or something else, ends the program. */
void
vcpu_run(struct vm *vm)
{
	for (;;) {
		int rc = ioctl(vm->vcpu, KVM_RUN, 0);

		if (rc == -1 && errno == EINTR)
			stand_still(vm);
		else if (rc == -1)
			on_failure(vm);
		else if (vm->run->exit_reason == KVM_EXIT_IO)
			on_io(vm);
		else
			errx(STATUS_CRASHED, "KVM exit %u", vm->run->exit_reason);
	}
}
