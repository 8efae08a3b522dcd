/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#define STATE_MAGIC "MINIVMM"
#define STATE_VERSION 1u
#define MSRS_MAX 512u

/* The file that goes into the image.  The rest of the VM is its memory: there are no devices.
 */
struct state {
	char magic[8];
	uint32_t version;
	uint32_t size; /* of this structure */
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	uint32_t has_xcrs;
	struct kvm_xcrs xcrs;
	uint8_t xsave[4096] __attribute__((aligned(8))); /* of KVM_GET_XSAVE */
	uint32_t nmsrs;
	uint32_t reserved;
	struct {
		uint32_t index, reserved;
		uint64_t value;
	} msrs[MSRS_MAX];
};

static bool
msr(int vcpu, unsigned long request, uint32_t index, uint64_t *value)
{
	union {
		struct kvm_msrs head;
		uint64_t space[3]; /* a header and one entry */
	} one = { .head.nmsrs = 1 };
	struct kvm_msr_entry *e = one.head.entries;

	e->index = index;
	e->data = *value;
	if (ioctl(vcpu, request, &one) != 1)
		return false;
	*value = e->data;
	return true;
}

/* All that this KVM knows; some it names and does not have. */
static int
get_msrs(const struct vm *vm, struct state *s)
{
	union {
		struct kvm_msr_list head;
		uint32_t space[1 + MSRS_MAX];
	} list = { .head.nmsrs = MSRS_MAX };

	if (ioctl(vm->kvm, KVM_GET_MSR_INDEX_LIST, &list) == -1)
		return -1;
	for (uint32_t i = 0; i < list.head.nmsrs; i++) {
		uint64_t value = 0;

		if (!msr(vm->vcpu.fd, KVM_GET_MSRS, list.head.indices[i], &value))
			continue;
		s->msrs[s->nmsrs].index = list.head.indices[i];
		s->msrs[s->nmsrs++].value = value;
	}
	return 0;
}

/* What a new vCPU has anyway is not set: that is allowed for few of them. */
static void
set_msrs(struct vcpu *v, const struct state *s)
{
	if (s->nmsrs > MSRS_MAX)
		fail("the state has %u MSRs", s->nmsrs);
	for (uint32_t i = 0; i < s->nmsrs; i++) {
		uint64_t wanted = s->msrs[i].value, now = 0;

		if (msr(v->fd, KVM_GET_MSRS, s->msrs[i].index, &now) && now == wanted)
			continue;
		if (!msr(v->fd, KVM_SET_MSRS, s->msrs[i].index, &wanted))
			fail("this KVM does not take MSR %#x = %#llx", s->msrs[i].index,
			    (unsigned long long)wanted);
	}
}

static int
get_all(const struct vm *vm, struct state *s)
{
	int fd = vm->vcpu.fd;

	s->has_xcrs = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
	if ((s->has_xcrs != 0 && ioctl(fd, KVM_GET_XCRS, &s->xcrs) == -1) ||
	    ioctl(fd, KVM_GET_REGS, &s->regs) == -1 ||
	    ioctl(fd, KVM_GET_SREGS, &s->sregs) == -1 ||
	    ioctl(fd, KVM_GET_XSAVE, s->xsave) == -1 ||
	    ioctl(fd, KVM_GET_DEBUGREGS, &s->debugregs) == -1 ||
	    ioctl(fd, KVM_GET_VCPU_EVENTS, &s->events) == -1 ||
	    ioctl(fd, KVM_GET_MP_STATE, &s->mp_state) == -1)
		return -1;
	return get_msrs(vm, s);
}

int
state_save(const struct vm *vm)
{
	struct state s;
	int fd;

	memset(&s, 0, sizeof(s));
	memcpy(s.magic, STATE_MAGIC, sizeof(s.magic));
	s.version = STATE_VERSION;
	s.size = sizeof(s);
	if (get_all(vm, &s) == -1)
		return -1;
	fd = memfd_create("minivmm-state", MFD_CLOEXEC);
	if (fd != -1 && pwrite(fd, &s, sizeof(s), 0) != (ssize_t)sizeof(s)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The control registers first, the rest depends on them; the events after all. */
void
state_load(struct vm *vm, int fd)
{
	struct vcpu *v = &vm->vcpu;
	struct state s;

	if (pread(fd, &s, sizeof(s), 0) != (ssize_t)sizeof(s) ||
	    memcmp(s.magic, STATE_MAGIC, sizeof(s.magic)) != 0)
		fail("this is no state of minivmm");
	if (s.version != STATE_VERSION || s.size != sizeof(s))
		fail(
		    "the state is of another minivmm: version %u, %u bytes", s.version, s.size);
	if (ioctl(v->fd, KVM_SET_SREGS, &s.sregs) == -1)
		fail_errno("set special registers");
	if (s.has_xcrs != 0 && ioctl(v->fd, KVM_SET_XCRS, &s.xcrs) == -1)
		fail_errno("set XCR0");
	if (ioctl(v->fd, KVM_SET_XSAVE, s.xsave) == -1)
		fail_errno("set FPU");
	set_msrs(v, &s);
	if (ioctl(v->fd, KVM_SET_DEBUGREGS, &s.debugregs) == -1 ||
	    ioctl(v->fd, KVM_SET_REGS, &s.regs) == -1 ||
	    ioctl(v->fd, KVM_SET_MP_STATE, &s.mp_state) == -1 ||
	    ioctl(v->fd, KVM_SET_VCPU_EVENTS, &s.events) == -1)
		fail_errno("set registers");
}
