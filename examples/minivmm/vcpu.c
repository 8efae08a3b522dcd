/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>

#define KICK SIGUSR1

/* Does nothing: its arrival is what ends KVM_RUN. */
static void
on_kick(int sig)
{
	(void)sig;
}

void
vcpu_create(struct vm *vm)
{
	struct vcpu *v = &vm->vcpu;
	/* Calls of ours go on after it; KVM_RUN never does. */
	struct sigaction sa = { .sa_handler = on_kick, .sa_flags = SA_RESTART };
	int size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0)
		fail("this KVM has no KVM_CAP_IMMEDIATE_EXIT: Linux 4.13 is needed");
	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	if (v->fd == -1)
		fail_errno("create vCPU");
	v->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED)
		fail_errno("map vCPU");
	v->memory = &vm->memory;
	v->thread = pthread_self();
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	sigaction(KICK, &sa, NULL);
}

/* 32-bit flat protected mode, without paging. */
void
vcpu_start_guest(struct vcpu *v)
{
	struct kvm_segment flat = { .limit = 0xffffffff,
		.selector = 0x10,
		.type = 3,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1 };
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(v->fd, KVM_GET_SREGS, &sregs) == -1)
		fail_errno("vCPU");
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
	sregs.cs = flat;
	sregs.cs.selector = 8;
	sregs.cs.type = 11;
	sregs.cr0 |= 1;
	if (ioctl(v->fd, KVM_SET_SREGS, &sregs) == -1 ||
	    ioctl(v->fd, KVM_SET_REGS, &regs) == -1)
		fail_errno("vCPU");
}

/* ---- pausing ---- */

/*
 * Two things make KVM_RUN return EINTR: immediate_exit if it is about to begin,
 * and the signal if it has begun.  Both are given, so none can come too late.
 */
bool
vcpu_pause(struct vcpu *v)
{
	bool before;

	pthread_mutex_lock(&v->lock);
	before = v->pauses++ > 0;
	v->run->immediate_exit = 1;
	pthread_kill(v->thread, KICK);
	pthread_cond_broadcast(&v->changed);
	while (!v->still)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
	return before;
}

void
vcpu_resume(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	v->pauses--;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

/*
 * Called when KVM_RUN has returned EINTR, and nowhere else.  After an exit for I/O
 * the instruction is not over: KVM completes it, moving rip and writing what was
 * read, only when KVM_RUN is entered again, and does so before it looks at
 * immediate_exit.  So at EINTR nothing is pending, and the registers are whole.
 */
static void
stand_still(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	while (v->pauses > 0) {
		v->still = true;
		pthread_cond_broadcast(&v->changed);
		pthread_cond_wait(&v->changed, &v->lock);
	}
	v->still = false;
	v->run->immediate_exit = 0;
	pthread_mutex_unlock(&v->lock);
}

/* Less if somebody wants us to stand still. */
static void
delay(struct vcpu *v, uint32_t ms)
{
	struct timespec until;
	long ns;

	clock_gettime(CLOCK_REALTIME, &until);
	ns = until.tv_nsec + (long)(ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	pthread_mutex_lock(&v->lock);
	while (v->pauses == 0 &&
	       pthread_cond_timedwait(&v->changed, &v->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&v->lock);
}

/* ---- why the vCPU has left the guest ---- */

/* The guest has something to say.  -1: it goes on; else the status to end with. */
static int
on_event(struct vcpu *v, uint32_t event)
{
	const struct box *box = (const void *)(v->memory->map + GUEST_BOX);

	switch (event) {
	case EVENT_ROUND:
		dprintf(STDOUT_FILENO, "round %u sum %08x\n", box->round, box->sum);
		if (box->delay != 0)
			delay(v, box->delay);
		return -1;
	case EVENT_FREE:
		memory_discard(v->memory, box->address, box->length);
		return -1;
	case EVENT_DONE:
		dprintf(STDOUT_FILENO, "done sum %08x\n", box->sum);
		return STATUS_OK;
	case EVENT_WRONG:
		dprintf(STDOUT_FILENO, "wrong memory at %#x: %08x, not %08x\n", box->address,
		    box->found, box->expected);
		return STATUS_WRONG;
	default:
		fprintf(stderr, "minivmm: the guest says %#x, which means nothing\n", event);
		return STATUS_CRASHED;
	}
}

static int
on_io(struct vcpu *v)
{
	uint32_t event;

	if (v->run->io.port != PORT || v->run->io.size != sizeof(event) ||
	    v->run->io.direction != KVM_EXIT_IO_OUT) {
		fprintf(stderr, "minivmm: the guest uses port %#x\n", v->run->io.port);
		return STATUS_CRASHED;
	}
	memcpy(&event, (char *)v->run + v->run->io.data_offset, sizeof(event));
	return on_event(v, event);
}

/* A page that is not there yet, in a slot with KVM userfault: it is when this returns. */
static bool
on_userfault(struct vcpu *v)
{
	const struct memory_fault *f =
	    (const void *)((char *)v->run + offsetof(struct kvm_run, hw));
	struct gmem_handoff *h = v->memory->handoff;

	if (v->run->exit_reason != KVM_EXIT_MEMORY_FAULT ||
	    (f->flags & KVM_MEMORY_EXIT_FLAG_USERFAULT) == 0 || h == NULL)
		return false;
	if (gmem_handoff_fault(h, 0, f->gpa & ~(uint64_t)(PAGE - 1)) == -1)
		fail("%s", h->error);
	return true;
}

enum status
vcpu_run(struct vcpu *v)
{
	struct kvm_regs regs = { 0 };
	int status = -1;

	while (status == -1) {
		if (ioctl(v->fd, KVM_RUN, 0) == 0) {
			if (v->run->exit_reason != KVM_EXIT_IO)
				break;
			status = on_io(v);
		} else if (errno == EINTR) {
			stand_still(v);
		} else if (errno != EFAULT || !on_userfault(v)) {
			fail_errno("run vCPU");
		}
	}
	if (status != -1)
		return (enum status)status;
	ioctl(v->fd, KVM_GET_REGS, &regs);
	fprintf(stderr, "minivmm: the guest has left by KVM exit %u at %#llx\n",
	    v->run->exit_reason, (unsigned long long)regs.rip);
	return STATUS_CRASHED;
}
