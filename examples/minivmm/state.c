/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

/*
 * The file that goes into the image.  The rest of the VM is its memory: there are no
 * devices, and what our guest does not use (MSRs, XSAVE) is as in any new vCPU.
 */
struct state {
	char magic[8];
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_fpu fpu;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
};

static const char magic[8] = "MINIVMM";

int
state_save(const struct vm *vm)
{
	struct state s;
	int fd;

	memset(&s, 0, sizeof(s));
	memcpy(s.magic, magic, sizeof(magic));
	if (ioctl(vm->vcpu, KVM_GET_SREGS, &s.sregs) == -1 ||
	    ioctl(vm->vcpu, KVM_GET_REGS, &s.regs) == -1 ||
	    ioctl(vm->vcpu, KVM_GET_FPU, &s.fpu) == -1 ||
	    ioctl(vm->vcpu, KVM_GET_MP_STATE, &s.mp_state) == -1 ||
	    ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &s.events) == -1)
		return -1;
	fd = memfd_create("minivmm-state", MFD_CLOEXEC);
	if (fd == -1 || write(fd, &s, sizeof(s)) == (ssize_t)sizeof(s))
		return fd;
	close(fd);
	return -1;
}

/* The control registers first, the rest depends on them; the events after all. */
void
state_load(const struct vm *vm)
{
	const char *path = vm->o.restore;
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
	struct state s;

	if (read(fd, &s, sizeof(s)) != (ssize_t)sizeof(s) ||
	    memcmp(s.magic, magic, sizeof(magic)) != 0)
		errx(1, "%s: is no state of minivmm", path);
	close(fd);
	must(ioctl(vm->vcpu, KVM_SET_SREGS, &s.sregs), "set special registers");
	must(ioctl(vm->vcpu, KVM_SET_REGS, &s.regs), "set registers");
	must(ioctl(vm->vcpu, KVM_SET_FPU, &s.fpu), "set FPU");
	must(ioctl(vm->vcpu, KVM_SET_MP_STATE, &s.mp_state), "set MP state");
	must(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &s.events), "set events");
}
