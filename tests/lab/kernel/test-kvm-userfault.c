/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "lab.h"

/* KVM_MEM_USERFAULT: a bitmap that keeps vCPUs off pages. */

enum { PAGES = 64 };

static int kvm;

struct machine {
	int vm, gmem;
	char *map, *code;
	_Atomic uint64_t bitmap[PAGES / 64 + 1];
	struct vcpu vcpu;
};

static long
machine_slot(struct machine *m, uint32_t flags, void *bitmap)
{
	return set_region(m->vm, 1, flags, DATA_GPA, PAGES * PAGE, m->map, m->gmem, 0, bitmap);
}

static void
machine_create(struct machine *m, bool irqchip)
{
	memset(m, 0, sizeof(*m));
	m->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (irqchip)
		ioctl(m->vm, KVM_CREATE_IRQCHIP, 0);
	m->gmem = create_shared(m->vm, PAGES * PAGE);
	m->map = map_shared(m->gmem, PAGES * PAGE);
	m->code = page_alloc(1);
	memcpy(m->code, guest_reads_four, sizeof(guest_reads_four));
	set_region(m->vm, 0, 0, CODE_GPA, PAGE, m->code, 0, 0, NULL);
	vcpu_create(&m->vcpu, kvm, m->vm, 0, 0, CODE_GPA, irqchip ? 0x200 : 0);
	m->bitmap[0] = UINT64_MAX;
}

static void
machine_destroy(struct machine *m)
{
	vcpu_destroy(kvm, &m->vcpu);
	munmap(m->map, PAGES * PAGE);
	munmap(m->code, PAGE);
	close(m->gmem);
	close(m->vm);
}

/* Run, and populate each page the vCPU is kept off. */
static int
run_and_populate(struct machine *m)
{
	const struct lab_memory_fault *fault = vcpu_memory_fault(&m->vcpu);
	int exits = 0;

	for (;;) {
		unsigned long number;

		vcpu_run(&m->vcpu);
		if (m->vcpu.error != -EFAULT ||
		    m->vcpu.run->exit_reason != LAB_EXIT_MEMORY_FAULT ||
		    fault->flags != LAB_EXIT_FLAG_USERFAULT)
			return exits;
		exits++;
		number = (fault->gpa - DATA_GPA) / PAGE;
		if (fault->size != PAGE || number >= PAGES ||
		    write_page(m->gmem, number) != (long)PAGE)
			return -1;
		atomic_fetch_and_explicit(
		    &m->bitmap[number / 64], ~(1ULL << number % 64), memory_order_release);
	}
}

static void
test_slot(uint32_t flags, bool irqchip, const char *name)
{
	struct machine m;
	int exits;

	machine_create(&m, irqchip);
	ok(machine_slot(&m, LAB_MEM_USERFAULT | flags, m.bitmap) == 0, "%s", name);
	exits = run_and_populate(&m);
	ok(exits == 5 && m.vcpu.finished, "%s: an exit for each of 5 pages: %d", name, exits);
	ok(m.vcpu.outs == 4 && m.vcpu.out[0] == GUEST_VALUE(0) &&
		m.vcpu.out[3] == GUEST_VALUE(3),
	    "%s: the guest reads the data", name);
	ok(word16(m.map + 4 * PAGE, 0) == 0x1234 &&
		word16(m.map + 4 * PAGE, 2) == GUEST_VALUE(4),
	    "%s: its write lands in the data", name);
	ok(m.bitmap[0] == UINT64_MAX << 5, "%s: other pages are left alone", name);
	machine_destroy(&m);
}

static void
test_refusals(void)
{
	struct kvm_userspace_memory_region old = { .slot = 1,
		.flags = LAB_MEM_USERFAULT,
		.guest_phys_addr = DATA_GPA,
		.memory_size = PAGES * PAGE };
	struct machine m;

	machine_create(&m, false);
	old.userspace_addr = (uintptr_t)m.map;
	ok(result(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &old)) == -EINVAL,
	    "the first ioctl doesn't take the flag");
	ok(machine_slot(&m, LAB_MEM_USERFAULT, (void *)((uintptr_t)m.bitmap + 1)) == -EINVAL,
	    "an unaligned bitmap");
	ok(machine_slot(&m, LAB_MEM_USERFAULT, (void *)~7UL) == -EINVAL,
	    "a bitmap not in user space");
	ok(machine_slot(&m, LAB_MEM_USERFAULT, m.bitmap) == 0, "created");
	ok(machine_slot(&m, 0, NULL) == -EINVAL, "can't be cleared on a live slot");
	ok(set_region(m.vm, 1, 0, DATA_GPA, 0, NULL, 0, 0, NULL) == 0, "deleted");
	ok(machine_slot(&m, 0, NULL) == 0 &&
		machine_slot(&m, LAB_MEM_USERFAULT, m.bitmap) == -EINVAL,
	    "can't be set on a live slot");
	machine_destroy(&m);

	machine_create(&m, false);
	ok(machine_slot(&m, LAB_MEM_USERFAULT, (void *)8) == 0, "a bitmap that isn't there");
	vcpu_run(&m.vcpu);
	ok(m.vcpu.error == -EFAULT && m.vcpu.run->exit_reason != LAB_EXIT_MEMORY_FAULT,
	    "is EFAULT when a vCPU needs it: %s, exit reason %u", strerror((int)-m.vcpu.error),
	    m.vcpu.run->exit_reason);
	machine_destroy(&m);
}

static void
test_other_accesses(void)
{
	struct lab_pre_fault range = { .gpa = DATA_GPA + 8 * PAGE, .size = PAGE };
	struct machine m;
	struct server s;
	long r;

	machine_create(&m, false);
	machine_slot(&m, LAB_MEM_USERFAULT | LAB_MEM_GMEM, m.bitmap);
	if (server_start(&s, m.gmem, m.map, PAGES * PAGE) < 0)
		return;
	m.vcpu.run->exit_reason = 0;
	r = result(ioctl(m.vcpu.fd, LAB_PRE_FAULT, &range));
	if (r == -EOPNOTSUPP || r == -ENOTTY) {
		skip(2, "no KVM_PRE_FAULT_MEMORY");
	} else {
		ok(r == -EFAULT && !is_present(m.map + 8 * PAGE) &&
			m.vcpu.run->exit_reason != LAB_EXIT_MEMORY_FAULT,
		    "a prefault is refused and allocates nothing");
		write_page(m.gmem, 8);
		m.bitmap[0] &= ~(1ULL << 8);
		ok(result(ioctl(m.vcpu.fd, LAB_PRE_FAULT, &range)) == 0,
		    "and works when the bit is clear");
	}
	ok(vcpu_set_msr(&m.vcpu, 0x4b564d00, DATA_GPA + 9 * PAGE + 8) == 1 &&
		server_saw(&s, 1, 0),
	    "KVM's own access is for userfaultfd");
	server_stop(&s);
	machine_destroy(&m);
}

int
main(void)
{
	int vm;

	kvm = open_kvm();
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (ioctl(vm, KVM_CHECK_EXTENSION, LAB_CAP_USERFAULT) <= 0) {
		skip(1, "no KVM_CAP_USERFAULT");
		return done();
	}
	close(vm);
	test_slot(0, false, "plain slot");
	test_slot(LAB_MEM_GMEM, false, "guest_memfd slot");
	test_slot(0, true, "plain slot, irqchip and interrupts");
	test_slot(LAB_MEM_GMEM, true, "guest_memfd slot, irqchip and interrupts");
	test_refusals();
	test_other_accesses();
	return done();
}
