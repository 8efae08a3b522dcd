/* SPDX-License-Identifier: 0BSD */
#include "minivmm.h"

#include <linux/falloc.h>

/* Can be mapped, and belongs to both sides from the beginning; -1: a memfd has to do. */
static int
create_guest_memfd(const struct vm *vm)
{
	struct kvm_create_guest_memfd g = { .size = vm->o.size };
	int fd;

	g.flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
	if (vm->o.no_direct_map)
		g.flags |= GUEST_MEMFD_FLAG_NO_DIRECT_MAP;
	fd = ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &g);
	if (fd == -1 && (vm->o.guest_memfd || vm->o.gmem_slot))
		err(1, "this kernel makes no guest_memfd with flags %#x", (unsigned)g.flags);
	return fd;
}

/* Mapped, and not touched: a restored memory is handed over first. */
void
memory_create(struct vm *vm)
{
	vm->memory = vm->o.memfd ? -1 : create_guest_memfd(vm);
	if (vm->memory == -1) {
		vm->memory = must(memfd_create("minivmm", MFD_CLOEXEC), "memfd");
		must(ftruncate(vm->memory, (off_t)vm->o.size), "memfd");
	}
	vm->map = map_file(vm->memory, vm->o.size);
}

/*
 * A plain slot goes through the mapping, whatever is mapped there, so userfaultfd
 * sees the vCPU's faults.  A slot of guest_memfd is reached past the mapping, by
 * the vCPU; KVM itself still uses the mapping.
 */
void
memory_add_slot(struct vm *vm)
{
	struct kvm_userspace_memory_region2 r = { .memory_size = vm->o.size };
	/* The older call, which all kernels have, takes the same structure, only shorter. */
	unsigned long call = KVM_SET_USER_MEMORY_REGION;

	r.userspace_addr = (uintptr_t)vm->map;
	if (vm->o.gmem_slot) {
		call = KVM_SET_USER_MEMORY_REGION2;
		r.flags = KVM_MEM_GUEST_MEMFD;
		r.guest_memfd = (uint32_t)vm->memory;
	}
	if (vm->bitmap != NULL) {
		r.flags |= KVM_MEM_USERFAULT;
		r.pad2[0] = (uintptr_t)vm->bitmap;
	}
	must(ioctl(vm->fd, call, &r), "memory slot");
}

/*
 * What a balloon does: gmem-restore hears of it first, or it would bring the old bytes back.
 * A hole does not wait for gmem-snap, as a write does: so there is a write first.  An atomic
 * operation that changes nothing is none: compilers make a read of it.
 */
void
memory_discard(struct vm *vm, uint64_t address, uint64_t length)
{
	const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	for (uint64_t at = 0; vm->protected && at < length; at += PAGE)
		*(volatile unsigned char *)(vm->map + address + at) = 0;
	if (vm->handoff != NULL && gmem_handoff_discard(vm->handoff, 0, address, length) == -1)
		errx(1, "%s", vm->handoff->error);
	must(fallocate(vm->memory, hole, (off_t)address, (off_t)length), "punch a hole");
}
